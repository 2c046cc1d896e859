"""What sampling costs the work that is sampled: PyTorch's tokens a second with sampling on ÷ off.

Run: ``PYTHONPATH=. python benchmarks/sampling_throughput.py``. One process, one loaded model on the
CPU: passes take turns (A B B A) with the NVML source reading a simulated device at default rates
and with the same source at rest. Both rest as long before and after a pass; the interval of the
pairs' median says what the machine resolves. The claim is about that median.

Beside it stands a steadier figure, from the steps of the passes with sampling alone: how much
longer those are in which the sampler woke. Long steps are hit more often than short ones, so they
are compared with steps hit by the very same times moved by half a tick of the counter, when the
sampler slept. The excess, over all the time, is the share of the work's speed that wake-ups take;
what sampling slows down all the time does not show in it.

PyTorch takes every core by default, so the sampler competes with it for one. A second case leaves a
core free, as there is one on every machine whose work is on a GPU.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
from llenergymeasure.domain.energy import Reading
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.events import EventLog
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import H100

LEAST_RATIO = {"every core": 0.985, "a core free": 0.995}
MOVED_NS = 50_000_000  # half a tick of the device that is read
AFTER = 2  # steps that a wake-up may slow: its own, and the next with a cold cache
CASES = {case.name: case for case in fidelity.CASES if case.model == "random:tiny-llama"}
Turn = Callable[[], float]


class Steps(NamedTuple):
    """One pass: when tokens were there, and when the sampler woke.

    Attributes:
        token_ns: Arrival of each step's tokens.
        wake_ns: Begin of each turn of the sampler.
    """

    token_ns: np.ndarray
    wake_ns: np.ndarray

    def hit(self, moved_ns: int) -> np.ndarray:
        """Give how long the steps after each wake-up took, had it been moved by so much."""
        number = np.searchsorted(self.token_ns, self.wake_ns + moved_ns)
        number = number[(number > 0) & (number + AFTER - 1 < len(self.token_ns))]
        spans: np.ndarray = self.token_ns[number + AFTER - 1] - self.token_ns[number - 1]
        return spans


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
            steps: list[Steps] = []
            on, off = _turns(engine, plan, events, source, steps)
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
        **slowed(steps[1:]),
    }


def _plan(engine: PyTorchEngine, case: fidelity.Case, folder: Path) -> Sequence[Batch]:
    config = fidelity.experiment_of(case, 0.0)
    ids = engine.tokenizer.ordinary_ids()
    dataset = load_dataset(config.dataset, config.n, cache_dir=folder, ordinary_ids=ids)
    requests = build_requests(dataset.prompts, engine.tokenizer, config).requests
    return engine.plan(requests)[:1]


def slowed(passes: Sequence[Steps]) -> dict[str, Any]:
    """Tell what the sampler's wake-ups took of the work's speed, from the steps they fell into."""
    hit = np.concatenate([one.hit(0) for one in passes])
    moved = np.concatenate([one.hit(by_ns) for one in passes for by_ns in (MOVED_NS, -MOVED_NS)])
    seconds = sum(float(one.token_ns[-1] - one.token_ns[0]) for one in passes) / 1e9
    wakes_per_s = len(hit) / seconds
    excess_s = (hit.mean() - moved.mean()) / 1e9
    doubt_s = 1.96e-9 * math.sqrt(hit.var() / len(hit) + moved.var() / len(moved))
    return {
        "by_steps": 1.0 - wakes_per_s * float(excess_s),
        "by_steps_doubt": wakes_per_s * doubt_s,
        "wakes_per_s": wakes_per_s,
    }


def _steps(trace: Any, readings: Sequence[Reading]) -> Steps:
    samples = trace.samples()
    tokens = [np.cumsum([s.first_token_ns, *s.gaps_ns]) for s in samples]
    token_ns = np.unique(np.concatenate(tokens))
    read_ns = np.array([one.before_ns for one in readings])
    first = np.append(True, np.diff(read_ns) > 1_000_000)  # of a turn: the others follow at once
    return Steps(token_ns, read_ns[first])


def _turns(
    engine: PyTorchEngine,
    plan: Sequence[Batch],
    events: EventLog,
    source: NVMLSource,
    steps: list[Steps],
) -> tuple[Turn, Turn]:
    def generate() -> tuple[float, Window, Any]:
        t0_ns = time.monotonic_ns()
        trace = engine.run(plan, 0, events.progress)
        window = Window(t0_ns, time.monotonic_ns())
        tokens = sum(sample.output_tokens for sample in trace.samples())
        return tokens / ((window.t1_ns - window.t0_ns) / 1e9), window, trace

    def on() -> float:
        source.open_window()
        rate, window, trace = generate()
        recording = source.close_window(window)
        if recording.total_j is None:
            raise RuntimeError("the sampler gave no figure: sampling was not on")
        steps.append(_steps(trace, recording.readings))
        return rate

    def off() -> float:
        time.sleep(source.settle_s + source.lead_s)
        rate, *_ = generate()
        time.sleep(source.tail_s)
        return rate

    return on, off


def _pair(on: Turn, off: Turn, *, swapped: bool) -> tuple[float, float]:
    if swapped:
        second = off()
        return on(), second
    return on(), off()


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Give the median ratio of the pairs and its 95 % interval."""
    ratios = [a / b for a, b in zip(row["on"], row["off"], strict=True)]
    median, *interval = fidelity.median_interval(ratios)
    return {**row, "median_ratio": median, "interval95": interval}


def judged(rows: Sequence[dict[str, Any]], all_threads: int) -> list[dict[str, Any]]:
    """Add the limit to each row, and whether the median of on / off reaches it."""
    limits = [
        LEAST_RATIO["every core" if row["threads"] == all_threads else "a core free"]
        for row in rows
    ]
    return [
        {**row, "limit": limit, "met": row["median_ratio"] >= limit}
        for row, limit in zip(rows, limits, strict=True)
    ]


def main() -> int:
    """Measure every case, print and keep the figures; 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    given = parser.parse_args()
    all_threads = torch.get_num_threads()
    settings = sorted({all_threads, max(1, all_threads - 1)}, reverse=True)
    measured = [
        summary(measure(case, threads, given.pairs))
        for case in CASES.values()
        for threads in settings
    ]
    rows = judged(measured, all_threads)
    for row in rows:
        low, high = row["interval95"]
        print(
            f"{row['case']}, {row['threads']} thread(s): on / off {row['median_ratio']:.4f} "
            f"({low:.4f} to {high:.4f}), {len(row['on'])} pairs, limit {row['limit']}"
            f"{'' if row['met'] else ' NOT MET'}; by steps {row['by_steps']:.4f} "
            f"± {row['by_steps_doubt']:.4f}, {row['wakes_per_s']:.0f} wake-ups a second"
        )
    data = {
        "machine": machine.describe(),
        "versions": machine.versions(Path(sys.executable), fidelity.PACKAGES[:3]),
        "load_1min": os.getloadavg()[0],
        "target": LEAST_RATIO,
        "cases": rows,
    }
    machine.save(given.output / "sampling_throughput.json", data)
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
