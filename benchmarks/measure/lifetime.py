"""A measuring process ends with the one that started it, and orphans find a home.

Killed or interrupted, asv leaves its `setup_cache` process behind, which would go on measuring and
keep the journal to itself, so that a second run could not take over.
"""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # Linux, prctl(2)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. Linux alone can do this."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_in_orphans() -> None:
    """Have descendants whose parent ends become children of this process. Linux alone can do this.

    Raises OSError elsewhere.
    """
    if sys.platform != "linux" or ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError("this system gives orphaned processes to nobody but its first one")
