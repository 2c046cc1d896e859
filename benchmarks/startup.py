"""How long a user waits for ``llem --help``, ``--version``, ``run --help`` and for the import.

The package is installed as users install it, not editable and with compiled modules, in a virtual
environment of its own. The commands take turns, so that a slow moment of the machine hits them all.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine

PACKAGES = ("llenergymeasure", "typer", "pydantic")


class Command(NamedTuple):
    """A command to time.

    Attributes:
        name: As the table shows it.
        arguments: The program, in the environment's ``bin``, and its arguments.
        limit_s: The most its median may take; ``None`` for commands that give the scale.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float | None = None


COMMANDS = (
    Command("python -c pass", ("python", "-c", "pass")),
    Command("llem --help", ("llem", "--help"), 0.2),
    Command("llem --version", ("llem", "--version"), 0.2),
    Command("llem run --help", ("llem", "run", "--help"), 0.25),
    Command("import llenergymeasure", ("python", "-c", "import llenergymeasure"), 0.1),
    Command("import typer", ("python", "-c", "import typer"), None),
    Command("import pydantic", ("python", "-c", "import pydantic; pydantic.BaseModel"), None),
)


def install(folder: Path) -> Path:
    """Make a virtual environment with the package in it; give its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
    constraints = ["--constraint", str(machine.ROOT / "constraints.txt")]
    subprocess.run([*pip, "--quiet", *constraints, str(machine.ROOT)], check=True)
    return folder / "bin"


def time_s(command: Command, programs: Path) -> float:
    """Run a command once, from start to exit, in seconds."""
    program, *rest = command.arguments
    start_s = time.perf_counter()
    subprocess.run(
        [str(programs / program), *rest],
        check=True,
        stdout=subprocess.DEVNULL,
        env=machine.environment(PYTHONPATH=""),  # the installed package, not a checkout
        cwd=programs,
    )
    return time.perf_counter() - start_s


def measure(programs: Path, rounds: int) -> dict[str, list[float]]:
    """Time every command once a round, after a round that warms the disk cache."""
    for command in COMMANDS:
        time_s(command, programs)
    seconds: dict[str, list[float]] = {command.name: [] for command in COMMANDS}
    for _ in range(rounds):
        for command in COMMANDS:
            seconds[command.name].append(time_s(command, programs))
    return seconds


def summarise(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Give median, minimum and limit of every command."""
    return [
        {
            "command": command.name,
            "median_s": statistics.median(seconds[command.name]),
            "min_s": min(seconds[command.name]),
            "limit_s": command.limit_s,
        }
        for command in COMMANDS
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the figures out in milliseconds."""
    lines = [f"{'command':24} {'median':>9} {'min':>9} {'limit':>9}"]
    for row in rows:
        limit = "" if row["limit_s"] is None else f"{row['limit_s'] * 1e3:.0f} ms"
        figures = f"{row['median_s'] * 1e3:>6.0f} ms {row['min_s'] * 1e3:>6.0f} ms"
        lines.append(f"{row['command']:24} {figures} {limit:>9}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "startup.json")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="llem-startup-") as folder:
        programs = install(Path(folder))
        seconds = measure(programs, asked.rounds)
        versions = machine.versions(programs / "python", PACKAGES)
    rows = summarise(seconds)
    facts = {"machine": machine.describe(), "versions": versions}
    machine.save(asked.output, {**facts, "summary": rows, "seconds": seconds})
    print(table(rows))
    missed = [r["command"] for r in rows if r["limit_s"] and r["median_s"] > r["limit_s"]]
    print(f"missed: {', '.join(missed)}" if missed else "every limit is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
