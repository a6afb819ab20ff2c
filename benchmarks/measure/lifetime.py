"""A measuring process ends with the one that started it.

Killed or interrupted, asv leaves its `setup_cache` process behind, which would go on measuring and
keep the journal to itself, so that a second run could not take over.
"""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Linux alone can do this."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
