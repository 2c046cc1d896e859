"""What llem's own work costs: its passes against bare ``generate`` passes, in one process.

Two fresh processes that do the same differ by several per cent on a small machine
(``fidelity.py`` shows by how much), which hides what llem adds. Here llem's engine and two equal
bare loops take turns on one loaded model, in an order drawn anew each round, with the same token
ids, batch and number of new tokens. Each of llem's passes is divided by the mean of the bare ones
of its round, and those by one another: what the ratio cannot resolve. llem's figure is what its
result would report: its own samples and window, through its own formula.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import fidelity
import fidelity_bare
import machine
from llenergymeasure.core.backends.protocol import Batch
from llenergymeasure.core.backends.pytorch.engine import PyTorchEngine
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.core.metrics import throughput_result
from llenergymeasure.core.workload import build_requests
from llenergymeasure.datasets.loader import load_dataset
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.events import EventLog

ROUNDS = {"tiny-llama, batch 1": 192, "tiny-llama, batch 8": 64, "qwen2.5-0.5b, batch 1": 10}

SEED = 20261130


def measure(case: fidelity.Case, rounds: int) -> dict[str, Any]:
    """Let llem and the bare loops take turns; give the figures of every round, tokens a second."""
    with tempfile.TemporaryDirectory() as folder:
        config = fidelity.experiment_of(case, 0.0)
        engine = PyTorchBackend().load(config, Path(folder))
        ids = engine.tokenizer.ordinary_ids()
        dataset = load_dataset(config.dataset, config.n, cache_dir=Path(folder), ordinary_ids=ids)
        requests = build_requests(dataset.prompts, engine.tokenizer, config).requests
        plan = engine.plan(requests)[:1]  # short turns, so that the machine drifts less between
        events = EventLog(Path(folder) / "events.jsonl")
        llem, bare = _turns(engine, plan, events, case.output_len)
        turns = {"llem": llem, "bare": bare, "bare again": bare}
        rng = random.Random(SEED)
        rows = [_round(turns, rng) for _ in range(-1, rounds)][1:]
        events.close()
        engine.close()
    return {"case": case.name, **{side: [row[side] for row in rows] for side in turns}}


def _turns(
    engine: PyTorchEngine, plan: Sequence[Batch], events: EventLog, new_tokens: int
) -> tuple[Callable[[], float], Callable[[], float]]:
    batches = [torch.tensor([request.token_ids for request in batch]) for batch in plan]

    def llem() -> float:
        start_ns = time.monotonic_ns()
        trace = engine.run(plan, 0, events.progress)
        window = Window(start_ns, time.monotonic_ns())
        made = throughput_result(trace.samples(), window, passes=1, prompts_truncated=0)
        assert made.output_tokens_per_second is not None
        return made.output_tokens_per_second

    def bare() -> float:
        start_s = time.perf_counter()
        with torch.inference_mode():
            tokens = sum(
                fidelity_bare.generate(engine._model, batch, new_tokens) for batch in batches
            )
        return tokens / (time.perf_counter() - start_s)

    return llem, bare


def _round(turns: Mapping[str, Callable[[], float]], rng: random.Random) -> dict[str, float]:
    return {side: turns[side]() for side in rng.sample(list(turns), len(turns))}


def ratios(row: Mapping[str, Any]) -> dict[str, list[float]]:
    """Give the ratios of a case, round by round."""
    rounds = list(zip(row["llem"], row["bare"], row["bare again"], strict=True))
    return {
        "llem ÷ bare": [2 * llem / (bare + again) for llem, bare, again in rounds],
        "bare ÷ bare": [bare / again for _, bare, again in rounds],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Show the ratios of each case."""
    described = machine.describe()
    lines = [
        "# Fidelity, paired in one process",
        "",
        "Written by `make bench-fidelity`; raw figures in `fidelity_paired.json`. "
        f"{described['cpu']}, {described['cores']} cores.",
        "",
        "| case | ratio | rounds | median | its 95 % interval | quartiles | least | most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, found in ratios(row).items():
            median, *interval = fidelity.median_interval(found)
            first, _, third = statistics.quantiles(found, n=4)
            spans = " | ".join(f"{a:.4f} to {b:.4f}" for a, b in (interval, (first, third)))
            lines.append(
                f"| {row['case']} | {name} | {len(found)} | {median:.4f} | {spans} "
                f"| {min(found):.4f} | {max(found):.4f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure every case, write raw figures and a table; 1 where a median is below the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    asked = parser.parse_args()
    chosen = [case for case in fidelity.CASES if asked.only in case.name]
    rows = [measure(case, ROUNDS[case.name]) for case in chosen]
    versions = machine.versions(Path(sys.executable), fidelity.PACKAGES)
    data = {"machine": machine.describe(), "versions": versions, "cases": rows}
    machine.save(asked.output / "fidelity_paired.json", data)
    (asked.output / "fidelity_paired.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    medians = [statistics.median(ratios(row)["llem ÷ bare"]) for row in rows]
    return 0 if min(medians) >= fidelity.LEAST_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
