"""Idle power of an experiment: measured in full, or confirmed by a short look."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest

from llenergymeasure.config.models import BaselineConfig
from llenergymeasure.core.energy import Selection
from llenergymeasure.core.energy.protocol import Coverage
from llenergymeasure.core.energy.stored import (
    BASELINES,
    LIMIT_S,
    SPOT_S,
    BaselineCache,
    DeviceIdentity,
    StoredIdle,
    confirmed,
)
from llenergymeasure.core.environment import boot_id, cpu_model
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording, Idle
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.baseline import Baseline

WHO = DeviceIdentity(("GPU-1",), "570.1", "nvml")


class Idling:
    """A source on a device of so many watts; a window is as long as its sleep says."""

    name = "nvml"

    def __init__(self, power_w: float) -> None:
        self.power_w = power_w

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def open_window(self) -> None: ...

    def part(self, window: Window) -> EnergyRecording:
        part = EnergyComponent(
            name="GPU-1",
            energy_j=self.power_w * window.seconds,
            kind="measured",
            method="known",
            in_scope=True,
        )
        return EnergyRecording("nvml", (part,), 0.001 * self.power_w * window.seconds)

    close_window = part


class Sleeps:
    """Remembers how long was waited, which a clock shows at once."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def __call__(self, duration_s: float) -> None:
        self.waited_s.append(duration_s)

    def clock_ns(self) -> int:
        return round(sum(self.waited_s) * 1e9)


def cache(folder: Path, now_s: float = 1000.0, who: DeviceIdentity = WHO) -> BaselineCache:
    return BaselineCache(folder, who, now_s=lambda: now_s)


def stored(**changes: float) -> StoredIdle:
    values = {"power_w": 60.0, "interval95_w": 0.2, "duration_s": 30.0, "measured_at_s": 900.0}
    return StoredIdle(**{**values, **changes})


def run(power_w: float, kept: BaselineCache | None, duration_s: float = 30.0):
    sleeps = Sleeps()
    selection = Selection(Idling(power_w), "nvml", "a test", Coverage("measured", "one GPU"))
    config = BaselineConfig(duration_seconds=duration_s)
    baseline = Baseline(config, selection, sleeps, sleeps.clock_ns)
    baseline.measure_device(kept)
    return baseline.result(), sleeps.waited_s


STEADY = Idle(60.0, 0.2, steady=True)


def test_what_was_kept_is_found_again_by_device_driver_and_source(tmp_path: Path) -> None:
    cache(tmp_path, 900.0).keep(STEADY, 30.0)
    assert cache(tmp_path).find(30.0) == stored()
    for other in (
        DeviceIdentity(("GPU-2",), "570.1", "nvml"),
        DeviceIdentity(("GPU-1",), "580.0", "nvml"),
        DeviceIdentity(("GPU-1",), "570.1", "zeus"),
        DeviceIdentity(("GPU-1", "GPU-2"), "570.1", "nvml"),
    ):
        assert cache(tmp_path, who=other).find(30.0) is None


def test_a_cpu_is_known_by_its_model_and_its_machine_and_a_gpu_by_itself() -> None:
    cpu = DeviceIdentity.of(DeviceTarget("cpu"), None, "rapl")
    assert cpu is not None
    assert cpu.uuids == (cpu_model() or "CPU", boot_id())
    assert cpu == DeviceIdentity.of(DeviceTarget("cpu"), "570.1", "rapl"), "no GPU plays a part"
    gpu = DeviceTarget("gpu", ("GPU-1",))
    assert DeviceIdentity.of(gpu, "570.1", "nvml") == WHO
    assert DeviceIdentity.of(gpu, None, "nvml") is None
    assert DeviceIdentity.of(DeviceTarget("gpu"), "570.1", "nvml") is None


def test_a_machine_without_an_id_of_its_boot_is_known_by_its_name(tmp_path: Path) -> None:
    assert boot_id(tmp_path / "absent") == platform.node()
    (tmp_path / "boot_id").write_text("b-1\n")
    assert boot_id(tmp_path / "boot_id") == "b-1"


def test_idle_power_of_two_sets_of_devices_is_kept_side_by_side(tmp_path: Path) -> None:
    other = DeviceIdentity(("GPU-2",), "570.1", "nvml")
    cache(tmp_path).keep(STEADY, 30.0)
    cache(tmp_path, who=other).keep(Idle(70.0, 0.2, steady=True), 30.0)
    assert cache(tmp_path).find(30.0).power_w == 60.0
    assert cache(tmp_path, who=other).find(30.0).power_w == 70.0


def test_a_day_later_nothing_is_found(tmp_path: Path) -> None:
    cache(tmp_path, 900.0).keep(STEADY, 30.0)
    assert cache(tmp_path, 900.0 + LIMIT_S).find(30.0) is not None
    assert cache(tmp_path, 901.0 + LIMIT_S).find(30.0) is None
    assert cache(tmp_path, 899.0).find(30.0) is None, "a clock set back dates nothing"


def test_a_shorter_measurement_does_not_stand_in_for_a_longer_one(tmp_path: Path) -> None:
    cache(tmp_path).keep(STEADY, 30.0)
    assert cache(tmp_path).find(60.0) is None


@pytest.mark.parametrize("idle", [Idle(60.0, 0.2, steady=False), Idle(60.0), Idle(-1.0, 0.2, True)])
def test_what_is_not_steady_or_has_no_interval_is_not_kept(tmp_path: Path, idle: Idle) -> None:
    cache(tmp_path).keep(idle, 30.0)
    assert cache(tmp_path).find(30.0) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"GPU-1|570.1|nvml": {"power_w": "hot"}}'])
def test_a_damaged_file_is_no_knowledge_and_no_failure(tmp_path: Path, text: str) -> None:
    (tmp_path / BASELINES).write_text(text)
    assert cache(tmp_path).find(30.0) is None
    cache(tmp_path).keep(STEADY, 30.0)
    assert cache(tmp_path).find(30.0) is not None


def test_a_directory_that_refuses_does_not_end_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache(tmp_path / "file").keep(STEADY, 30.0)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    cache(tmp_path).keep(STEADY, 30.0)
    assert [path.name for path in tmp_path.iterdir()] == [BASELINES]
    assert json.loads((tmp_path / BASELINES).read_text())


def test_a_spot_check_confirms_within_both_intervals_and_two_per_cent() -> None:
    allowed_w = (0.2**2 + 0.3**2) ** 0.5 + 1.2
    assert confirmed(stored(), Idle(60.0 + allowed_w - 0.01, 0.3, steady=True))
    assert not confirmed(stored(), Idle(60.0 + allowed_w + 0.01, 0.3, steady=True))
    assert not confirmed(stored(), Idle(60.0, None)), "no interval, no confirmation"
    assert not confirmed(stored(), Idle(60.0, 0.3, steady=False))


def test_the_first_measurement_is_full_and_the_next_only_a_look(tmp_path: Path) -> None:
    (first, full), (second, look) = run(60.0, cache(tmp_path)), run(60.5, cache(tmp_path))
    changed, again = run(80.0, cache(tmp_path))
    assert (full, look, again) == ([30.0], [SPOT_S], [SPOT_S, 30.0])
    assert first.device_idle_age_s is None
    assert (second.device_idle_w, second.device_idle_age_s) == (pytest.approx(60.0), 0.0)
    assert second.device_idle_interval95_w == pytest.approx(first.device_idle_interval95_w)
    assert (changed.device_idle_w, changed.device_idle_age_s) == (pytest.approx(80.0), None)


def test_without_a_cache_or_for_a_short_baseline_it_is_measured_in_full(tmp_path: Path) -> None:
    cache(tmp_path).keep(STEADY, 30.0)
    assert run(60.0, None)[1] == [30.0]
    assert run(60.0, cache(tmp_path), duration_s=10.0)[1] == [10.0]
