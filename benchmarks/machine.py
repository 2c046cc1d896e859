"""Facts that a benchmark states beside its figures: the machine, and what was installed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]


def describe() -> dict[str, Any]:
    """Describe the machine, without a name that tells which one it is."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def environment(**extra: str) -> dict[str, str]:
    """Give the environment of a measured process: compiled modules are kept, no network."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "HF_HUB_OFFLINE": "1", **extra}


def versions(python: Path, packages: Iterable[str]) -> dict[str, str | None]:
    """Ask an interpreter for its version and those of packages it has installed."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {d.metadata['Name'].lower().replace('_', '-'): d.version"
        " for d in m.distributions()}\n"
        "wanted = {name: found.get(name) for name in sys.argv[1:]}\n"
        "print(json.dumps({'python': platform.python_version(), **wanted}))"
    )
    printed = subprocess.run(
        [str(python), "-c", code, *packages],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    ).stdout
    found: dict[str, str | None] = json.loads(printed)
    return found


def save(path: Path, data: dict[str, Any]) -> None:
    """Write raw figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
