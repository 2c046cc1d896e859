"""How near joules come to the truth, on simulated devices on a virtual clock.

Run from the repository root: ``PYTHONPATH=. python benchmarks/energy_accuracy.py``. Every window is
taken as the product takes it (``energy_protocol.py``), with calibrations by the product's own
script (``energy_bursts.py``). On the very same readings stand the plain difference of two counter
reads (what ZeusMonitor takes at the begin and end of a window) and linear interpolation between
polls. Phases of tick, poll and load are random; every window is lengthened by a random -T/2 to T/2.

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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from energy_bursts import calibrated
from energy_cells import Cell, cells, drawn_cells
from energy_protocol import Body, Late, Played, play_all
from energy_report import NOT_HARM, report
from llenergymeasure.core.energy.estimator import (
    EnergyEstimate,
    Knowledge,
    estimate_energy,
    sum_devices,
)
from llenergymeasure.exceptions import BackendError
from tests.support.simulated_device.profiles import DeviceProfile

CALIBRATIONS = 6  # fits of a device, each from a recording of its own
DRAWN, DRAWN_WINDOWS, SEED = 200, 25, 20261130
GROSS = 2.0  # half-widths: a miss by more of them is a gross one
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


@functools.lru_cache(maxsize=256)
def calibrations(
    profile: DeviceProfile, met: Body, late: Late, count: int = CALIBRATIONS
) -> tuple[Knowledge, ...]:
    """Calibrate a device several times; where the script gives up, nothing is known of it."""
    rng = np.random.default_rng([*repr((profile, met, late)).encode()])
    return tuple([_calibration(profile, met, late, rng) for _ in range(count)])


def _calibration(
    profile: DeviceProfile, met: Body, late: Late, rng: np.random.Generator
) -> Knowledge:
    try:
        return calibrated(profile, met, rng, late)
    except BackendError:
        return Knowledge()


def run_trial(cell: Cell, index: int, rng: np.random.Generator) -> Trial:
    """Measure one window."""
    known = Knowledge()
    if cell.calibrated:
        made = calibrations(*cell.learnt_on, count=1 if cell.genome else CALIBRATIONS)
        known = made[index % len(made)]
    played = play_all(cell.scene(rng), cell.devices, rng, known)
    estimate = sum_devices(
        [estimate_energy(one.readings, one.window, one.knowing(known)) for one in played]
    )
    return _compare(estimate, played)


def _compare(estimate: EnergyEstimate, played: list[Played]) -> Trial:
    true_j = sum(one.truth_j for one in played)
    plain = linear = math.nan
    if all(one.readings.counter is not None for one in played):
        plain, linear = np.sum([_naive_j(one) for one in played], axis=0) / true_j - 1
    error = math.nan if estimate.energy_j is None else estimate.energy_j / true_j - 1
    half = math.nan if estimate.interval95_j is None else estimate.interval95_j / true_j
    return Trial(error, half, estimate.kind == "measured", plain, linear, estimate.flags)


def _naive_j(played: Played) -> tuple[float, float]:
    """Give the difference of two reads, and that of straight lines between changes seen."""
    counter, window = played.readings.counter, played.window
    assert counter is not None
    edges = np.array([0.0, window.seconds])
    plain_j = float(np.diff(played.device.counter_mj(edges))[0]) / 1000
    new = np.flatnonzero(np.diff(counter.value)) + 1
    seen_s = (counter.after_ns[new] - window.t0_ns) / 1e9
    return plain_j, float(np.diff(np.interp(edges, seen_s, counter.value[new]))[0]) / 1000


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
    """Measure the windows of a cell; give its figures."""
    cell, count = job
    rng = np.random.default_rng(cell.seed)
    began = time.perf_counter()
    trials = [run_trial(cell, index, rng) for index in range(count)]
    error, half = np.array([t.error for t in trials]), np.array([t.half for t in trials])
    told = np.isfinite(error)
    number = max(int(told.sum()), 1)
    off, hits = np.abs(error[told]), int((np.abs(error[told]) <= half[told]).sum())
    flags = sorted({flag for t in trials for flag in t.flags})
    silent = np.array([not set(t.flags) - NOT_HARM for t in trials])
    missed = np.abs(error) > half
    return {
        "group": cell.group,
        "name": cell.name,
        "wave": cell.wave,
        "nominal_s": cell.nominal_s,
        "windows": count,
        "p95_percent": _percent(np.quantile(off, 0.95)) if told.any() else None,
        "mean_abs_percent": _percent(off.mean()) if told.any() else None,
        "bias_percent": _percent(error[told].mean()) if told.any() else None,
        "coverage": hits / number,
        "coverage_upper": covered_upper(hits, number),
        "silent_share": float((missed & silent).mean()),
        "gross_share": float(((np.abs(error) > GROSS * half) & silent).mean()),
        "median_half_percent": _percent(np.median(half[told])) if told.any() else None,
        "measured_share": float(np.mean([t.measurable for t in trials])),
        "no_figure_share": float(1 - told.mean()),
        "false_zeros": int((error[told] <= -1).sum()),
        "flag_shares": {f: float(np.mean([f in t.flags for t in trials])) for f in flags},
        **_baseline("plain", np.array([t.plain for t in trials])),
        **_baseline("linear", np.array([t.linear for t in trials])),
        "seconds": round(time.perf_counter() - began, 2),
    }


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
    """Measure, and write the page and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1000, help="windows of a cell")
    parser.add_argument("--groups", nargs="*", help="only groups whose name starts like this")
    parser.add_argument("--drawn", type=int, default=DRAWN, help="scenes drawn at random")
    parser.add_argument("--seed", type=int, default=SEED, help="of the scenes drawn")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    todo = [(cell, given.windows) for cell in cells()]
    todo += [(cell, DRAWN_WINDOWS) for cell in drawn_cells(given.drawn, given.seed)]
    if given.groups:
        todo = [job for job in todo if job[0].group.startswith(tuple(given.groups))]
    with multiprocessing.Pool(given.processes) as pool:
        rows = pool.map(run_cell, todo, chunksize=4)
    given.output.mkdir(parents=True, exist_ok=True)
    lines = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    (given.output / "energy_accuracy.json").write_text(lines)
    text = report(rows, given.seed)
    (given.output / "energy_accuracy.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
