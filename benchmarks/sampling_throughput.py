"""What sampling costs the work that is sampled: PyTorch's tokens a second with sampling on ÷ off.

Run: ``PYTHONPATH=. python benchmarks/sampling_throughput.py``. One process, one loaded model on the
CPU: passes take turns (A B B A) with the NVML source reading a simulated device at default rates
and with the same source at rest. Both rest as long before and after a pass. The claim is about
the median of the pairs, at PyTorch's own number of threads; its interval says what the machine
resolves.

PyTorch takes every core by default, so the sampler competes with it for one. A second case leaves a
core free, as there is one on every machine whose work is on a GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import fidelity
import machine
from llenergymeasure.core.backends.protocol import Batch
from llenergymeasure.core.backends.pytorch.engine import PyTorchEngine
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.workload import build_requests
from llenergymeasure.datasets.loader import load_dataset
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.events import EventLog
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import H100

LEAST_RATIO = 0.995
CASES = {case.name: case for case in fidelity.CASES if case.model == "random:tiny-llama"}
Turn = Callable[[], float]


def measure(case: fidelity.Case, threads: int, pairs: int) -> dict[str, Any]:
    """Let passes with and without sampling take turns; give tokens a second of every pair."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        node = SimulatedNode(place, [Board(H100)])
        os.environ.update(node.environment)
        source = NVMLSource(DeviceTarget("gpu", (node.uuid(),)), SamplingRates())
        config = fidelity.experiment_of(case, 0.0)
        engine = PyTorchBackend().load(config, place)
        plan = _plan(engine, case, place)
        events = EventLog(place / "events.jsonl")
        source.start()
        try:
            on, off = _turns(engine, plan, events, source)
            rows = [_pair(on, off, swapped=bool(turn % 2)) for turn in range(-1, pairs)][1:]
        finally:
            source.stop()
            events.close()
            engine.close()
    return {
        "case": case.name,
        "threads": threads,
        "on": [row[0] for row in rows],
        "off": [row[1] for row in rows],
    }


def _plan(engine: PyTorchEngine, case: fidelity.Case, folder: Path) -> Sequence[Batch]:
    config = fidelity.experiment_of(case, 0.0)
    ids = engine.tokenizer.ordinary_ids()
    dataset = load_dataset(config.dataset, config.n, cache_dir=folder, ordinary_ids=ids)
    requests = build_requests(dataset.prompts, engine.tokenizer, config).requests
    return engine.plan(requests)[:1]


def _turns(
    engine: PyTorchEngine, plan: Sequence[Batch], events: EventLog, source: NVMLSource
) -> tuple[Turn, Turn]:
    def generate() -> tuple[float, Window]:
        t0_ns = time.monotonic_ns()
        trace = engine.run(plan, 0, events.progress)
        window = Window(t0_ns, time.monotonic_ns())
        tokens = sum(sample.output_tokens for sample in trace.samples())
        return tokens / ((window.t1_ns - window.t0_ns) / 1e9), window

    def on() -> float:
        source.open_window()
        rate, window = generate()
        if source.close_window(window).total_j is None:
            raise RuntimeError("the sampler gave no figure: sampling was not on")
        return rate

    def off() -> float:
        time.sleep(source.lead_s)
        rate, _ = generate()
        time.sleep(source.tail_s)
        return rate

    return on, off


def _pair(on: Turn, off: Turn, *, swapped: bool) -> tuple[float, float]:
    if swapped:
        second = off()
        return on(), second
    return on(), off()


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Give median and its 95 % interval, from the ranks of the pairs (normal approximation)."""
    ratios = sorted(a / b for a, b in zip(row["on"], row["off"], strict=True))
    count = len(ratios)
    reach = 0.98 * math.sqrt(count)  # half of 1.96 standard deviations of a binomial rank
    low = max(0, math.floor(count / 2 - reach) - 1)
    high = min(count - 1, math.ceil(count / 2 + reach))
    median = statistics.median(ratios)
    return {**row, "median_ratio": median, "interval95": [ratios[low], ratios[high]]}


def main() -> int:
    """Measure every case, print and keep the figures; 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    given = parser.parse_args()
    all_threads = torch.get_num_threads()
    settings = sorted({all_threads, max(1, all_threads - 1)}, reverse=True)
    rows = [
        summary(measure(case, threads, given.pairs))
        for case in CASES.values()
        for threads in settings
    ]
    for row in rows:
        low, high = row["interval95"]
        print(
            f"{row['case']}, {row['threads']} thread(s): on / off {row['median_ratio']:.4f} "
            f"({low:.4f} to {high:.4f}), {len(row['on'])} pairs"
        )
    data = {
        "machine": machine.describe(),
        "versions": machine.versions(Path(sys.executable), fidelity.PACKAGES[:3]),
        "load_1min": os.getloadavg()[0],
        "target": LEAST_RATIO,
        "cases": rows,
    }
    machine.save(given.output / "sampling_throughput.json", data)
    claimed = [row["median_ratio"] for row in rows if row["threads"] == all_threads]
    return 0 if min(claimed) >= LEAST_RATIO else 1


if __name__ == "__main__":
    raise SystemExit(main())
