"""Whole experiments on simulated devices whose true energy is known: it lies in the interval.

What makes a figure hard is all there at once: sensors that lag and rise, work that ramps up, power
that goes on after it, reads that stall, a warm-up right before, readings through nvidia-ml-py in a
process of their own. Four boards with sensors of their own follow one load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from energy_bursts import calibrated
from energy_protocol import Body
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.selection import Selection
from llenergymeasure.domain.energy import EnergyComponent
from llenergymeasure.domain.environment import DeviceTarget
from tests.support.plugins import installed_plugin
from tests.support.scripted_run import run_scripted, scripted_config
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import A100, H100, V100, vary

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

IDLE_W = 75.0
LATE_EACH_S = 0.7  # on average from one stalled read of a device to the next
STALLED_S = (0.01, 0.05)
LONGEST_RUN_S = 40.0
HALF_SHARE = 0.015  # of the energy: half-widths above it would tell little
MET = Body(ramp_s=0.02)  # what calibration saw: work that ramps up after a rest, and no tail

SENSORS = (
    vary(A100, counter_phase_s=0.031, power_phase_s=0.031, lag_s=0.05, tick_jitter_s=0.003),
    vary(H100, counter_phase_s=0.077, power_phase_s=0.077, rise_s=0.04, tick_jitter_s=0.003),
    vary(V100, rise_s=0.06, lag_s=0.01, tick_jitter_s=0.002),
    vary(A100, counter_phase_s=0.062, power_phase_s=0.062, tick_jitter_s=0.003),
)


class Measured(NamedTuple):
    """One board in one experiment: what was told, and what is true."""

    part: EnergyComponent
    true_j: float
    flags: tuple[str, ...]

    @property
    def holds(self) -> bool:
        told_j, half_j = self.part.energy_j, self.part.interval95_j
        return told_j is not None and half_j is not None and abs(told_j - self.true_j) <= half_j

    def __repr__(self) -> str:
        told_j, half_j = self.part.energy_j or np.nan, self.part.interval95_j or np.nan
        error, half = told_j / self.true_j - 1, half_j / self.true_j
        return f"{self.part.name[-1]}: {error:+.2%} of {half:.2%}, {' '.join(self.flags)}"


def some_load(rng: np.random.Generator) -> dict[str, Any]:
    """A second of work, and what a device makes of its ends."""
    tail_w, tail_ms = rng.choice([(0.0, 0.0), (150.0, 33.0), (100.0, 50.0), (60.0, 100.0)])
    return {
        "ttft_ms": rng.uniform(40.0, 90.0),
        "itl_ms": rng.uniform(16.0, 24.0),
        "prefill_w": rng.uniform(360.0, 480.0),
        "decode_w": rng.uniform(250.0, 400.0),
        "ramp_ms": float(rng.choice([0.0, 10.0, 20.0, 40.0])),
        "tail_w": float(tail_w),
        "tail_ms": float(tail_ms),
    }


@pytest.fixture
def measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], list[Measured]]]:
    """Give what runs experiments, each with a load and stalled reads of its own."""
    log = tmp_path / "load.log"
    node = SimulatedNode(
        tmp_path, [Board(one, seed=n, load_log=log) for n, one in enumerate(SENSORS)]
    )
    for name, value in node.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LLEM_LOCK_DIR", str(tmp_path))
    uuids = tuple(node.uuid(number) for number in range(len(SENSORS)))
    rng = np.random.default_rng(5)
    known = {uuid: calibrated(one, MET, rng) for uuid, one in zip(uuids, SENSORS, strict=True)}

    def select(_: str, target: DeviceTarget, rates: SamplingRates) -> Selection:
        source = NVMLSource(target, rates, knowledge=known)
        return Selection(source, "nvml", "in a test", Coverage("measured", "simulated GPUs"))

    def run(seed: int) -> list[Measured]:
        return experiment(node, uuids, select, np.random.default_rng(seed), tmp_path / str(seed))

    with installed_plugin(tmp_path, "tests.support.ramped_engine:ENTRY", "ramped"):
        yield run


def experiment(
    node: SimulatedNode,
    uuids: tuple[str, ...],
    select: Callable[[str, DeviceTarget, SamplingRates], Selection],
    rng: np.random.Generator,
    folder: Path,
) -> list[Measured]:
    folder.mkdir()
    now_s = node.set_load(IDLE_W)
    for device in range(len(uuids)):
        for after_s in np.cumsum(rng.exponential(LATE_EACH_S, round(LONGEST_RUN_S / LATE_EACH_S))):
            node.stall(float(rng.uniform(*STALLED_S)), device, at_s=now_s + float(after_s))
    section = {"batch_size": 2, "device_uuids": list(uuids), "load_log": str(node.load_log())}
    config = scripted_config(
        backend="ramped",
        max_new_tokens=24,
        scripted=None,
        ramped={**section, "idle_w": IDLE_W, **some_load(rng)},
        baseline={"enabled": False},
    )
    result = run_scripted(folder, config, select).result
    window_s = (result.window.t0_ns / 1e9, result.window.t1_ns / 1e9)
    return [
        Measured(part, node.true_energy_j(*window_s, device), result.energy.flags)
        for device, part in enumerate(result.energy.components)
    ]


def test_the_true_energy_of_whole_experiments_lies_in_the_interval(
    measure: Callable[[int], list[Measured]],
) -> None:
    found = [one for seed in range(3) for one in measure(seed)]
    assert len(found) == 12
    # Of intervals that hold 95 %, nine of twelve hold in 99.8 % of runs; the hundred tell more.
    assert sum(one.holds for one in found) >= 9, found
    halves = [one.part.interval95_j / one.true_j for one in found if one.part.interval95_j]
    assert np.median(halves) <= 2 * HALF_SHARE, found  # beside other tests, readings come late


@pytest.mark.exhaustive
def test_the_true_energy_of_a_hundred_windows_lies_in_ninety_five_intervals(
    measure: Callable[[int], list[Measured]],
) -> None:
    found = [one for seed in range(100, 125) for one in measure(seed)]
    assert len(found) == 100
    missed = [one for one in found if not one.holds]
    assert len(missed) <= 5, missed
    assert np.median([one.part.interval95_j / one.true_j for one in found]) <= HALF_SHARE
