"""Ends a process with the one that started it, and keeps track of those left over.

On Linux a process whose parent ends is given to its nearest ancestor that asked for such orphans
(``PR_SET_CHILD_SUBREAPER``, prctl(2)), and can ask to be killed when its own parent ends
(``PR_SET_PDEATHSIG``). Elsewhere only what is still a descendant is found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # before any fork
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant that outlives its own."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Ask to be killed when the parent ends, even while computing; end at once if it has."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
