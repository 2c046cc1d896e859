"""Idle power, closure and what is known of sensors, through whole experiments."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from llenergymeasure.cli.machine import _sensors
from llenergymeasure.core.energy.estimation.sensor import Calibration
from llenergymeasure.core.energy.stored import BASELINES, StoredCalibration, keep
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.events import EventLog
from llenergymeasure.orchestration.orchestrator import ExperimentOrchestrator, Measurement
from llenergymeasure.state.machine import StateMachine
from tests.support.known_power import KnownPower, constant
from tests.support.make_result import make_environment
from tests.support.scripted_run import make_order, scripted_config

UUID = "GPU-1"


class Divisible(KnownPower):
    """Known power whose windows can be divided, with an interval of 1 %."""

    def part(self, window: Window) -> EnergyRecording:
        whole = KnownPower(self._steps).close_window(window)
        return EnergyRecording("known", whole.components, 0.01 * (whole.total_j or 0.0))


def measure(
    folder: Path, data_dir: str | None, driver: str | None, **fields: object
) -> Measurement:
    config = scripted_config(
        scripted={"ttft_ms": 4.0, "itl_ms": 1.0, "batch_size": 2, "device_uuids": (UUID,)}, **fields
    )
    with contextlib.closing(EventLog(folder / "events.jsonl")) as events:
        order = make_order(config, folder, data_dir=data_dir)
        source = Divisible(constant(60.0))
        machine = StateMachine(events.phase)
        return ExperimentOrchestrator(order, machine, events, source.select, driver).run()


def test_steady_idle_power_is_kept_by_device_driver_and_source(tmp_path: Path) -> None:
    data = tmp_path / "data"
    measured = measure(tmp_path, str(data), "570.1", baseline={"duration_seconds": 2.1})
    assert measured.baseline.device_idle_steady
    kept = json.loads((data / BASELINES).read_text())
    assert list(kept) == [f"{UUID}|570.1|known"]
    assert kept[f"{UUID}|570.1|known"]["power_w"] == pytest.approx(60.0)


@pytest.mark.parametrize(("directory", "driver"), [(None, "570.1"), ("data", None)])
def test_without_a_directory_or_a_driver_nothing_is_kept(
    tmp_path: Path, directory: str | None, driver: str | None
) -> None:
    data = directory and str(tmp_path / directory)
    measured = measure(tmp_path, data, driver, baseline={"duration_seconds": 2.1})
    assert measured.baseline.device_idle_w == pytest.approx(60.0)
    assert not (tmp_path / "data").exists()


def test_a_window_of_several_passes_is_compared_with_itself(tmp_path: Path) -> None:
    measured = measure(tmp_path, None, None, window={"min_duration_seconds": 0.2})
    passes = len(measured.raw.passes)
    assert passes >= 2
    assert measured.measured.comparison is not None
    assert measured.measured.comparison.passes_each == passes // 2


def test_a_single_pass_has_nothing_to_compare_with(tmp_path: Path) -> None:
    assert measure(tmp_path, None, None).measured.comparison is None


def test_llem_config_tells_of_each_gpu_whether_it_is_calibrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    gpus = tuple(GPUInfo(index=i, uuid=f"GPU-{i}", name="A100") for i in range(3))
    machine = make_environment(gpus=gpus, driver_version="570.1")
    for uuid, driver in (("GPU-0", "570.1"), ("GPU-1", "560.0")):
        stored = StoredCalibration(
            uuid=uuid,
            driver_version=driver,
            calibrated_at="2026-02-18T14:30:05+00:00",
            counter=Calibration(tick_s=0.1004, lag_s=0.049, fully_integrating=True),
            power=Calibration(tick_s=0.1, lag_s=0.01, look_share=0.25),
        )
        keep(tmp_path / "llenergymeasure", stored)
    lines = [" ".join(line.split()) for line in _sensors(machine)]
    assert lines[:3] == [
        "GPU-0 calibrated",
        "counter: tick 100 ms, lag 49 ms, counts every moment",
        "power: tick 100 ms, lag 10 ms, looks at 25 % of each tick",
    ]
    text = " ".join(lines)
    assert "GPU-1 not calibrated: the calibration of GPU-1 is of driver 560.0" in text
    assert "GPU-2 not calibrated: tick, lag and look of its sensors are not known" in text
    assert lines.count("llem config --calibrate") == 2
