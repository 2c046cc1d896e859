"""The workers that MPI starts for TensorRT-LLM, and what they print."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import psutil

from llenergymeasure.core.backends.shared.processes import EngineProcesses
from llenergymeasure.core.visible_gpus import BUS_ORDER

WORKER = "mpi4py.futures"  # how MPIPoolExecutor starts one: python -m mpi4py.futures.server
ENVIRONMENT = {
    **BUS_ORDER,
    "TRTLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere (tensorrt_llm/usage/config.py)
}
"""Variables under which TensorRT-LLM is started."""


def workers(processes: EngineProcesses) -> list[psutil.Process]:
    """List those of an engine that work until they are told to end: the pool of mpi4py."""
    found = []
    for process in processes.running():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if any(WORKER in argument for argument in process.cmdline()):
                found.append(process)
    return found


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
