"""Calibration in real time: the real bindings on a simulated GPU, driven by a script."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from llenergymeasure.cli.calibration import calibrate_gpus
from llenergymeasure.core.energy.calibration import Script, make_script
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.stored import known_sensors
from llenergymeasure.domain.environment import DeviceTarget, GPUInfo
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError, PreFlightError
from llenergymeasure.orchestration.device_lock import lock_directory, lock_path
from tests.support.cli import QUICK, Llem, wait_for
from tests.support.lock_holder import answer, holder, start
from tests.support.make_result import make_environment
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import V100, vary

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

IDLE_W, BUSY_W = 60.0, 300.0
DRIVER = "570.86.15"


class ScriptedLoad:
    """Writes bursts to the load log of a simulated device."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.lost_s = 0.0
        self.closed = False
        self._write(IDLE_W)

    def burst(self, seconds: float) -> Window:
        t0_ns = self._write(BUSY_W)
        time.sleep(seconds)
        return Window(t0_ns, self._write(IDLE_W))

    def simmer(self, seconds: float) -> Window:
        t0_ns = self._write(IDLE_W + 20.0)
        time.sleep(seconds)
        return Window(t0_ns, time.monotonic_ns())

    def close(self) -> None:
        self.closed = True

    def _write(self, watts: float) -> int:
        at_ns = time.monotonic_ns()
        with self._log.open("a", encoding="ascii") as log:
            log.write(f"{at_ns / 1e9:.9f} {watts:g}\n")
        return at_ns


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedNode:
    made = SimulatedNode(tmp_path, [Board(vary(V100, lag_s=0.03))])
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LLEM_LOCK_DIR", Llem(tmp_path).variables()["LLEM_LOCK_DIR"])
    return made


def bursts() -> Script:
    return make_script(random.Random(3), short=12, long=4)


def machine(node: SimulatedNode):
    gpu = GPUInfo(index=0, uuid=node.uuid(), name="Tesla V100-SXM2-16GB")
    return make_environment(gpus=(gpu,), driver_version=DRIVER)


def test_a_gpu_is_calibrated_and_the_next_measurement_knows_it(
    node: SimulatedNode, tmp_path: Path
) -> None:
    load = ScriptedLoad(node.load_log())
    lines: list[str] = []
    calibrate_gpus(
        machine(node),
        tmp_path / "data",
        SamplingRates(),
        lines.append,
        make_load=lambda _: load,
        script=bursts(),
    )
    assert load.closed
    assert "takes" in lines[0]
    assert any(line.startswith("counter: tick 20 ms, lag") for line in lines), lines
    known = known_sensors(tmp_path / "data", DRIVER).knowledge
    assert known[node.uuid()].counter is not None
    assert known[node.uuid()].counter.lag_s == pytest.approx(0.03, abs=0.01)

    target = DeviceTarget("gpu", (node.uuid(),))
    flags, intervals_j = [], []
    for knowledge in ({}, known):
        source = NVMLSource(target, SamplingRates(), knowledge=knowledge)
        source.start()
        try:
            source.open_window()
            recording = source.close_window(load.burst(1.0))
        finally:
            source.stop()
        flags.append(recording.flags)
        intervals_j.append(recording.interval_j)
    assert "sensor_uncalibrated" in flags[0]
    assert "sensor_uncalibrated" not in flags[1]
    assert intervals_j[1] < intervals_j[0] / 2


def test_a_machine_without_a_gpu_has_nothing_to_calibrate(tmp_path: Path) -> None:
    nothing = make_environment(gpus=(), driver_version=None, gpu_note="no driver")
    with pytest.raises(PreFlightError, match="no GPU whose sensors"):
        calibrate_gpus(nothing, tmp_path, SamplingRates(), print)


def test_a_gpu_that_pytorch_does_not_see_is_refused_before_anything_runs(
    node: SimulatedNode, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match="PyTorch"):
        calibrate_gpus(machine(node), tmp_path, SamplingRates(), print)
    assert not list(tmp_path.glob("calibrations.json"))


def test_a_calibration_waits_for_whoever_measures_the_gpu_and_says_who(
    node: SimulatedNode, tmp_path: Path
) -> None:
    said: list[str] = []
    lock = lock_path(node.uuid(), lock_directory())
    with holder(lock) as other:
        waits = f"waiting for {node.uuid()}, measured by pid {other.pid} ("

        def tell(line: str) -> None:
            said.append(line)
            if line.startswith(waits):
                other.kill()

        with pytest.raises(BackendError, match="PyTorch"):
            calibrate_gpus(machine(node), tmp_path, SamplingRates(), tell)
    assert said[0].startswith(waits)
    assert "leave it alone" in said[1]
    again = start(lock)
    try:
        assert answer(again) == "yes", "what failed still has the GPU"
    finally:
        again.communicate()


def test_an_experiment_waits_for_the_calibration_of_its_gpu(
    node: SimulatedNode, tmp_path: Path
) -> None:
    llem = Llem(tmp_path, node.environment)
    llem.write(
        "one.yaml", f"model: m\nbackend: scripted\nscripted: {{device_uuids: [{node.uuid()}]}}"
    )
    started: list[subprocess.Popen[str]] = []

    def load(_uuid: str) -> ScriptedLoad:
        experiment = llem.start("run", "one.yaml", *QUICK, "-o", "out")
        started.append(experiment)
        wait_for(lambda: experiment.poll() is not None or phases() == ["wait"])
        assert experiment.poll() is None, experiment.communicate()
        return ScriptedLoad(node.load_log())

    def phases() -> list[str]:
        events = "".join(path.read_text() for path in tmp_path.glob("out/*/events.jsonl"))
        return [json.loads(line)["phase"] for line in events.splitlines()]

    try:
        calibrate_gpus(
            machine(node), tmp_path, SamplingRates(), print, make_load=load, script=bursts()
        )
        (experiment,) = started
        _out, err = experiment.communicate(timeout=60)
    finally:
        for left in started:
            left.kill()
    assert experiment.returncode == 0, err
    assert f"waiting for {node.uuid()}, measured by pid {os.getpid()} (" in err
