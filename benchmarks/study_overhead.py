"""What a study adds to each of its experiments: process, imports, files, statistics.

The same study of small experiments runs with each start method in turn, A B B A. Its wall time,
less what its experiments spent loading, warming up and measuring, divided by their number, is the
fixed cost of one. A peer that isolates experiments in processes does the same number of
experiments of the same model, batch and token counts, in its own environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

import machine

HERE = Path(__file__).parent
LIMIT_S = 0.3
WORK = ("load", "warmup", "measure")
ROUND = ("forkserver", "spawn", "spawn", "forkserver")
PACKAGES = ("llenergymeasure", "torch", "transformers", "optimum-benchmark", "datasets")
SHAPE = {"input_len": 32, "output_len": 16}
BATCH_SIZES = (1, 2, 4, 8)
CYCLES = 5


def study(start_method: str) -> dict[str, Any]:
    """Describe twenty experiments of a fraction of a second each."""
    return {
        "name": f"overhead-{start_method}",
        "model": "random:tiny-llama",
        "precision": "fp32",
        "dataset": {"synthetic": SHAPE},
        "n": max(BATCH_SIZES),
        "energy_backend": "none",
        "baseline": {"enabled": False},
        "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
        "sweep": {"pytorch.batch_size": list(BATCH_SIZES)},
        "execution": {
            "n_cycles": CYCLES,
            "config_gap_seconds": 0,
            "cycle_gap_seconds": 0,
            "start_method": start_method,
        },
    }


def work_s(events: Path) -> dict[str, float]:
    """Give the seconds that an experiment spent in each phase that is its own work."""
    rows = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    begun = [row for row in rows if row["done"] is None]
    spent = dict.fromkeys(WORK, 0.0)
    for row, after in pairwise(begun):
        if row["phase"] in spent:
            spent[row["phase"]] += (after["t_ns"] - row["t_ns"]) / 1e9
    return spent


def run_study(start_method: str, folder: Path) -> dict[str, Any]:
    """Run the study as a user does; give its wall time and the work of its experiments."""
    file = folder / f"{start_method}.yaml"
    file.write_text(yaml.safe_dump(study(start_method)), encoding="utf-8")
    results = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "llenergymeasure", "run", str(file)]
    environment = machine.environment(
        XDG_CACHE_HOME=str(folder / "cache"), XDG_CONFIG_HOME=str(folder / "config")
    )
    start_s = time.perf_counter()
    subprocess.run(
        [*command, "--quiet", "-o", str(results)],
        check=True,
        capture_output=True,
        env=environment,
        cwd=folder,
    )
    wall_s = time.perf_counter() - start_s
    work = [work_s(path) for path in sorted(results.glob("*/experiments/*/events.jsonl"))]
    methods = {
        json.loads(path.read_text(encoding="utf-8"))["resolved"]["start_method"]
        for path in results.glob("*/experiments/*/result.json")
    }
    busy_s = sum(sum(one.values()) for one in work)
    return {
        "start_method": start_method,
        "used": sorted(methods),
        "experiments": len(work),
        "wall_s": wall_s,
        "work_s": work,
        "fixed_s": (wall_s - busy_s) / len(work),
    }


def run_peer(python: Path, folder: Path, count: int) -> dict[str, Any]:
    """Let the peer do ``count`` experiments; give its wall time less its own work."""
    case = {"batch_sizes": [BATCH_SIZES[i % len(BATCH_SIZES)] for i in range(count)], **SHAPE}
    model = folder / "model"
    if not model.is_dir():
        from llenergymeasure.core.models.sources import materialise, resolve

        model = materialise(resolve("random:tiny-llama"), folder / "cache")
    done = subprocess.run(
        [str(python), str(HERE / "study_overhead_peer.py"), json.dumps(case), str(model)],
        check=True,
        capture_output=True,
        text=True,
        env=machine.environment(),
        cwd=folder,
    )
    printed: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return printed


def table(runs: list[dict[str, Any]], peer: dict[str, Any] | None) -> str:
    """Lay out the fixed cost of an experiment."""
    lines = [f"{'started by':28} {'fixed cost of an experiment':>28}"]
    for method in ("forkserver", "spawn"):
        costs = [run["fixed_s"] for run in runs if run["start_method"] == method]
        each = ", ".join(f"{cost:.2f}" for cost in costs)
        lines.append(f"{method:28} {statistics.median(costs):>19.2f} s ({each})")
    if peer is not None:
        lines.append(f"{'optimum-benchmark, process':28} {peer['fixed_s']:>19.2f} s")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, save and print; 1 when the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--peer-experiments", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "study_overhead.json")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="llem-overhead-") as name:
        folder = Path(name)
        run_study("forkserver", folder)  # fills the caches of disk and model
        runs = [run_study(method, folder) for _ in range(asked.rounds) for method in ROUND]
        peer = None
        if asked.peer_python is not None:
            peer = run_peer(asked.peer_python.absolute(), folder, asked.peer_experiments)
    facts: dict[str, Any] = {"machine": machine.describe()}
    facts["versions"] = machine.versions(Path(sys.executable), PACKAGES)
    if asked.peer_python is not None:
        facts["peer_versions"] = machine.versions(asked.peer_python, PACKAGES)
    machine.save(asked.output, {**facts, "limit_s": LIMIT_S, "runs": runs, "peer": peer})
    print(table(runs, peer))
    forked = statistics.median(r["fixed_s"] for r in runs if r["start_method"] == "forkserver")
    print("the limit is met" if forked <= LIMIT_S else f"missed: {forked:.2f} s > {LIMIT_S} s")
    return int(forked > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
