"""Build the simulated NVML library with the C compiler at hand."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
_HERE = Path(__file__).parent
_SOURCES = ("simdevice.h", "simdevice.c", "simnvml.c")
_COMPILE = (
    *("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"),
    *("-ffp-contract=off", "-fvisibility=hidden"),
)


def compiler_missing() -> str | None:
    """Say why the library cannot be built here."""
    return None if shutil.which("gcc") else "no gcc to build the simulated NVML with"


def library_dir(cache: Path | None = None) -> Path:
    """Give the directory that holds the library, built once for its sources.

    Args:
        cache: Where builds are kept; by default in the directory for temporary files.

    Raises:
        subprocess.CalledProcessError: The compiler refused.
    """
    digest = hashlib.sha256(repr(_COMPILE).encode())
    for source in _SOURCES:
        digest.update((_HERE / source).read_bytes())
    parent = cache or Path(tempfile.gettempdir()) / f"simulated-nvml-{os.getuid()}"
    directory = parent / digest.hexdigest()[:16]
    if not (directory / LIBRARY).exists():
        _build(directory)
    return directory


def _build(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    sources = [str(_HERE / name) for name in _SOURCES if name.endswith(".c")]
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        built = Path(scratch) / LIBRARY
        subprocess.run([*_COMPILE, "-o", str(built), *sources, "-lm", "-lpthread"], check=True)
        built.replace(directory / LIBRARY)  # whole or not at all, whoever else builds
