"""How long a user waits for help, versions, the first line of a run, a small study and its resume.

The package is installed as users install it, not editable and with compiled modules, in a virtual
environment of its own. Everything takes turns, so that a slow moment of the machine hits all of it;
what is held against an import is divided by it round by round.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import machine

PACKAGES = ("llenergymeasure", "typer", "pydantic", "numpy", "scipy", "pyarrow")
STUDY = """
name: two
model: m
backend: scripted
energy_backend: none
n: 2
max_new_tokens: 2
warmup: {n_warmup: 0}
scripted: {ttft_ms: 1, itl_ms: 1}
sweep: {random_seed: [1, 2]}
execution: {n_cycles: 3, config_gap_seconds: 0, cycle_gap_seconds: 0}
"""
PYTORCH_STUDY = """
name: engines
model: random:tiny-llama
energy_backend: none
sweep: {pytorch.batch_size: [1, 2]}
execution: {n_cycles: 1}
"""


class Figure(NamedTuple):
    """What is measured once a round.

    Attributes:
        name: As the table shows it.
        limit: The most its median may be; ``None`` for what gives the scale.
        unit: ``s``, ``CPU-s`` or ``x``.
        over: What it is divided by, of the same round.
    """

    name: str
    limit: float | None = None
    unit: str = "s"
    over: str | None = None


FIGURES = (
    Figure("python -c pass"),
    Figure("import llenergymeasure", 0.1),
    Figure("import typer"),
    Figure("import typer, pydantic, yaml"),
    Figure("llem --help", 0.3),
    Figure("llem --version"),
    Figure("llem run --help"),
    Figure("llem --version / typer", 1.6, "x", "import typer"),
    Figure("llem run --help / imports", 1.6, "x", "import typer, pydantic, yaml"),
    Figure("first line of a PyTorch study", 0.3),
    Figure("study of two", 3.0, "CPU-s"),
    Figure("resume of it", 1.5, "CPU-s"),
)


def install(folder: Path) -> Path:
    """Make a virtual environment with the package in it; give its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
    constraints = ["--constraint", str(machine.ROOT / "constraints.txt")]
    subprocess.run([*pip, "--quiet", *constraints, str(machine.ROOT)], check=True)
    return folder / "bin"


class Bench:
    """Runs the programs of an environment, in a folder and a home of their own."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        (folder / "two.yaml").write_text(STUDY, encoding="utf-8")
        (folder / "engines.yaml").write_text(PYTORCH_STUDY, encoding="utf-8")
        homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME")}
        # The installed package, not a checkout.
        self._environment = machine.environment(PYTHONPATH="", **homes)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=self._folder,
        )

    def wall_s(self, program: str, *arguments: str) -> float:
        """Run a command once, from start to exit."""
        start_s = time.perf_counter()
        self._run(program, *arguments)
        return time.perf_counter() - start_s

    def cpu_s(self, *arguments: str) -> float:
        """Run ``llem`` once; give what it and its children computed."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._run("llem", *arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    def first_line_s(self, *arguments: str) -> float:
        """Start ``llem`` once; give the seconds until it says something, and end it."""
        start_s = time.perf_counter()
        process = subprocess.Popen(
            [str(self._programs / "llem"), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment,
            cwd=self._folder,
        )
        assert process.stderr is not None
        with process.stderr as stream:
            said = os.read(stream.fileno(), 1)
            passed_s = time.perf_counter() - start_s
            process.kill()
            process.wait()
        if not said:
            raise RuntimeError("llem ended without a word")
        return passed_s

    def round(self) -> dict[str, float]:
        """Measure everything once."""
        results = self._folder / "results"
        shutil.rmtree(results, ignore_errors=True)
        study = ("run", "two.yaml", "--output", str(results))
        resume = ("run", "--resume", str(results))
        measured: dict[str, Callable[[], float]] = {
            "python -c pass": lambda: self.wall_s("python", "-c", "pass"),
            "llem --help": lambda: self.wall_s("llem", "--help"),
            "llem --version": lambda: self.wall_s("llem", "--version"),
            "llem run --help": lambda: self.wall_s("llem", "run", "--help"),
            "first line of a PyTorch study": lambda: self.first_line_s("run", "engines.yaml"),
            "study of two": lambda: self.cpu_s(*study),
            "resume of it": lambda: self.cpu_s(*resume),
        }
        for name in (figure.name for figure in FIGURES if figure.name.startswith("import ")):
            # Attributes of pydantic are imported when they are asked for.
            code = f"{name}; pydantic.BaseModel" if "pydantic" in name else name
            measured[name] = lambda code=code: self.wall_s("python", "-c", code)  # type: ignore[misc]
        found = {name: take() for name, take in measured.items()}
        for figure in FIGURES:
            if figure.over is not None:
                name = figure.name.partition(" / ")[0]
                found[figure.name] = found[name] / found[figure.over]
        return found


def summarise(rounds: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Give median, minimum and limit of every figure."""
    return [
        {
            "figure": figure.name,
            "unit": figure.unit,
            "median": statistics.median(one[figure.name] for one in rounds),
            "min": min(one[figure.name] for one in rounds),
            "limit": figure.limit,
        }
        for figure in FIGURES
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the figures out."""
    lines = [f"{'figure':30} {'median':>8} {'min':>8} {'limit':>8}"]
    for row in rows:
        limit = "" if row["limit"] is None else f"{row['limit']:.2f}"
        figures = f"{row['median']:>8.3f} {row['min']:>8.3f} {limit:>8} {row['unit']}"
        lines.append(f"{row['figure']:30} {figures}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "startup.json")
    parser.add_argument("--programs", type=Path, help="bin of an environment that is there")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="llem-startup-") as folder:
        programs = asked.programs or install(Path(folder, "environment"))
        work = Path(folder, "work")
        work.mkdir()
        bench = Bench(programs.absolute(), work)
        bench.round()  # warms the disk cache
        rounds = [bench.round() for _ in range(asked.rounds)]
        versions = machine.versions(programs / "python", PACKAGES)
    rows = summarise(rounds)
    facts = {"machine": machine.describe(), "versions": versions}
    machine.save(asked.output, {**facts, "summary": rows, "rounds": rounds})
    print(table(rows))
    missed = [r["figure"] for r in rows if r["limit"] and r["median"] > r["limit"]]
    print(f"missed: {', '.join(missed)}" if missed else "every limit is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
