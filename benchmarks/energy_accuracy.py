"""How near joules come to the truth, on a simulated device on a virtual clock.

Run from the repository root: ``PYTHONPATH=. python benchmarks/energy_accuracy.py``. Compares band
and comb with the plain difference of two counter reads (what ZeusMonitor takes at the begin and
end of a window) and with linear interpolation between polls, on the very same readings. Phases of
tick, poll and load are stratified; every window is lengthened by a random -T/2 to T/2.

The simulation shows whether a known sensor is handled rightly; it says nothing about a real
board's gain.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from energy_cells import Cell, cells, make_load
from energy_report import NOT_HARM, report
from llenergymeasure.core.energy.estimation.calibration_fit import fit_calibration
from llenergymeasure.core.energy.estimation.sensor import CounterReadings, PowerReadings
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
from llenergymeasure.domain.samples import Window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.twin import Polls, Quantity, VirtualDevice

POLL_S, POWER_POLL_S, LATE_SHARE = 0.005, 0.005, 0.02
GUARD_S, AVERAGE_GUARD_S = 0.6, 2.2
ORIGIN_NS = 10**15
CALIBRATIONS = 6  # fits per cell, each from a recording of its own
RESULTS = Path(__file__).parent / "results"


class Trial(NamedTuple):
    """One window: figures relative to the truth.

    Attributes:
        error: Ours minus truth, or NaN without a figure.
        half: Half-width of our interval.
        measurable: Whether ours calls itself measured.
        plain: Plain difference minus truth, or NaN without a counter.
        linear: Linear interpolation minus truth, or NaN without a counter.
        flags: What was flagged.
    """

    error: float
    half: float
    measurable: bool
    plain: float
    linear: float
    flags: tuple[str, ...]


def ns(seconds: Any) -> Any:
    return (np.asarray(seconds) * 1e9).astype(np.int64) + ORIGIN_NS


def counter_readings(polls: Polls) -> CounterReadings:
    return CounterReadings(ns(polls.before_s), ns(polls.after_s), polls.value)


def power_readings(polls: Polls) -> PowerReadings:
    return PowerReadings(ns(polls.before_s), ns(polls.after_s), polls.value / 1000.0)


@functools.lru_cache(maxsize=64)
def calibrations(cell: Cell) -> tuple[Knowledge, ...]:
    """Fit calibrations from bursts on the cell's device, as ``llem config --calibrate`` does."""
    rng = np.random.default_rng(cell.seed + 1)
    return tuple([_calibration(cell, rng) for _ in range(CALIBRATIONS)])


def _calibration(cell: Cell, rng: np.random.Generator) -> Knowledge:
    device = profiles.with_random_phase(cell.device, rng)
    scale = device.limit_w / 400.0
    lengths = rng.permutation(np.repeat([0.03, 1.0], [40, 20]))
    ends = 1.0 + np.cumsum(lengths + rng.uniform(0.8, 0.9, 60))
    starts = ends - lengths
    levels = np.append(75.0, np.tile([400.0, 75.0], 60))
    load = loads.steps(np.append(-9.0, np.stack([starts, ends], axis=1).ravel()), levels)
    if cell.tail_w_s is not None and cell.tail_known:
        watts, over_s = cell.tail_w_s
        for end in ends:
            load = load + loads.tail(end, watts, over_s)
    load = loads.noisy(load.scaled(scale), cell.noise, -0.5, ends[-1] + 1, rng)
    twin = VirtualDevice(device, load, seed=int(rng.integers(2**40)))
    windows = [Window(int(a), int(b)) for a, b in zip(ns(starts), ns(ends), strict=True)]

    def polls(quantity: Quantity) -> Polls:
        return twin.poll(0.0, ends[-1] + 1, POLL_S, LATE_SHARE, rng, quantity=quantity)

    counter = power = None
    if cell.sensor != "instant":
        counter = fit_calibration(counter_readings(polls("counter")), windows)
    if cell.sensor in {"instant", "both"}:
        power = fit_calibration(power_readings(polls("instant")), windows)
    return Knowledge(counter, power)


class Phases(NamedTuple):
    """Where in their periods tick, poll and load stand at the start of the window, 0 to 1."""

    tick: float
    poll: float
    load: float
    length: float


def stratified(count: int, rng: np.random.Generator) -> list[Phases]:
    """Spread phases evenly, each in an order of its own (a Latin hypercube)."""
    columns = [(rng.permutation(count) + rng.random(count)) / count for _ in Phases._fields]
    return [Phases(*row) for row in np.column_stack(columns).tolist()]


def run_trial(cell: Cell, phases: Phases, index: int, rng: np.random.Generator) -> Trial:
    period_s = cell.device.counter_period_s
    device = profiles.vary(
        cell.device,
        counter_phase_s=phases.tick * period_s,
        power_phase_s=phases.tick * cell.device.power_period_s,
    )
    length_s = cell.nominal_s + (phases.length - 0.5) * period_s
    guard_s = AVERAGE_GUARD_S if cell.sensor == "usage" else GUARD_S
    load, steps_s = make_load(cell.wave, length_s, phases.load)
    if cell.tail_w_s:
        load = load + loads.tail(length_s, *cell.tail_w_s)
    load = load.scaled(device.limit_w / 400.0)
    load = loads.noisy(load, cell.noise, -guard_s - 0.4, length_s + guard_s, rng)
    twin = VirtualDevice(device, load, seed=int(rng.integers(2**40)))
    window = Window(ORIGIN_NS, int(ns(length_s)))
    readings = _read(cell, twin, (-guard_s - phases.poll * POLL_S, length_s + guard_s), rng)
    known = calibrations(cell)[index % CALIBRATIONS] if cell.calibrated else Knowledge()
    estimate = estimate_energy(readings, window, replace(known, step_times_ns=ns(steps_s)))
    return _compare(estimate, readings, twin, length_s)


def _read(
    cell: Cell, twin: VirtualDevice, span: tuple[float, float], rng: np.random.Generator
) -> DeviceReadings:
    def poll(quantity: Quantity) -> Polls:
        return twin.poll(*span, POLL_S, LATE_SHARE, rng, quantity=quantity)

    if cell.sensor == "instant":
        return DeviceReadings(power=power_readings(poll("instant")))
    if cell.sensor == "usage":
        return DeviceReadings(average_power=power_readings(poll("usage")))
    counter = counter_readings(poll("counter"))
    power = power_readings(poll("instant")) if cell.sensor == "both" else None
    return DeviceReadings(counter, power)


def _compare(
    estimate: EnergyEstimate, readings: DeviceReadings, twin: VirtualDevice, length_s: float
) -> Trial:
    true_j = twin.true_energy_j(0.0, length_s)
    plain = linear = math.nan
    if readings.counter is not None:
        edges = np.array([0.0, length_s])
        plain = float(np.diff(twin.counter_mj(edges))[0]) / 1000 / true_j - 1
        value = readings.counter.value
        new = np.flatnonzero(np.diff(value)) + 1
        seen_s = (readings.counter.after_ns[new] - ORIGIN_NS) / 1e9
        linear = float(np.diff(np.interp(edges, seen_s, value[new]))[0]) / 1000 / true_j - 1
    error = math.nan if estimate.energy_j is None else estimate.energy_j / true_j - 1
    half = math.nan if estimate.interval95_j is None else estimate.interval95_j / true_j
    return Trial(error, half, estimate.kind == "measured", plain, linear, estimate.flags)


def covered_upper(hits: int, count: int) -> float:
    """Give the exact upper 95 % bound of a share (Clopper and Pearson, one half of 5 %)."""
    if hits == count:
        return 1.0
    k = np.arange(hits + 1)
    ways = np.array(
        [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k]
    )
    low, high = hits / count, 1.0
    for _ in range(40):
        p = (low + high) / 2
        cdf = float(np.exp(ways + k * math.log(p) + (count - k) * math.log1p(-p)).sum())
        low, high = (p, high) if cdf > 0.025 else (low, p)
    return high


def run_cell(job: tuple[Cell, int]) -> dict[str, Any]:
    cell, count = job
    rng = np.random.default_rng(cell.seed)
    began = time.perf_counter()
    trials = [run_trial(cell, p, i, rng) for i, p in enumerate(stratified(count, rng))]
    error, half = np.array([t.error for t in trials]), np.array([t.half for t in trials])
    told = np.isfinite(error)
    hits = int((np.abs(error[told]) <= half[told]).sum())
    flags = sorted({flag for t in trials for flag in t.flags})
    return {
        "group": cell.group,
        "profile": cell.profile,
        "wave": cell.wave,
        "nominal_s": cell.nominal_s,
        "sensor": cell.sensor,
        "calibrated": cell.calibrated,
        "phases": count,
        "p95_percent": _percent(np.quantile(np.abs(error[told]), 0.95)) if told.any() else None,
        "mean_abs_percent": _percent(np.abs(error[told]).mean()) if told.any() else None,
        "bias_percent": _percent(error[told].mean()) if told.any() else None,
        "coverage": hits / max(int(told.sum()), 1),
        "silent_share": float(np.mean([_is_silent(t) for t in trials])),
        "coverage_upper": covered_upper(hits, max(int(told.sum()), 1)),
        "median_half_percent": _percent(np.median(half[told])) if told.any() else None,
        "measured_share": float(np.mean([t.measurable for t in trials])),
        "no_figure_share": float(1 - told.mean()),
        "false_zeros": int((error[told] <= -1).sum()),
        "flag_shares": {f: float(np.mean([f in t.flags for t in trials])) for f in flags},
        **_baseline("plain", np.array([t.plain for t in trials])),
        **_baseline("linear", np.array([t.linear for t in trials])),
        "seconds": round(time.perf_counter() - began, 2),
    }


def _is_silent(trial: Trial) -> bool:
    """Tell whether an interval misses the truth and no finding warns of it."""
    return abs(trial.error) > trial.half and not set(trial.flags) - NOT_HARM


def _percent(share: float) -> float:
    return round(100 * float(share), 4)


def _baseline(name: str, error: np.ndarray) -> dict[str, float | None]:
    if not np.isfinite(error).all():
        return {f"{name}_p95_percent": None, f"{name}_mean_abs_percent": None}
    return {
        f"{name}_p95_percent": _percent(np.quantile(np.abs(error), 0.95)),
        f"{name}_mean_abs_percent": _percent(np.abs(error).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phases", type=int, default=1000, help="windows per cell")
    parser.add_argument("--groups", nargs="*", help="only groups whose name starts like this")
    parser.add_argument("--held-out", action="store_true", help="the held-out cells too")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--output", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    todo = [
        cell
        for cell in cells()
        if (not chosen.groups or cell.group.startswith(tuple(chosen.groups)))
        and (chosen.held_out or not cell.group.startswith("held out"))
    ]
    with multiprocessing.Pool(chosen.processes) as pool:
        rows = pool.map(run_cell, [(cell, chosen.phases) for cell in todo], chunksize=4)
    chosen.output.mkdir(parents=True, exist_ok=True)
    lines = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    (chosen.output / "energy_accuracy.json").write_text(lines)
    text = report(rows)
    (chosen.output / "energy_accuracy.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
