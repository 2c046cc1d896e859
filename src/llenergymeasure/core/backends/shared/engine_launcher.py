"""Starts the interpreter of an engine's process; a script that imports nothing of this package.

``python engine_launcher.py PARENT OUTPUT VARIABLE=MARK ARGUMENTS...`` becomes ``python ARGUMENTS``,
which prints to the file OUTPUT, carries the mark in its environment, and is killed by the system
when PARENT ends without ending it (``PR_SET_PDEATHSIG``, prctl(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: str, output: str, mark: str, *arguments: str) -> None:
    """Become the interpreter; ends where the parent has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return
    descriptor = os.open(output, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    name, _, value = mark.partition("=")
    environment = {**os.environ, name: value}
    os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606 - no shell


if __name__ == "__main__":
    main(*sys.argv[1:])
