"""Measuring: device fingerprint, timing, the sweep and its journal.

`journal`, `device`, `points`, `process` and `sweep` need the standard library alone and never
initialise CUDA; `timing`, `check`, `implementations` and `worker` run in the measuring process.
"""
