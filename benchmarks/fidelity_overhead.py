"""What llem adds to ``model.generate``, timed part by part instead of as a ratio of noisy runs.

Two parts: what happens around each ``generate`` call (building tensors, keeping the trace), and the
hook that notes when each token is there. Both as shares of a pass of tiny-llama at batch 1, where
steps are shortest and the shares therefore largest.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessorList

import fidelity
import machine
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.core.backends.pytorch.trace import HostStamps, TokenClock
from llenergymeasure.core.workload import build_requests
from llenergymeasure.datasets.loader import load_dataset

STEPS = 20_000


def around_generate(case: fidelity.Case) -> tuple[float, float]:
    """Time a pass, and the part of it that is not spent in ``generate``; seconds."""
    config = fidelity.experiment_of(case, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        engine = PyTorchBackend().load(config, Path(folder))
        ids = engine.tokenizer.ordinary_ids()
        dataset = load_dataset(config.dataset, config.n, cache_dir=Path(folder), ordinary_ids=ids)
        plan = engine.plan(build_requests(dataset.prompts, engine.tokenizer, config).requests)
        engine.run(plan, 0, lambda _: None)
        model, inside = engine._model, []
        generate = model.generate

        def timed(**arguments: Any) -> Any:
            start_s = time.perf_counter()
            output = generate(**arguments)
            inside.append(time.perf_counter() - start_s)
            return output

        model.generate = timed
        start_s = time.perf_counter()
        engine.run(plan, 0, lambda _: None)
        whole_s = time.perf_counter() - start_s
    return whole_s, whole_s - sum(inside)


def hook_s() -> float:
    """Time the hook of one step beyond an empty list of hooks; seconds."""
    ids, scores = torch.zeros(1, 100, dtype=torch.long), torch.zeros(1, 1024)
    taken = []
    for hooks in ([TokenClock(HostStamps().stamp)], []):
        processors = LogitsProcessorList(hooks)
        start_s = time.perf_counter()
        for _ in range(STEPS):
            processors(ids, scores)
        taken.append((time.perf_counter() - start_s) / STEPS)
    return taken[0] - taken[1]


def main() -> int:
    """Measure, write, print; 1 where both parts together come to more than 1 %."""
    case = fidelity.CASES[0]
    whole_s, around_s = around_generate(case)
    steps = case.batches * case.output_len
    shares = {"around_generate": around_s / whole_s, "hook": steps * hook_s() / whole_s}
    data = {"machine": machine.describe(), "case": case.name, "pass_s": whole_s, "shares": shares}
    machine.save(machine.RESULTS / "fidelity_overhead.json", data)
    for part, share in shares.items():
        print(f"{part:16} {share:.2%}")
    return 0 if sum(shares.values()) <= 1 - fidelity.LEAST_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
