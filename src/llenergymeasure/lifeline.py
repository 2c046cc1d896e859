"""Ends a process with the one that started it, and keeps track of those left over.

On Linux a process whose parent ends is given to its nearest ancestor that asked for such orphans
(``PR_SET_CHILD_SUBREAPER``, prctl(2)), and can ask to be killed when its own parent ends
(``PR_SET_PDEATHSIG``). Elsewhere only what is still a descendant is found.

Standard library only: it runs in the sampling process, which stays small, and as the script that
an engine's processes begin with. ``python lifeline.py PARENT OUTPUT ARGUMENTS...`` becomes
``python ARGUMENTS``, which prints to the file OUTPUT and is killed when PARENT ends without ending
it.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import NamedTuple, NoReturn

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # before any fork
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PARENT_CHECK_S = 1.0


def adopt_orphans() -> None:
    """Become the parent of every descendant that outlives its own."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Ask to be killed when the parent ends, even while computing; end at once if it has.

    Args:
        parent: Its process id.
        by: What is sent then. One that ends by itself asks for SIGCONT, for it may be stopped.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def descriptor_of(pid: int) -> int | None:
    """Open a descriptor that is readable once a process has ended (pidfd_open(2), Linux 5.3).

    ``None`` where there is no such thing, or no such process.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


class Line(NamedTuple):
    """The line of a child to the process that started it.

    Attributes:
        channel: Where its answers go.
        inbox: Where the messages of the parent arrive.
    """

    channel: Connection
    inbox: queue.SimpleQueue[str]


def answer(parent: int, descriptor: int) -> Line:
    """Listen to the parent, and end this process when that is gone.

    In a thread of its own, because the main one may be stuck in a meter or an engine. Ctrl-C is the
    parent's to hear.

    Args:
        parent: Its process id, which is looked at as well: another fork of the parent can hold the
            channel open.
        descriptor: This end of the channel.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent, signal.SIGCONT)
    line = Line(Connection(descriptor), queue.SimpleQueue())

    def listen() -> NoReturn:
        while os.getppid() == parent:
            try:
                if line.channel.poll(_PARENT_CHECK_S):
                    line.inbox.put(line.channel.recv_bytes().decode())
            except (EOFError, OSError):
                break
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    return line


def _become(parent: str, output: str, *arguments: str) -> None:
    """Become an interpreter that prints to a file; ends where the parent has ended already."""
    die_with(int(parent))
    descriptor = os.open(output, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - no shell


if __name__ == "__main__":
    _become(*sys.argv[1:])
