"""The processes of a TensorRT-LLM engine: its builder, and the workers that MPI starts for it.

MPI's workers need not be descendants of ours, so all of them carry a mark in their environment.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psutil

from llenergymeasure.core.visible_gpus import BUS_ORDER
from llenergymeasure.processes import Mark, anonymous_main, variables

MARK = "LLENERGYMEASURE_TENSORRT"
WORKER = "mpi4py.futures"  # how MPIPoolExecutor starts one: python -m mpi4py.futures.server
KEPT_LINES = 200
_PATIENCE_S = 5.0  # for a process that was asked to end


class Ended(NamedTuple):
    """A program that has ended.

    Attributes:
        code: Its exit code; negative for the signal that killed it.
        printed: The last lines it printed.
    """

    code: int
    printed: tuple[str, ...]


class MarkedProcesses:
    """Whatever is started inside :meth:`starting`, and its descendants."""

    def __init__(self) -> None:
        self._mark = Mark(MARK)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Let what is started inside the block be ours, and print to standard error."""
        with variables({**self._mark.variables, **BUS_ORDER}), anonymous_main(), stdout_spared():
            yield

    def run(self, command: Sequence[str]) -> Ended:
        """Run a program to its end, printing what it prints; end it if we are interrupted."""
        with self.starting():
            program = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is ours to hear, and to pass on
            )
        printed: deque[str] = deque(maxlen=KEPT_LINES)
        pump = threading.Thread(target=_pass_on, args=(program, printed), daemon=True)
        pump.start()
        try:
            program.wait()
        finally:
            self.end()  # its own workers may outlive it, and hold its output open
            program.wait()
            pump.join()
        return Ended(program.returncode, tuple(printed))

    def running(self) -> list[psutil.Process]:
        """List them, whoever their parent is by now."""
        return self._mark.processes()

    def workers(self) -> list[psutil.Process]:
        """List those that work until they are told to end: the pool of mpi4py."""
        return [process for process in self.running() if _is_worker(process)]

    def end(self) -> None:
        """End all of them; safe to call twice."""
        self._mark.end(_PATIENCE_S)


@contextlib.contextmanager
def stdout_spared() -> Iterator[None]:
    """Send what C++ and child processes print on standard output to standard error meanwhile.

    Standard output belongs to the result; Python's own ``print`` is not affected while it is
    redirected, as it is inside an experiment.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of the two is closed
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process is gone, or waits for its parent to notice."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any(WORKER in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _pass_on(program: subprocess.Popen[str], kept: deque[str]) -> None:
    assert program.stdout is not None
    with program.stdout as lines:
        for line in lines:
            kept.append(line.rstrip())
            sys.stdout.write(line)
