"""Builds an engine in a process of its own, so that nothing of the build is there when measuring.

``python -m llenergymeasure.core.backends.tensorrt.build PARENT ORDER`` reads the order, a JSON file
with the arguments of ``LLM`` and the directory to write, and leaves a file beside it if it fails.
The system ends it when PARENT ends (``PR_SET_PDEATHSIG``, prctl(2)).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llenergymeasure import lifeline
from llenergymeasure.core.backends.shared.foreign_errors import first_lines
from llenergymeasure.core.backends.tensorrt import library
from llenergymeasure.core.backends.tensorrt.processes import MarkedProcesses


class BuildError(RuntimeError):
    """The builder failed; the message is that of the error there, or how it ended."""


def build_apart(arguments: Mapping[str, Any], directory: Path) -> None:
    """Build an engine in another process.

    Args:
        arguments: Those of ``LLM``, as plain data.
        directory: Where the engine is written; must not exist.

    Raises:
        BuildError: It failed.
    """
    order = directory.with_name("order.json")
    order.write_text(json.dumps({"arguments": arguments, "directory": str(directory)}))
    module = "llenergymeasure.core.backends.tensorrt.build"
    command = (sys.executable, "-m", module, str(os.getpid()), str(order))
    ended = MarkedProcesses().run(command)
    if ended.code != 0:
        raise BuildError(_reason(order, ended.code, ended.printed))


def main(parent: str, order: str) -> int:
    """Carry the order out; gives the exit code."""
    lifeline.die_with(int(parent))
    asked = json.loads(Path(order).read_text())
    try:
        library.build(asked["arguments"], Path(asked["directory"]))
    except Exception as error:  # noqa: BLE001 - the entry of a process; the parent translates it
        _error_file(Path(order)).write_text(f"{type(error).__name__}: {first_lines(error)}")
        return 1
    return 0


def _error_file(order: Path) -> Path:
    return order.with_suffix(".error")


def _reason(order: Path, code: int, printed: tuple[str, ...]) -> str:
    try:
        return _error_file(order).read_text()
    except OSError:
        pass
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    last = next((line for line in reversed(printed) if line.strip()), None)
    return f"the builder {how}" + (f"; the last it printed: {last[:300]}" if last else "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
