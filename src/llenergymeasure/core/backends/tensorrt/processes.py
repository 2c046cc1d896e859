"""The workers that MPI starts for TensorRT-LLM.

They need not be descendants of ours, so all of them carry a mark in their environment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator

import psutil

from llenergymeasure.core.backends.shared.engine_processes import (
    anonymous_main,
    end_processes,
    variables,
)
from llenergymeasure.core.visible_gpus import BUS_ORDER

MARK = "LLENERGYMEASURE_TENSORRT"
WORKER = "mpi4py.futures"  # how MPIPoolExecutor starts one: python -m mpi4py.futures.server
# What it tells NVIDIA of its use is no part of a measurement (tensorrt_llm/usage/config.py).
_NO_TELEMETRY = {"TRTLLM_NO_USAGE_STATS": "1"}
_PATIENCE_S = 5.0  # for a process that was asked to end


class MarkedProcesses:
    """Whatever is started inside :meth:`starting`, and its descendants."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Let what is started inside the block be ours, and print to standard error."""
        ours = {MARK: self._mark, **BUS_ORDER, **_NO_TELEMETRY}
        with variables(ours), anonymous_main(), stdout_spared():
            yield

    def running(self) -> list[psutil.Process]:
        """List them, whoever their parent is by now."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def workers(self) -> list[psutil.Process]:
        """List those that work until they are told to end: the pool of mpi4py."""
        return [process for process in self.running() if _is_worker(process)]

    def end(self) -> None:
        """End all of them; safe to call twice."""
        end_processes(self.running(), _PATIENCE_S)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and process.environ().get(MARK) == self._mark
        except (psutil.Error, OSError):
            return False


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
