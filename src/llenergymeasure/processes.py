"""Finds and ends the processes that should not outlive the one that answers for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psutil

MARK = "_LLENERGYMEASURE_SERVER"
"""Environment variable by which the processes of one server are known, whoever their parent is."""

GIVE_UP_S = 30.0


def threads() -> int:
    """Count the threads of this process, native ones included."""
    return psutil.Process().num_threads()


def reaped() -> Iterator[tuple[int, int]]:
    """Yield process id and exit code, negative for a signal, of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def end_children() -> dict[int, int]:
    """Kill every descendant of this process and wait until none is left.

    A process that the kernel holds on to (state D) is given up on after ``GIVE_UP_S``.

    Returns:
        Exit code, negative for a signal, by process id.
    """
    codes, deadline_s, pause_s = dict(reaped()), time.monotonic() + GIVE_UP_S, 0.001
    while _has_children() and time.monotonic() < deadline_s:
        for child in psutil.Process().children(recursive=True):
            _kill(child)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)
        codes |= dict(reaped())
    return codes


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_marked(mark: str) -> None:
    """Kill every process whose environment carries a mark, and wait until none is left."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while (alive := list(_marked(mark))) and time.monotonic() < deadline_s:
        for process in alive:
            _kill(process)
        psutil.wait_procs(alive, timeout=1)


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            gone = process.status() == psutil.STATUS_ZOMBIE
            if not gone and process.environ().get(MARK) == mark:
                yield process
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
