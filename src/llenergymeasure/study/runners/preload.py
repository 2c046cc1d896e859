"""What a fork server imports, and what a forked child must put right before it works.

A child that is forked should compute as one that is spawned does: with as many threads, and with
random numbers of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llenergymeasure.config.registry import backend_entry
from llenergymeasure.study.runners import processes

OWN_MODULES = (
    "llenergymeasure.orchestration.worker",
    "llenergymeasure.orchestration.probe",
    "numpy.random",
    "pynvml",  # Python alone; it loads no driver before it is asked to
)
_WHILE_IMPORTING = {
    "OPENBLAS_NUM_THREADS": "1",  # its threads would start with the import of NumPy and SciPy
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch.cuda.is_available() without cuInit
}
_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")
_BLAS_SYMBOLS = (
    ("scipy_", "64_"),  # the wheels of NumPy and SciPy add these to the names of OpenBLAS
    ("scipy_", ""),
    ("", "64_"),
    ("", ""),
)
_NOT_INITIALISED = 3  # CUDA_ERROR_NOT_INITIALIZED


def preload(backend: str) -> None:
    """Import the worker and the engine of a backend; what is not installed is left out."""
    with _environment(_WHILE_IMPORTING):
        entry = backend_entry(backend)  # imports the package of a third party's
        implementation = entry.implementation.partition(":")[0]
        for module in filter(None, (*OWN_MODULES, *entry.preload, implementation)):
            with contextlib.suppress(ImportError):  # the worker says what is missing, and how
                importlib.import_module(module)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def reason_not_to_fork() -> str | None:
    """Say why a child forked from this process could not work, or ``None`` when it can."""
    if sys.platform != "linux":
        return "processes are forked on Linux only"
    if (count := processes.threads()) != 1:
        return f"importing the engine left {count} threads, which a fork does not survive"
    if _torch_uses_cuda() or _driver_initialised():
        return "importing the engine initialised CUDA, which a fork does not survive"
    return None


def _torch_uses_cuda() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


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
    for path in _loaded("openblas"):
        _restore_threads(ctypes.CDLL(path))
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _restore_threads(library: ctypes.CDLL) -> None:
    for prefix, suffix in _BLAS_SYMBOLS:
        choose = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
        if choose is not None:
            choose(_blas_threads(getattr(library, f"{prefix}openblas_get_num_procs{suffix}")))
            return


def _blas_threads(processors: Any) -> int:
    """Choose as OpenBLAS does when it is loaded: the variables in its order, else all it sees."""
    available = len(os.sched_getaffinity(0))
    asked = (os.environ.get(name, "") for name in _BLAS_VARIABLES)
    numbers = (int(text) for text in asked if text.isdecimal())
    return min(next(filter(None, numbers), available), available, max(1, int(processors())))


def _loaded(name: str) -> list[str]:
    """List the shared libraries in this process whose file name contains ``name``."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    return sorted(path for path in paths if name in Path(path).name and Path(path).is_file())
