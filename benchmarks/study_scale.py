"""Does a large study lose nothing, and cost no more an experiment than a small one?

The scripted backend answers at once, so what is timed is the study itself. Each size runs the same
kind of study; the largest is killed with SIGKILL half-way and resumed. What the files of the plan
and of progress cost is counted in bytes and in seconds a change of status.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import machine

SIZES = (100, 1_000, 10_000)
CYCLES = 5
CHANGES = 2  # of status, an experiment: running, complete


def study(experiments: int) -> dict[str, Any]:
    """Describe a study of that many experiments, each of a token."""
    return {
        "name": f"scale-{experiments}",
        "model": "m",
        "backend": "scripted",
        "n": 1,
        "max_new_tokens": 1,
        "energy_backend": "none",
        "warmup": {"n_warmup": 0, "thermal_floor_seconds": 0},
        "scripted": {"ttft_ms": 0, "itl_ms": 0},
        "sweep": {"random_seed": list(range(experiments // CYCLES))},
        "execution": {"n_cycles": CYCLES, "config_gap_seconds": 0, "cycle_gap_seconds": 0},
    }


def command(*arguments: str) -> list[str]:
    """Give the command line of llem."""
    return [sys.executable, "-m", "llenergymeasure", "run", "--quiet", *arguments]


def run(folder: Path, *arguments: str) -> float:
    """Run to the end; give the wall time in seconds."""
    start_s = time.perf_counter()
    subprocess.run(
        command(*arguments),
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        env=machine.environment(XDG_CONFIG_HOME=str(folder), LLEM_LOCK_DIR=str(folder)),
    )
    return time.perf_counter() - start_s


def complete(directory: Path) -> int:
    """Count the results of a study."""
    return sum(1 for _ in directory.glob("experiments/*/result.json"))


def killed_half_way(folder: Path, file: Path, results: Path, experiments: int) -> float:
    """Start a study, kill the command at half; give the seconds until then."""
    start_s = time.perf_counter()
    process = subprocess.Popen(
        command(str(file), "-o", str(results)),
        stdout=subprocess.DEVNULL,
        cwd=folder,
        env=machine.environment(XDG_CONFIG_HOME=str(folder), LLEM_LOCK_DIR=str(folder)),
    )
    progress = _progress_file(results)
    while _lines(progress) < experiments and process.poll() is None:
        time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return time.perf_counter() - start_s


def _progress_file(results: Path) -> Path:
    while not (found := list(results.glob("*/study_progress.jsonl"))):
        time.sleep(0.1)
    return found[0]


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def measure(experiments: int, folder: Path, *, kill: bool) -> dict[str, Any]:
    """Run a study of that size, killed half-way and resumed if asked."""
    file = folder / f"scale-{experiments}.yaml"
    file.write_text(yaml.safe_dump(study(experiments)), encoding="utf-8")
    results = folder / f"results-{experiments}"
    facts: dict[str, Any] = {"experiments": experiments, "killed": kill}
    if kill:
        facts["until_killed_s"] = killed_half_way(folder, file, results, experiments)
        (directory,) = results.iterdir()
        facts["complete_when_killed"] = complete(directory)
        facts["wall_s"] = run(folder, "--resume", str(directory))
    else:
        facts["wall_s"] = run(folder, str(file), "-o", str(results))
        (directory,) = results.iterdir()
    progress = directory / "study_progress.jsonl"
    manifest = directory / "study_manifest.json"
    return {
        **facts,
        "complete": complete(directory),
        "each_s": (facts["wall_s"] + facts.get("until_killed_s", 0.0)) / experiments,
        "manifest_bytes": manifest.stat().st_size,
        "manifest_bytes_each": manifest.stat().st_size / experiments,
        "progress_bytes_each": progress.stat().st_size / experiments,
        "peak_rss_mb": _peak_rss_mb(),
    }


def _peak_rss_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def change_s(directory: Path, changes: int) -> float:
    """Time a change of status as the study writes it, among that many others; seconds each."""
    from datetime import UTC, datetime

    from llenergymeasure.study.events import ProgressLine, ProgressLog

    log = ProgressLog(directory / f"progress-{changes}.jsonl")
    now = datetime.now(UTC)
    start_s = time.perf_counter()
    for number in range(changes):
        log.note(ProgressLine(slot=number + 1, status="complete", at=now, duration_s=1.0))
    seconds = time.perf_counter() - start_s
    log.close()
    return seconds / changes


def table(rows: list[dict[str, Any]]) -> str:
    """Lay the figures out."""
    lines = [f"{'experiments':>12} {'complete':>9} {'each':>8} {'manifest':>14} {'progress':>14}"]
    for row in rows:
        lines.append(
            f"{row['experiments']:>12,} {row['complete']:>9,} {row['each_s']:>6.3f} s "
            f"{row['manifest_bytes_each']:>8.0f} B/exp {row['progress_bytes_each']:>8.0f} B/exp"
        )
        lines.append(f"{'':12} a change of status takes {row['change_s'] * 1e6:.1f} µs")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when an experiment is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "study_scale.json")
    asked = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix="llem-scale-") as name:
        folder = Path(name)
        for size in asked.sizes:
            row = measure(size, folder, kill=size == max(asked.sizes))
            row["change_s"] = change_s(folder, CHANGES * size)
            rows.append(row)
            print(json.dumps(row), flush=True)
    versions = machine.versions(Path(sys.executable), ("llenergymeasure",))
    facts = {"machine": machine.describe(), "versions": versions}
    machine.save(asked.output, {**facts, "sizes": rows})
    print(table(rows))
    lost = [row["experiments"] for row in rows if row["complete"] != row["experiments"]]
    print(f"lost experiments in studies of {lost}" if lost else "nothing is lost")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
