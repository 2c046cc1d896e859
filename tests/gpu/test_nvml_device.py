"""The NVML source on a real GPU: its counter, its states, and who else computes on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from typing import NamedTuple

import pytest

from llenergymeasure.core.energy import nvml_reader as channels
from llenergymeasure.core.energy.calibration import TorchLoad
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError

pytestmark = pytest.mark.gpu

IDLE_S, LOAD_S = 5.0, 5.0
RATES = SamplingRates()


class Recorded(NamedTuple):
    """What came of a window."""

    window: Window
    recording: EnergyRecording

    @property
    def mean_w(self) -> float:
        assert self.recording.total_j is not None, self.recording.notes
        return self.recording.total_j / self.window.seconds


@pytest.fixture(scope="module")
def uuid() -> str:
    import torch

    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


@pytest.fixture(scope="module")
def load(uuid: str) -> Iterator[TorchLoad]:
    with closing(TorchLoad(uuid)) as made:
        yield made


@contextmanager
def running(uuid: str) -> Iterator[NVMLSource]:
    source = NVMLSource(DeviceTarget("gpu", (uuid,)), RATES)
    try:
        source.start()
        yield source
    finally:
        source.stop()


def measured(source: NVMLSource, work: Callable[[], Window]) -> Recorded:
    source.open_window()
    window = work()
    return Recorded(window, source.close_window(window))


def rest() -> Window:
    t0_ns = time.monotonic_ns()
    time.sleep(IDLE_S)
    return Window(t0_ns, time.monotonic_ns())


@pytest.fixture(scope="module")
def stretches(uuid: str, load: TorchLoad) -> dict[str, Recorded]:
    """Record idling, a load, and a load of twice the length, in one session."""
    time.sleep(2.0)  # from the load's warm-up to idling
    with running(uuid) as source:
        return {
            "idle": measured(source, rest),
            "load": measured(source, lambda: load.burst(LOAD_S)),
            "double": measured(source, lambda: load.burst(2 * LOAD_S)),
        }


def test_the_counter_never_falls_and_has_a_tick(stretches: dict[str, Recorded]) -> None:
    recording = stretches["load"].recording
    counted = [r.value for r in recording.readings if r.channel == channels.COUNTER]
    if not counted:
        pytest.skip("this GPU has no energy counter")

    assert all(before <= after for before, after in pairwise(counted))
    assert recording.components[0].tick_ms is not None
    assert 1 < recording.components[0].tick_ms < 1000


def test_every_figure_is_measured_and_has_an_interval(stretches: dict[str, Recorded]) -> None:
    for name, one in stretches.items():
        assert one.recording.kind == "measured", (name, one.recording.notes)
        assert one.recording.interval_j is not None, name
        assert "counter_reset" not in one.recording.flags, name


def test_an_idle_device_draws_less_than_a_loaded_one(stretches: dict[str, Recorded]) -> None:
    assert 0 < stretches["idle"].mean_w < 0.7 * stretches["load"].mean_w


def test_a_device_draws_no_more_than_its_limit(stretches: dict[str, Recorded]) -> None:
    (state,) = stretches["load"].recording.device_state

    assert state.power_limit_w is not None
    assert stretches["load"].mean_w < 1.1 * state.power_limit_w


def test_twice_the_work_takes_about_twice_the_energy(stretches: dict[str, Recorded]) -> None:
    one, two = stretches["load"], stretches["double"]
    assert one.recording.total_j is not None
    assert two.recording.total_j is not None
    per_second = two.window.seconds / one.window.seconds

    # a board that heats up, or is held at its limit, moves by some per cent
    assert two.recording.total_j / one.recording.total_j == pytest.approx(per_second, rel=0.15)


def test_counter_and_power_tell_the_same_energy(stretches: dict[str, Recorded]) -> None:
    (part,) = stretches["double"].recording.components
    if part.counter_over_power is None:
        pytest.skip("this GPU has no energy counter, or no instantaneous power")

    assert part.counter_over_power == pytest.approx(1.0, abs=0.05)


def test_heat_clocks_and_limits_can_be_read(stretches: dict[str, Recorded]) -> None:
    (state,) = stretches["load"].recording.device_state

    assert state.start_c is not None
    assert state.end_c is not None
    assert 10 < state.start_c <= state.end_c + 5 < 120
    assert state.clock_sm_mhz is not None
    assert state.clock_sm_mhz > 100
    assert state.state_samples > 0


def test_reading_costs_little(stretches: dict[str, Recorded]) -> None:
    cost = stretches["double"].recording.cost

    assert cost is not None
    assert cost.cpu_seconds < 0.1 * stretches["double"].window.seconds


FOREIGN = """
import sys, torch
kept = torch.ones(1, device=sys.argv[1])
torch.cuda.synchronize()
print("at work", flush=True)
sys.stdin.read()
"""


def test_another_process_on_the_device_is_seen(uuid: str) -> None:
    # setsid leaves a process whose parent is gone, which is none of the experiment's own
    with (
        subprocess.Popen(
            ["setsid", "--fork", sys.executable, "-c", FOREIGN, "cuda:0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
        running(uuid) as source,
    ):
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "at work\n"
        found = measured(source, rest).recording
        other.stdin.close()

    (state,) = found.device_state
    if state.foreign_pids is None:
        # in a container ids are not the host's: what can't be told is said
        assert "processes_unknown" in found.flags
    else:
        assert "foreign_process" in found.flags


# ---- which device, and the load of a calibration ---------------------------------------------


def in_a_process(code: str, *arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


TARGET = """
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
print(*PyTorchBackend().target(ExperimentConfig(model="random:tiny-llama")).gpu_uuids)
"""


def test_a_device_that_is_made_visible_by_uuid_is_the_one_that_works() -> None:
    last = survey_gpus().gpus[-1].uuid

    assert in_a_process(TARGET, CUDA_VISIBLE_DEVICES=last) == last


def test_hidden_devices_leave_work_on_the_cpu() -> None:
    assert in_a_process(TARGET, CUDA_VISIBLE_DEVICES="") == ""


def test_a_burst_lasts_about_as_long_as_asked(load: TorchLoad) -> None:
    for seconds in (0.03, 1.0):
        assert seconds <= load.burst(seconds).seconds < seconds + 0.25


def test_a_load_frees_its_matrices(uuid: str) -> None:
    import torch

    before = torch.cuda.memory_allocated()
    made = TorchLoad(uuid)
    assert torch.cuda.memory_allocated() > before
    made.close()

    assert torch.cuda.memory_allocated() == before


def test_a_device_that_pytorch_does_not_see_cannot_be_loaded() -> None:
    with pytest.raises(BackendError, match="CUDA_VISIBLE_DEVICES"):
        TorchLoad("GPU-00000000-0000-0000-0000-000000000000")
