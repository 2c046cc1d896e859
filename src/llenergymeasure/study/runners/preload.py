"""What a fork server imports, and what a forked child must put right before it works.

A child that is forked should compute as one that is spawned does, with random numbers of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from llenergymeasure.config.registry import backend_entry, plugin_backends
from llenergymeasure.core.environment import software
from llenergymeasure.domain import Record
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.processes import variables

OWN_MODULES = (
    "llenergymeasure.orchestration.worker",
    "llenergymeasure.orchestration.probe",
    "numpy.random",
    "pynvml",  # Python alone; it loads no driver before it is asked to
)
_WHILE_IMPORTING = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch.cuda.is_available() without cuInit
}
_NOT_INITIALISED = 3  # CUDA_ERROR_NOT_INITIALIZED


def preload(backend: str) -> None:
    """Import the worker and the engine of a backend; what is not installed is left out.

    Nothing of it is collected as garbage, then or in a worker: a collection would visit every
    object of the engine, and so copy every page of it.
    """
    gc.disable()
    with variables(_WHILE_IMPORTING):
        entry = backend_entry(backend)  # imports the package of a third party's
        implementation = entry.implementation.partition(":")[0]
        for module in filter(None, (*OWN_MODULES, *entry.preload, implementation)):
            with contextlib.suppress(ImportError):  # the worker says what is missing, and how
                importlib.import_module(module)
    _prepare_records()
    _end_blas_threads()
    gc.freeze()
    gc.enable()


def _prepare_records() -> None:
    """Do once what every worker would do for its first result."""
    software()
    with contextlib.suppress(ConfigError):  # the worker says which plugin is broken
        plugin_backends()
    for model in _subclasses(Record):
        model.model_rebuild()


def _end_blas_threads() -> None:
    """End the threads that OpenBLAS started for NumPy and SciPy, as it does itself before a fork.

    It starts them anew when they are first needed.
    """
    for path in _loaded("openblas"):
        end = getattr(ctypes.CDLL(path), "blas_thread_shutdown_", None)
        if end is not None:  # else they keep the process from being forked
            end()


def _subclasses(model: type[Record]) -> Iterator[type[Record]]:
    for each in model.__subclasses__():
        yield each
        yield from _subclasses(each)


def reason_not_to_fork() -> str | None:
    """Say why a child forked from this process could not work, or ``None`` when it can."""
    if sys.platform != "linux":
        return "processes are forked on Linux only"
    if (count := psutil.Process().num_threads()) != 1:
        return f"importing the engine left {count} threads, which a fork does not survive"
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or _driver_initialised():
        return "importing the engine initialised CUDA, which a fork does not survive"
    return None


def _driver_initialised() -> bool:
    """Ask the CUDA driver itself, where it is loaded: torch does not see another one's cuInit."""
    for path in _loaded("libcuda.so"):
        context = ctypes.c_void_p()
        if ctypes.CDLL(path).cuCtxGetCurrent(ctypes.byref(context)) != _NOT_INITIALISED:
            return True
    return False


def put_right() -> None:
    """Undo, in a forked child, what would set it apart from a spawned one.

    Python's own generator seeds itself anew after a fork, torch's starts alike in every process.
    """
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _loaded(name: str) -> list[str]:
    """List the shared libraries in this process whose file name contains ``name``."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    return sorted(path for path in paths if name in Path(path).name and Path(path).is_file())
