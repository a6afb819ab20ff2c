"""Measuring: device fingerprint, timing, the sweep and its journal.

`journal`, `points`, `device`, `resume`, `process`, `measuring`, `sweep` and `for_asv` need the
standard library alone and never initialise CUDA. `fleet` measures by many GPUs, and then needs
`distributed`; `fleet_worker` runs in Dask's workers. `worker` starts the measuring process, in
which the rest runs: `laboratory`, `check`, `accuracy`, `measurement`, `graphs` and
`implementations` import torch.
"""
