"""Calibration: bursts that are driven, what is learned from them, and when it is used."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.core.energy import get_active_energy_backend
from llenergymeasure.core.energy.calibration import (
    EDGE_S,
    LEAST_GAP_S,
    LONG_S,
    RANDOM_GAP_S,
    SHORT_S,
    SIMMER_S,
    Device,
    Script,
    calibrate,
    lost_s,
    make_script,
)
from llenergymeasure.core.energy.estimation.sensor import Calibration, Tail
from llenergymeasure.core.energy.none import NoSource
from llenergymeasure.core.energy.nvml_reader import COUNTER, POWER
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.stored import (
    CALIBRATIONS,
    StoredCalibration,
    keep,
    known_sensors,
)
from llenergymeasure.domain.energy import EnergyRecording, Reading
from llenergymeasure.domain.environment import DeviceState, DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.profiles import DeviceProfile
from tests.support.simulated_device.twin import Polls, VirtualDevice

IDLE_W, AWAKE_W, BUSY_W = 75.0, 110.0, 400.0
DEVICE = Device("GPU-1", "570.1")
S = 1_000_000_000


class VirtualBench:
    """A device, its sensor and its load on a clock that only the bench moves.

    It is the load generator and the energy source at once, as calibration sees them.
    """

    name = "nvml"

    def __init__(
        self,
        profile: DeviceProfile,
        seed: int,
        tail_w_s: tuple[float, float] | None = None,
        foreign_pids: tuple[int, ...] = (),
        ramp_s: float = 0.0,
    ) -> None:
        self._profile, self._seed, self._tail = profile, seed, tail_w_s
        self._ramp_s = ramp_s
        self._foreign = foreign_pids
        self.now_s = 0.0
        self.bursts: list[Window] = []
        self.simmers: list[Window] = []
        self.lost_s = 0.0
        self.stopped = False

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def burst(self, seconds: float) -> Window:
        window = Window(round(self.now_s * S), round((self.now_s + seconds) * S))
        self.now_s += seconds
        self.bursts.append(window)
        return window

    def simmer(self, seconds: float) -> Window:
        window = Window(round(self.now_s * S), round((self.now_s + seconds) * S))
        self.now_s += seconds
        self.simmers.append(window)
        return window

    def close(self) -> None: ...
    def start(self) -> None: ...
    def open_window(self) -> None: ...

    def stop(self) -> None:
        self.stopped = True

    def close_window(self, window: Window) -> EnergyRecording:
        rng = np.random.default_rng(self._seed)
        profile = profiles.with_random_phase(self._profile, rng)
        twin = VirtualDevice(profile, self._load(rng), seed=self._seed)
        quantities = [("instant", POWER, 1e-3, 0.02 if profile.counter_supported else 0.005)]
        if profile.counter_supported:
            quantities.append(("counter", COUNTER, 1.0, 0.005))
        readings = [
            reading
            for quantity, channel, unit, period_s in quantities
            for reading in _readings(
                channel, twin.poll(0.0, self.now_s, period_s, 0.02, rng, quantity=quantity), unit
            )
        ]
        state = DeviceState(device="GPU-1", foreign_pids=self._foreign)
        return EnergyRecording("nvml", readings=tuple(readings), device_state=(state,))

    def _load(self, rng: np.random.Generator) -> loads.Load:
        edges_s = np.array([[b.t0_ns, b.t1_ns] for b in self.bursts]).ravel() / S
        levels_w = np.append(IDLE_W, np.tile([BUSY_W, IDLE_W], len(self.bursts)))
        load = loads.steps(np.append(-9.0, edges_s), levels_w)
        for simmer in self.simmers:
            load = load + loads.step(simmer.t0_ns / S, simmer.t1_ns / S, AWAKE_W - IDLE_W, 0.0)
        for burst in self.bursts if self._ramp_s else ():
            if all(burst.t0_ns != simmer.t1_ns for simmer in self.simmers):
                lacks = loads.tail(burst.t0_ns / S, IDLE_W - BUSY_W, self._ramp_s, curved=False)
                load = load + lacks
        for burst in self.bursts if self._tail else ():
            load = load + loads.tail(burst.t1_ns / S, *self._tail)
        return loads.noisy(load, 0.05, -0.5, self.now_s, rng)


def _readings(channel: str, polls: Polls, unit: float) -> list[Reading]:
    rows = zip(polls.before_s, polls.after_s, polls.value, strict=True)
    return [
        Reading(channel, "GPU-1", round(before * S), round(after * S), float(value * unit))
        for before, after, value in rows
    ]


def learned(bench: VirtualBench, script: Script | None = None, seed: int = 0):
    script = script or make_script(random.Random(seed))
    return calibrate(DEVICE, bench, bench, script, sleep=bench.sleep)


def test_a_script_has_forty_short_and_twenty_long_bursts_in_random_order_with_random_gaps() -> None:
    script = make_script(random.Random(1))
    assert sorted(script.bursts_s) == [SHORT_S] * 40 + [LONG_S] * 20
    assert list(script.bursts_s) != sorted(script.bursts_s)
    assert all(LEAST_GAP_S <= gap <= LEAST_GAP_S + RANDOM_GAP_S for gap in script.gaps_s)
    assert len(set(script.gaps_s)) == 60
    assert script.seconds == pytest.approx(21.2 + 20 * SIMMER_S + sum(script.gaps_s) + 2 * EDGE_S)


@pytest.mark.parametrize("lag_s", [0.0, 0.05])
def test_tick_lag_and_a_whole_counter_are_learned(lag_s: float) -> None:
    bench = VirtualBench(profiles.vary(profiles.A100, lag_s=lag_s), seed=1)
    stored, notes = learned(bench)
    assert (stored.uuid, stored.driver_version, notes) == ("GPU-1", "570.1", ())
    assert stored.counter.tick_s == pytest.approx(0.1, rel=1e-3)
    assert stored.counter.lag_s == pytest.approx(lag_s, abs=0.005)
    assert stored.counter.fully_integrating
    assert stored.power is not None
    assert not stored.power.fully_integrating, "instantaneous power looks at 25 of 100 ms"
    assert bench.stopped


def test_a_tail_is_learned() -> None:
    true_s = loads.tail(0.0, 150.0, 0.1).energy_j(0.0, 1.0) / (BUSY_W - IDLE_W)
    stored = learned(VirtualBench(profiles.A100, seed=2, tail_w_s=(150.0, 0.1))).stored
    assert stored.counter.tail.excess_s == pytest.approx(true_s, abs=0.004)


@pytest.mark.parametrize("lag_s", [0.0, 0.05])
def test_a_device_that_ramps_up_from_rest_hides_no_tail(lag_s: float) -> None:
    true_s = loads.tail(0.0, 150.0, 0.1).energy_j(0.0, 1.0) / (BUSY_W - IDLE_W)
    profile = profiles.vary(profiles.A100, lag_s=lag_s)
    stored = learned(VirtualBench(profile, 8, tail_w_s=(150.0, 0.1), ramp_s=0.04)).stored
    assert stored.counter.tail.excess_s == pytest.approx(true_s, abs=0.004)
    assert stored.counter.lag_s == pytest.approx(lag_s, abs=0.004)


def test_work_that_loses_time_as_it_begins_is_doubted_by_as_much() -> None:
    ramps = VirtualBench(profiles.vary(profiles.A100, lag_s=0.05), 9)
    ramps.lost_s = 0.02
    calm = learned(VirtualBench(profiles.vary(profiles.A100, lag_s=0.05), 9)).stored
    found = learned(ramps).stored
    assert found.counter.tail.doubt_s == pytest.approx(0.02, rel=0.05)
    assert found.counter.edge_time_s > 0.02 > 5 * calm.counter.tail.doubt_s


def test_time_that_work_lost_is_told_by_the_pace_of_its_later_half() -> None:
    steady = [10_000_000 * k for k in range(1, 101)]
    assert lost_s(0, steady) == pytest.approx(0.0, abs=1e-9)
    assert lost_s(0, [30_000_000 + at for at in steady]) == pytest.approx(0.03)
    assert lost_s(0, steady[:3]) == 0.0


def test_jitter_is_learned() -> None:
    jittery = learned(VirtualBench(profiles.vary(profiles.A100, tick_jitter_s=0.004), 3)).stored
    still = learned(VirtualBench(profiles.A100, 3)).stored
    assert jittery.counter.jitter_s > still.counter.jitter_s + 0.001


def test_a_part_time_counter_is_found_out() -> None:
    stored = learned(VirtualBench(profiles.vary(profiles.A100_PART_TIME, lag_s=0.02), 4)).stored
    assert not stored.counter.fully_integrating
    assert stored.counter.look_share == pytest.approx(0.25, abs=0.08)


def test_a_device_without_a_counter_teaches_its_power_sensor() -> None:
    stored, notes = learned(VirtualBench(profiles.PASCAL_P100, 5))
    assert stored.counter is None
    assert stored.power is not None
    assert notes == ("GPU-1: it has no energy counter",)


def test_a_device_that_others_use_is_not_calibrated() -> None:
    bench = VirtualBench(profiles.A100, 6, foreign_pids=(4242,))
    with pytest.raises(BackendError, match="4242"):
        learned(bench)
    assert bench.stopped


def test_too_few_bursts_teach_nothing() -> None:
    with pytest.raises(BackendError, match="nothing was learned"):
        learned(VirtualBench(profiles.A100, 7), Script((1.0,), (0.9,)))


STORED = StoredCalibration(
    uuid="GPU-1",
    driver_version="570.1",
    calibrated_at="2026-02-18T14:30:05+00:00",
    counter=Calibration(
        tick_s=0.1,
        jitter_s=0.001,
        lag_s=0.05,
        tail=Tail(0.02, 0.2),
        fully_integrating=True,
        look_share=1.0,
    ),
)


def test_a_calibration_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    assert keep(tmp_path / "deep", STORED) == tmp_path / "deep" / CALIBRATIONS
    known = known_sensors(tmp_path / "deep", "570.1")
    assert known.knowledge["GPU-1"].counter == STORED.counter
    assert known.knowledge["GPU-1"].power is None
    assert known.notes == {}


def test_a_later_calibration_replaces_that_of_its_device_only(tmp_path: Path) -> None:
    keep(tmp_path, STORED)
    keep(tmp_path, STORED.model_copy(update={"uuid": "GPU-2"}))
    keep(tmp_path, STORED.model_copy(update={"counter": Calibration(lag_s=0.01)}))
    knowledge = known_sensors(tmp_path, "570.1").knowledge
    assert knowledge["GPU-1"].counter == Calibration(lag_s=0.01)
    assert knowledge["GPU-2"].counter == STORED.counter


@pytest.mark.parametrize("driver", ["580.0", None])
def test_a_calibration_of_another_driver_is_ignored_with_a_note(
    tmp_path: Path, driver: str | None
) -> None:
    keep(tmp_path, STORED)
    known = known_sensors(tmp_path, driver)
    assert known.knowledge == {}
    assert "driver 570.1 and not used" in known.notes["GPU-1"]


def test_a_damaged_calibration_is_ignored_with_a_note(tmp_path: Path) -> None:
    keep(tmp_path, STORED)
    content = json.loads((tmp_path / CALIBRATIONS).read_text())
    content["GPU-1"]["counter"]["lag_s"] = "late"
    (tmp_path / CALIBRATIONS).write_text(json.dumps(content))
    assert "damaged" in known_sensors(tmp_path, "570.1").notes["GPU-1"]


@pytest.mark.parametrize("sensor", ["counter", "power"])
def test_a_calibration_that_does_not_say_how_well_it_knows_tails_is_not_used(
    tmp_path: Path, sensor: str
) -> None:
    keep(tmp_path, STORED.model_copy(update={"power": Calibration(tail=Tail(0.01))}))
    content = json.loads((tmp_path / CALIBRATIONS).read_text())
    del content["GPU-1"][sensor]["tail"]["doubt_s"]
    (tmp_path / CALIBRATIONS).write_text(json.dumps(content))
    known = known_sensors(tmp_path, "570.1")
    assert known.knowledge == {}, "so that bursts replace it"
    assert "of an older version" in known.notes["GPU-1"]


def test_without_a_directory_nothing_is_known() -> None:
    assert known_sensors(None, "570.1").knowledge == {}


class Told(NoSource):
    """Remembers what it was told of its sensors."""

    def __init__(self, target, rates, knowledge=None) -> None:
        self.knowledge = knowledge

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        return Coverage("measured", "everything")


def select(name: str, folder: Path, driver: str, *uuids: str):
    table = {
        known: replace(facts, implementation=f"{__name__}:Told", package=None)
        for known, facts in ENERGY_SOURCES.items()
    }
    target, rates = DeviceTarget("gpu", uuids), SamplingRates()
    known = known_sensors(folder, driver)
    return get_active_energy_backend(name, target, rates, table, lambda: known)


@pytest.mark.parametrize("name", ["nvml", "zeus"])
def test_sources_of_gpus_are_told_what_is_known(tmp_path: Path, name: str) -> None:
    keep(tmp_path, STORED)
    selection = select(name, tmp_path, "570.1", "GPU-1")
    assert selection.source.knowledge["GPU-1"].counter == STORED.counter
    assert "not used" not in selection.reason


def test_a_calibration_that_does_not_hold_is_in_the_reason(tmp_path: Path) -> None:
    keep(tmp_path, STORED)
    selection = select("nvml", tmp_path, "580.0", "GPU-1")
    assert not selection.source.knowledge
    assert "the calibration of GPU-1 is of driver 570.1 and not used" in selection.reason
    assert "not used" not in select("nvml", tmp_path, "580.0", "GPU-2").reason


def test_sources_without_sensors_of_their_own_are_told_nothing(tmp_path: Path) -> None:
    keep(tmp_path, STORED)
    assert select("codecarbon", tmp_path, "570.1", "GPU-1").source.knowledge is None
