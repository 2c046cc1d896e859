"""Programs that an interpreter's packages brought, found as in its activated environment.

Engines look on ``PATH`` for what they compile kernels with, such as ninja, and take other kernels
where it is not found.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path


def with_tools(path: str, interpreter: str) -> str:
    """Put the folder of an interpreter first on a search path.

    A path that has it already stays as it is: ``/usr/bin`` must not come before what was put
    before it on purpose, such as a compiler.

    Args:
        path: Value of ``PATH``.
        interpreter: Path of a Python, or a command on that path.
    """
    program = shutil.which(interpreter, path=path)
    folder = "" if program is None else str(Path(program).absolute().parent)
    parts = path.split(os.pathsep) if path else []
    return path if folder in ("", *parts) else os.pathsep.join([folder, *parts])


@contextlib.contextmanager
def own_tools_found() -> Iterator[None]:
    """Let programs of this interpreter's environment be found inside the block."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = with_tools(os.defpath if before is None else before, sys.executable)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before
