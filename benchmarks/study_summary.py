"""How long the end of a large study takes, and how much memory: 10,000 results.

Run from the repository root: ``PYTHONPATH=. python benchmarks/study_summary.py``. Writes the
``result.json`` of each experiment, then, in a fresh process for each shape of study, reads them
all, makes the statistics and the table, and writes ``study_summary.json`` and ``summary.parquet``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import machine
from llenergymeasure.config.backend_configs import PyTorchConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.collect import SlotOutcome, study_result, write_summary
from llenergymeasure.study.manifest import ExecutionPlan, Slot, StudyPlan
from llenergymeasure.study.resume import ResultReader, scan

SHAPES = ((100, 100), (3333, 3), (10_000, 1))  # configurations, cycles
LIMIT_S, LIMIT_MIB = 30.0, 1024.0
PACKAGES = 150  # of a usual environment


def configs(count: int) -> tuple[ExperimentConfig, ...]:
    """Make configurations that differ in one setting."""
    return tuple(
        ExperimentConfig(
            model="m", n=20, max_new_tokens=number, pytorch=PyTorchConfig(batch_size=4)
        )
        for number in range(1, count + 1)
    )


def plan_of(count: int, cycles: int) -> StudyPlan:
    """Plan the study."""
    order = range(count * cycles)
    return StudyPlan(
        study_design_hash="0" * 16,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        execution=ExecutionPlan(
            n_cycles=cycles,
            cycle_order="interleaved",
            config_gap_seconds=0.0,
            cycle_gap_seconds=0.0,
            seed=42,
        ),
        generated=count,
        experiments=configs(count),
        slots=tuple(Slot(number + 1, number % count, number // count + 1) for number in order),
    )


def prepare(root: Path, count: int, cycles: int) -> None:
    """Write the results."""
    make = importlib.import_module("tests.support.make_result")  # as tests make them; not typed
    rng = np.random.default_rng(1)
    packages = {f"package-name-{i}": "1.2.3" for i in range(PACKAGES)}
    environment, plan = make.make_environment(packages=packages), plan_of(count, cycles)
    for slot in plan.slots:
        directory = plan.directory(StudyDirectory(root), slot)
        factor = float(np.exp(rng.normal(0, 0.02)))
        total_j, tokens = 800 * factor, round(640 / factor)
        result = make.make_result(
            config=plan.config(slot),
            environment=environment,
            window=make.make_window(slot.number),
            energy=make.make_energy(
                total_j, per_output_token_j=total_j / tokens, tokens_per_j=tokens / total_j
            ),
            throughput=make.make_throughput(
                output_tokens=tokens,
                output_tokens_per_second=tokens / make.WINDOW_S,
                total_tokens_per_second=(1234 + tokens) / make.WINDOW_S,
            ),
        )
        directory.root.mkdir(parents=True)
        directory.result.write_text(result.to_json(), encoding="utf-8")


def finish(root: Path, count: int, cycles: int) -> dict[str, Any]:
    """Do what the end of a study does, and say what it took."""
    plan = plan_of(count, cycles)
    begin = time.perf_counter()
    reader = ResultReader(plan)
    outcomes = [
        SlotOutcome(state.slot, reader.read(state), state.directory)
        for state in scan(plan, StudyDirectory(root))
    ]
    read_s = time.perf_counter() - begin
    study = study_result(plan, outcomes)
    study.summary()
    statistics_s = time.perf_counter() - begin - read_s
    write_summary(study, StudyDirectory(root))
    return {
        "configurations": count,
        "cycles": cycles,
        "results": study.ran,
        "comparisons": len(study.comparisons),
        "read_s": read_s,
        "statistics_s": statistics_s,
        "total_s": time.perf_counter() - begin,
        "cpu_s": time.process_time(),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _in_fresh_process(root: Path, count: int, cycles: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--finish", str(root), str(count), str(cycles)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row: dict[str, Any] = json.loads(printed)
    return row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every shape; 1 when one is over a limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finish", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=float, default=1.0, help="of the configurations, for a try")
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "study_summary.json")
    given = parser.parse_args(arguments)
    if given.finish:
        root, count, cycles = given.finish
        print(json.dumps(finish(Path(root), int(count), int(cycles))))
        return 0
    rows = []
    for count, cycles in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            size = max(2, round(count * given.share))
            prepare(Path(folder), size, cycles)
            rows.append(_in_fresh_process(Path(folder), size, cycles))
    holds = all(r["total_s"] <= LIMIT_S and r["peak_memory_mb"] <= LIMIT_MIB for r in rows)
    limits = {"limit_s": LIMIT_S, "limit_mb": LIMIT_MIB, "claim_holds": holds}
    machine.save(given.output, {"machine": machine.describe(), **limits, "rows": rows})
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
