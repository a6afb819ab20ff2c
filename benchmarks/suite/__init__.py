"""What asv imports: plain classes, one an operator, whose cases are frozen in `cases.json`.

asv imports this package as `suite`, from its own directory. The checkout is put on the path here,
so that `benchmarks` is found in every kind of asv environment.
"""

import sys
from pathlib import Path

_CHECKOUT = str(Path(__file__).resolve().parents[2])
if _CHECKOUT not in sys.path:
    sys.path.append(_CHECKOUT)
