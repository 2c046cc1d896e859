"""What llem's own work costs: its passes against bare ``generate`` passes, in one process.

Two fresh processes that do the same differ by several per cent on a small machine
(``fidelity.py`` shows by how much), which hides what llem adds. Here llem's engine and a bare loop
take turns (A B B A) on one loaded model, with the same token ids, batch and number of new tokens;
each of llem's passes is divided by the bare pass beside it. llem's figure is what its result would
report: its own samples and window, through its own formula.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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

PAIRS = {"tiny-llama, batch 1": 64, "tiny-llama, batch 8": 32, "qwen2.5-0.5b, batch 1": 8}


def measure(case: fidelity.Case, pairs: int) -> dict[str, Any]:
    """Let llem and the bare loop take turns; give both figures of every pair, tokens a second."""
    with tempfile.TemporaryDirectory() as folder:
        config = fidelity.experiment_of(case, 0.0)
        engine = PyTorchBackend().load(config, Path(folder))
        ids = engine.tokenizer.ordinary_ids()
        dataset = load_dataset(config.dataset, config.n, cache_dir=Path(folder), ordinary_ids=ids)
        requests = build_requests(dataset.prompts, engine.tokenizer, config).requests
        plan = engine.plan(requests)[:1]  # short turns, so that the machine drifts less between
        events = EventLog(Path(folder) / "events.jsonl")
        turns = _turns(engine, plan, events, case.output_len)
        rows = [_pair(*turns, swapped=bool(number % 2)) for number in range(-1, pairs)][1:]
        events.close()
        engine.close()
    return {"case": case.name, "llem": [row[0] for row in rows], "bare": [row[1] for row in rows]}


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


def _pair(
    llem: Callable[[], float], bare: Callable[[], float], *, swapped: bool
) -> tuple[float, float]:
    if swapped:
        second = bare()
        return llem(), second
    return llem(), bare()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Show the ratios of each case."""
    described = machine.describe()
    lines = [
        "# Fidelity, paired in one process",
        "",
        "Written by `make bench-fidelity`; raw figures in `fidelity_paired.json`. "
        f"{described['cpu']}, {described['cores']} cores.",
        "",
        "| case | pairs | llem ÷ bare, median | quartiles | least | most |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = [a / b for a, b in zip(row["llem"], row["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(
            f"| {row['case']} | {len(ratios)} | {middle:.4f} | {low:.4f} to {high:.4f} "
            f"| {min(ratios):.4f} | {max(ratios):.4f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure every case, write raw figures and a table; 1 where a median is below the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    place = parser.parse_args()
    rows = [measure(case, PAIRS[case.name]) for case in fidelity.CASES]
    versions = machine.versions(Path(sys.executable), fidelity.PACKAGES)
    data = {"machine": machine.describe(), "versions": versions, "cases": rows}
    machine.save(place.output / "fidelity_paired.json", data)
    (place.output / "fidelity_paired.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    medians = [
        statistics.median(a / b for a, b in zip(row["llem"], row["bare"], strict=True))
        for row in rows
    ]
    return 0 if min(medians) >= fidelity.LEAST_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
