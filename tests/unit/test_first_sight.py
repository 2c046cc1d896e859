"""GPUs that were never calibrated: bursts, once, in place of the first thermal floor."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llenergymeasure.core.energy.calibration import Script, make_script
from llenergymeasure.core.energy.first_sight import FirstSight, calibrate_unknown
from llenergymeasure.core.energy.none import NoSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.stored import (
    RETRY_S,
    FailedCalibration,
    StoredCalibration,
    failed_lately,
    keep_failure,
    known_sensors,
)
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError
from tests.support.simulated_device import profiles
from tests.unit.test_calibration import VirtualBench


class Bench(VirtualBench):
    """The same as a source that runs, and learns."""

    def __init__(self, seed: int = 1, **options: object) -> None:
        super().__init__(profiles.vary(profiles.A100, lag_s=0.02), seed, **options)
        self.learned: dict[str, StoredCalibration] = {}

    def uncalibrated(self) -> list[str]:
        return [uuid for uuid in ("GPU-1",) if uuid not in self.learned]

    def learn(self, calibration: StoredCalibration) -> None:
        self.learned[calibration.uuid] = calibration


def script() -> Script:
    return make_script(random.Random(2), short=20, long=6)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_gpu_never_seen_is_calibrated_once_which_is_said_and_kept(
    bench: Bench, tmp_path: Path
) -> None:
    said: list[str] = []

    def seen() -> FirstSight:
        return calibrate_unknown(
            bench,
            "570.1",
            tmp_path,
            said.append,
            make_load=lambda _: bench,
            make_bursts=script,
            sleep=bench.sleep,
        )

    assert seen().calibrated == ("GPU-1",)
    (line,) = said
    assert "never calibrated with driver 570.1" in line
    assert "--no-calibrate" in line
    assert bench.learned["GPU-1"].counter is not None
    kept = known_sensors(tmp_path, "570.1").knowledge["GPU-1"]
    assert kept.counter == bench.learned["GPU-1"].counter
    assert kept.calibrated_at == bench.learned["GPU-1"].calibrated_at
    assert seen() == ((), ()), "it is known now"
    assert len(said) == 1


def test_a_gpu_that_cannot_be_driven_stays_uncalibrated_and_the_experiment_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    def refused(_uuid: str) -> Bench:
        raise BackendError("PyTorch sees no CUDA device")

    found = calibrate_unknown(
        bench, "570.1", tmp_path, lambda _: None, make_load=refused, make_bursts=script
    )
    assert found.calibrated == ()
    assert "GPU-1 is not calibrated: PyTorch sees no CUDA device" in found.notes
    assert not bench.learned


def test_bursts_take_the_place_of_the_thermal_floor_of_a_single_gpu() -> None:
    instead = FirstSight(("GPU-1",), ()).instead_of_floor(1)
    assert instead == "replaced by bursts that calibrated the sensors of GPU-1"
    assert FirstSight((), ()).instead_of_floor(1) is None
    assert FirstSight(("GPU-1",), ()).instead_of_floor(2) is None, "the other one rested"


def failing(bench: Bench, folder: Path, driver: str = "570.1") -> tuple[FirstSight, list[str]]:
    """Try with a load that cannot be made; give what became of it and what was told."""
    said: list[str] = []

    def refused(_uuid: str) -> Bench:
        raise BackendError("no memory")

    found = calibrate_unknown(
        bench, driver, folder, said.append, make_load=refused, sleep=bench.sleep
    )
    return found, said


def test_a_gpu_that_bursts_did_not_calibrate_is_left_alone_for_a_day(
    bench: Bench, tmp_path: Path
) -> None:
    assert len(failing(bench, tmp_path)[1]) == 1
    again, said = failing(bench, tmp_path)
    assert not said, "neither bursts nor a process of their own"
    (note,) = again.notes
    assert note.startswith("GPU-1 is not calibrated: no memory")
    assert "llem config --calibrate" in note
    assert len(failing(bench, tmp_path, "580.2")[1]) == 1, "another driver may do"


def test_a_calibration_that_failed_is_tried_again_after_a_day(tmp_path: Path) -> None:
    failed = FailedCalibration(uuid="GPU-1", driver_version="570", reason="hot", failed_at_s=1e9)
    keep_failure(tmp_path, failed)
    assert failed_lately(tmp_path, "GPU-1", "570", 1e9 + RETRY_S) == failed
    assert failed_lately(tmp_path, "GPU-1", "570", 1e9 + RETRY_S + 1) is None
    assert failed_lately(tmp_path, "GPU-1", "570", 1e9 - 1) is None, "the clock was put back"
    assert failed_lately(tmp_path, "GPU-2", "570", 1e9) is None


def test_a_gpu_that_others_use_is_seen_before_any_burst_and_tried_next_time(tmp_path: Path) -> None:
    busy = Bench(foreign_pids=(4242,))
    found, said = failing(busy, tmp_path)
    assert not said
    assert "other processes compute on it (4242)" in found.notes[0]
    assert len(failing(Bench(), tmp_path)[1]) == 1


def test_a_source_that_cannot_be_taught_is_left_alone(tmp_path: Path) -> None:
    source = NoSource(DeviceTarget("cpu"), SamplingRates())
    assert calibrate_unknown(source, "570.1", tmp_path, pytest.fail) == ((), ())


def test_what_cannot_be_kept_holds_for_this_experiment(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = calibrate_unknown(
        bench,
        "570.1",
        tmp_path / "file",
        lambda _: None,
        make_load=lambda _: bench,
        make_bursts=script,
        sleep=bench.sleep,
    )
    assert found.calibrated == ("GPU-1",)
    assert "for this experiment only" in found.notes[-1]
