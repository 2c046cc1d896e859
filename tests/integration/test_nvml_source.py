"""The NVML source on devices whose true energy is known, through the real bindings."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from llenergymeasure.core.energy import nvml_reader as channels
from llenergymeasure.core.energy.nvml import READER, NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates, StepTimes, no_steps
from llenergymeasure.core.energy.sampled_source import reader_spec
from llenergymeasure.core.energy.sampler import ReaderSpec, SamplerProcess
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError
from tests.support.node_program import ROOT, ask_on, environment
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import (
    COUNTER_FUNCTION,
    DRIVER_NOT_LOADED,
    HW_SLOWDOWN,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PROCESSES_FUNCTION,
    UNKNOWN,
    Board,
    SimulatedNode,
)
from tests.support.simulated_device.profiles import (
    A10,
    A100,
    A100_PART_TIME,
    GH200,
    H100,
    PASCAL_P100,
    RTX_4090,
    V100,
    DeviceProfile,
    vary,
)

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

IDLE_W, BUSY_W = 75.0, 400.0
RATES = SamplingRates()
OLD_A10 = {"compute_capability": 8.6}
AVERAGE_ONLY = vary(A10, counter_supported=False)
POWER_USAGE = "nvmlDeviceGetPowerUsage"
MakeNode = Callable[..., SimulatedNode]
Nothing = Callable[[], object]


@pytest.fixture
def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeNode:
    """Make a node that sampling processes see from then on; this process does not."""

    def make(*profiles: DeviceProfile, **settings: float | str) -> SimulatedNode:
        boards = [
            Board(profile, settings={**(OLD_A10 if profile.name == A10.name else {}), **settings})
            for profile in profiles
        ]
        node = SimulatedNode(tmp_path, boards)
        for name, value in node.environment.items():
            monkeypatch.setenv(name, value)
        return node

    return make


class Recorded(NamedTuple):
    """What came of a window."""

    node: SimulatedNode
    window: Window
    recording: EnergyRecording

    def part(self, device: int = 0) -> EnergyComponent:
        names = [part.name for part in self.recording.components]
        return self.recording.components[names.index(self.node.uuid(device))]

    def truth_j(self, device: int = 0) -> float:
        return self.node.true_energy_j(self.window.t0_ns / 1e9, self.window.t1_ns / 1e9, device)

    def is_right(self, device: int = 0) -> bool:
        part = self.part(device)
        assert part.energy_j is not None
        assert part.interval95_j is not None
        return abs(part.energy_j - self.truth_j(device)) <= part.interval95_j


@contextmanager
def running(node: SimulatedNode, **arguments: object) -> Iterator[NVMLSource]:
    target = DeviceTarget("gpu", tuple(node.uuid(i) for i in range(len(node.boards))))
    spec = reader_spec(READER, target, RATES)
    # Whether ids are the host's differs between the machines that run this.
    known = {"host_pids": True, **arguments}
    sampler = SamplerProcess(ReaderSpec(spec.path, {**spec.arguments, **known}))
    source = NVMLSource(target, RATES, sampler)
    try:
        source.start()
        yield source
    finally:
        source.stop()


def window(
    source: NVMLSource,
    node: SimulatedNode,
    seconds: float = 1.0,
    during: Nothing = lambda: None,
    *,
    after: Nothing = lambda: None,
    steps: StepTimes = no_steps,
) -> Recorded:
    """Load every device for a while; ``during`` is called in the middle, ``after`` at the end."""
    devices = range(len(node.boards))
    for device in devices:
        node.set_load(IDLE_W, device)
    source.open_window()
    for device in devices:
        node.set_load(BUSY_W, device)
    t0_ns = time.monotonic_ns()
    time.sleep(seconds / 2)
    during()
    time.sleep(max(0.0, seconds - (time.monotonic_ns() - t0_ns) / 1e9))
    taken = Window(t0_ns, time.monotonic_ns())
    for device in devices:
        node.set_load(IDLE_W, device)
    after()
    return Recorded(node, taken, source.close_window(taken, steps))


def measured(
    node: SimulatedNode,
    seconds: float = 1.0,
    during: Nothing = lambda: None,
    after: Nothing = lambda: None,
) -> Recorded:
    with running(node) as source:
        return window(source, node, seconds, during, after=after)


def seen_channels(recording: EnergyRecording, uuid: str) -> set[str]:
    return {reading.channel for reading in recording.readings if reading.device == uuid}


def test_every_kind_of_device_is_measured_within_its_interval(make_node: MakeNode) -> None:
    profiles = (A100, H100, V100, RTX_4090, GH200, PASCAL_P100, A10, A100_PART_TIME)
    node = make_node(*profiles)
    found = measured(node, 2.0)

    for device, profile in enumerate(profiles):
        part = found.part(device)
        assert part.kind == "measured", profile.name
        assert found.is_right(device), profile.name
    assert found.recording.total_j == pytest.approx(
        sum(map(found.truth_j, range(len(profiles)))), abs=found.recording.interval_j
    )
    assert found.recording.cost is not None
    assert found.recording.cost.cpu_seconds > 0


def test_what_is_read_depends_on_what_the_device_offers(make_node: MakeNode) -> None:
    node = make_node(A100, H100, PASCAL_P100, A10)
    found = measured(node, 0.5).recording

    power = {channels.COUNTER, channels.POWER, channels.AVERAGE_POWER}
    assert [power & seen_channels(found, node.uuid(i)) for i in range(4)] == [
        {channels.COUNTER, channels.POWER},
        power,
        {channels.POWER},
        {channels.COUNTER, channels.AVERAGE_POWER},
    ]
    rest = {
        *(channels.TEMPERATURE, channels.SM_CLOCK, channels.MEMORY_CLOCK, channels.CLOCK_EVENTS),
        *(channels.POWER_LIMIT, channels.DEFAULT_POWER_LIMIT, channels.PERSISTENCE),
        channels.PROCESSES,
    }
    assert rest <= seen_channels(found, node.uuid(0))
    assert found.kind == "measured"


def test_readings_surround_the_window_by_half_a_second(make_node: MakeNode) -> None:
    found = measured(make_node(A100), 0.3)
    rows = [r for r in found.recording.readings if r.channel == channels.COUNTER]
    assert rows[0].before_ns <= found.window.t0_ns - 450_000_000
    assert rows[-1].after_ns >= found.window.t1_ns + 450_000_000


def test_without_a_counter_power_is_integrated_with_a_warning(make_node: MakeNode) -> None:
    node = make_node(PASCAL_P100)
    found = measured(node)
    assert found.is_right()
    assert "integrated_power" in found.recording.flags
    assert f"{node.uuid()}: no energy counter (Not Supported)" in found.recording.notes


def test_a_counter_that_may_not_be_read_is_replaced_by_power(make_node: MakeNode) -> None:
    node = make_node(A100)
    node.fail(COUNTER_FUNCTION, NO_PERMISSION)
    found = measured(node)
    assert found.is_right()
    assert "integrated_power" in found.recording.flags
    assert "Insufficient Permissions" in " ".join(found.recording.notes)


def test_a_device_with_only_a_mean_over_a_second_is_read_for_longer(make_node: MakeNode) -> None:
    found = measured(make_node(AVERAGE_ONLY), 3.0)
    assert found.is_right()
    assert "one_second_average" in found.recording.flags
    assert "no_guard" not in found.recording.flags


def test_a_device_that_tells_nothing_is_unmeasurable(make_node: MakeNode) -> None:
    node = make_node(PASCAL_P100)
    for function in (POWER_USAGE, "field:186", "field:185"):
        node.fail(function, NOT_SUPPORTED)
    found = measured(node, 0.3).recording
    assert found.kind == "unmeasurable"
    assert found.total_j is None
    assert "it tells neither energy nor power (Not Supported)" in " ".join(found.notes)


@pytest.mark.parametrize("what", ["counter", "power"])
def test_readings_of_zero_are_no_readings(make_node: MakeNode, what: str) -> None:
    node = make_node(A100)
    node.fault(f"zero {what}")
    found = measured(node)
    assert found.is_right()


def test_zeros_alone_are_unmeasurable_and_not_zero(make_node: MakeNode) -> None:
    node = make_node(A100)
    node.fault("zero counter")
    node.fault("zero power")
    found = measured(node, 0.5).recording
    assert found.kind == "unmeasurable"
    assert [part.energy_j for part in found.components] == [None]


def test_a_counter_that_starts_again_in_the_window_is_said_so(make_node: MakeNode) -> None:
    node = make_node(A100)
    found = measured(node, during=node.reset_counter)
    assert "counter_reset" in found.recording.flags
    assert found.recording.total_j is None or found.is_right()


def test_a_device_that_is_lost_in_the_window_is_unmeasurable(make_node: MakeNode) -> None:
    node = make_node(A100, A100)
    with running(node) as source:
        found = window(source, node, during=lambda: node.lose(1))
        again = window(source, node, 0.3)

    for recording in (found.recording, again.recording):
        assert recording.kind == "unmeasurable"
        assert recording.total_j is None
        assert recording.components[1].energy_j is None
        assert "no longer answered when the window ended (GPU is lost)" in " ".join(recording.notes)
    assert found.is_right(0)


def test_a_device_that_is_lost_after_the_window_keeps_its_figure(make_node: MakeNode) -> None:
    node = make_node(A100)

    def lose_soon() -> None:
        node.lose(at_s=time.monotonic() + 0.4)

    found = measured(node, after=lose_soon)
    assert found.is_right()
    assert "GPU is lost" in " ".join(found.recording.notes)


def test_reads_that_fail_for_a_while_leave_a_gap_and_no_wrong_number(make_node: MakeNode) -> None:
    node = make_node(A100)

    def fail_for_a_while() -> None:
        now_s = time.monotonic()
        node.fail("*", UNKNOWN, from_s=now_s, until_s=now_s + 0.6)

    found = measured(node, 2.0, during=fail_for_a_while)
    assert "sampling_gap" in found.recording.flags
    assert found.is_right()


@pytest.mark.parametrize("profile", [A100, PASCAL_P100], ids=["counter", "power"])
def test_a_read_that_blocks_for_two_seconds_is_flagged(
    make_node: MakeNode, profile: DeviceProfile
) -> None:
    node = make_node(profile)
    found = measured(node, 4.0, during=lambda: node.stall(2.0))
    assert {"stalled_reads", "sampling_gap"} <= set(found.recording.flags)
    assert found.recording.total_j is None or found.is_right()


def test_a_read_that_blocks_over_the_end_of_the_window_does_not_hang(make_node: MakeNode) -> None:
    node = make_node(A100)
    with running(node) as source:
        found = window(source, node, 2.0, after=lambda: node.stall(2.0))
        later = [window(source, node, 1.0) for _ in range(2)]

    assert "stalled_reads" in found.recording.flags
    assert found.recording.total_j is None or found.is_right()
    # The source goes on; beside other tests one of the windows may lack readings at its ends.
    told = [one for one in later if one.recording.total_j is not None]
    assert told
    assert all(one.is_right() for one in told)


def test_one_client_stays_so_that_counters_go_on(make_node: MakeNode) -> None:
    node = make_node(A100, persistence_mode=0)
    brief = "import pynvml\npynvml.nvmlInit()\npynvml.nvmlShutdown()\nanswer = 1"
    found = measured(node, 1.5, during=lambda: ask_on(node, brief))
    assert found.is_right()
    assert "counter_reset" not in found.recording.flags
    assert found.recording.device_state[0].persistence_mode is False


def test_a_foreign_process_that_appears_is_named(make_node: MakeNode) -> None:
    node = make_node(A100, A100)
    with running(node) as source:
        found = window(source, node, during=lambda: node.add_process(1, 1)).recording

    assert [state.foreign_pids for state in found.device_state] == [(), (1,)]
    assert "foreign_process" in found.flags
    assert "processes_unknown" not in found.flags
    assert f"{node.uuid(1)}: others computed on it as well (process 1)" in found.notes


def test_the_experiment_and_what_it_started_are_no_foreigners(make_node: MakeNode) -> None:
    node = make_node(A100)
    with subprocess.Popen(["sleep", "60"]) as engine:
        node.add_process(os.getpid())
        node.add_process(engine.pid)
        found = measured(node, 0.3).recording
        engine.kill()

    assert found.device_state[0].foreign_pids == ()
    assert not {"foreign_process", "processes_unknown"} & set(found.flags)


def test_processes_that_may_not_be_seen_are_unknown(make_node: MakeNode) -> None:
    node = make_node(A100)
    node.fail(PROCESSES_FUNCTION, NO_PERMISSION)
    found = measured(node, 0.3).recording
    assert found.device_state[0].foreign_pids is None
    assert "processes_unknown" in found.flags


def test_in_a_container_foreign_ids_mean_nothing(make_node: MakeNode) -> None:
    node = make_node(A100)
    node.add_process(4_000_000)
    with running(node, host_pids=False) as source:
        found = window(source, node, 0.3).recording
        node.add_process(os.getpid())
        own = window(source, node, 0.3).recording

    assert found.device_state[0].foreign_pids is None
    assert "processes_unknown" in found.flags
    assert own.device_state[0].foreign_pids == (4_000_000,)


def test_heat_clocks_and_limits_are_in_the_state(make_node: MakeNode) -> None:
    node = make_node(A100, limit_w=300.0)

    def slow_down() -> None:
        now_s = time.monotonic()
        node.throttle(HW_SLOWDOWN, from_s=now_s, until_s=now_s + 0.2)

    state = measured(node, during=slow_down).recording.device_state[0]
    assert (state.power_limit_w, state.power_limit_default_w) == (300.0, 400.0)
    assert state.persistence_mode is True
    assert state.start_c is not None
    assert state.end_c is not None
    assert state.end_c > state.start_c
    assert 9 <= state.state_samples <= 60
    assert 2 <= state.clock_events["hardware_slowdown"] <= 12
    assert 1410 * 0.7 < state.clock_sm_mhz < 1410


def test_load_in_step_with_a_sensor_that_looks_part_time_is_flagged(make_node: MakeNode) -> None:
    node = make_node(A100_PART_TIME)
    with running(node) as source:
        began_ns = time.monotonic_ns()
        steps = range(began_ns, began_ns + 10_000_000_000, 100_000_000)
        found = window(source, node, 2.0, steps=lambda: steps)
        plain = window(source, node, 2.0)

    assert "aliasing_risk" in found.recording.flags
    assert "aliasing_risk" not in plain.recording.flags
    assert found.recording.interval_j is None or (
        found.recording.interval_j > plain.recording.interval_j
    )


def test_an_unknown_device_ends_the_start_with_the_reason(make_node: MakeNode) -> None:
    make_node(A100)
    source = NVMLSource(DeviceTarget("gpu", ("GPU-nobody",)), RATES)
    with pytest.raises(BackendError, match="NVMLError_NotFound"):
        source.start()
    source.stop()


# ---- what the source says before it reads --------------------------------------------------

COVERAGE = """
import os
from unittest.mock import patch
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.domain.environment import DeviceTarget
answer = []
for kind, uuids, environ in given:
    with patch.dict(os.environ, environ):
        found = NVMLSource.coverage(DeviceTarget(kind, tuple(uuids)))
    answer.append([found.kind, found.scope, found.remedy])
"""
Said = tuple[str | None, str, str]


def coverage(node: SimulatedNode, *uuids: str, kind: str = "gpu", **environ: str) -> Said:
    [(found, scope, remedy)] = ask_on(node, COVERAGE, [(kind, uuids, {})], environ)
    return found, scope, remedy


def coverages(node: SimulatedNode, *targets: Sequence[str]) -> Iterator[Said]:
    """Ask about several targets in one process, whose start costs the most."""
    yield from ask_on(node, COVERAGE, [("gpu", uuids, {}) for uuids in targets])


def test_a_device_that_nvml_shows_is_covered(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [Board(A100), Board(PASCAL_P100)])
    one, two = node.uuid(0), node.uuid(1)
    alone, (kind, scope, _) = coverages(node, [one], [one, two])
    assert alone[:2] == ["measured", "the GPU that does the work"]
    assert kind == "measured"
    assert scope.startswith("the 2 GPUs that do the work, by power readings")


def test_work_on_a_cpu_is_not_covered(tmp_path: Path) -> None:
    kind, scope, remedy = coverage(SimulatedNode(tmp_path), kind="cpu")
    assert kind is None
    assert "covers no device that did the work" in scope
    assert "rapl" in remedy


def test_a_device_that_nvml_does_not_show_is_named_with_those_it_shows(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [Board(), Board()])
    kind, scope, remedy = coverage(node, node.uuid(1), "GPU-nobody")
    assert kind is None
    assert scope.startswith("NVML shows no such GPU: GPU-nobody; it shows GPU-0000")
    assert remedy == "check nvidia-smi -L"


def test_mig_is_refused_for_slices_and_their_gpu(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [Board(settings={"mig_mode": 1, "mig_slices": 2}), Board()])
    *sliced, whole = coverages(node, [node.uuid(0)], ["MIG-1234"], ["GPU-MIG-1234"], [node.uuid(1)])
    for kind, scope, remedy in sliced:
        assert kind is None
        assert "a slice has no energy of its own" in scope
        assert "nvidia-smi -mig 0" in remedy
    assert whole[0] == "measured"


AUTO = """
from llenergymeasure.core.energy import get_active_energy_backend
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.domain.environment import DeviceTarget
targets = [DeviceTarget("gpu", (uuid,)) for uuid in given]
found = [get_active_energy_backend("auto", target, SamplingRates()) for target in targets]
answer = [[one.name, one.reason] for one in found]
"""


def test_auto_has_no_figure_for_a_slice_whatever_is_installed(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"  # by which CodeCarbon decides to look for GPUs
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    node = SimulatedNode(tmp_path, [Board(settings={"mig_mode": 1, "mig_slices": 2})])
    for name, reason in ask_on(node, AUTO, [node.uuid(0), "MIG-1234"], path):
        assert name == "none"
        assert "a slice has no energy of its own" in reason


def test_a_driver_without_a_device_covers_nothing(tmp_path: Path) -> None:
    kind, scope, _ = coverage(SimulatedNode(tmp_path, []), "GPU-nobody")
    assert (kind, scope) == (None, "NVML shows no GPU: NVML sees no GPU")


@pytest.mark.parametrize(
    ("code", "reason"),
    [(DRIVER_NOT_LOADED, "Driver Not Loaded"), (NO_PERMISSION, "Insufficient Permissions")],
)
def test_a_driver_that_refuses_covers_nothing(tmp_path: Path, code: int, reason: str) -> None:
    node = SimulatedNode(tmp_path)
    node.fail("nvmlInit", code)
    kind, scope, remedy = coverage(node, node.uuid())
    assert kind is None
    assert reason in scope
    assert remedy == "install the GPU driver"


def test_a_machine_without_the_driver_covers_nothing(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path)
    empty = tmp_path / "no-driver"
    empty.mkdir()
    (empty / "libnvidia-ml.so.1").touch()  # hides a real one
    kind, scope, remedy = coverage(node, node.uuid(), LD_LIBRARY_PATH=str(empty))
    assert kind is None
    assert "NVML Shared Library Not Found" in scope
    assert remedy == "install the GPU driver"


def test_a_lost_device_is_not_covered(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [Board(), Board()])
    node.lose(0, at_s=0.0)
    (kind, scope, _), other = coverages(node, [node.uuid(0)], [node.uuid(1)])
    assert kind is None
    assert "GPU is lost" in scope
    assert other[0] == "measured"


def test_a_device_that_tells_neither_energy_nor_power_is_not_covered(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [Board(PASCAL_P100)])
    node.fail(POWER_USAGE, NOT_SUPPORTED)
    node.fail("field:186", NOT_SUPPORTED)
    kind, scope, _ = coverage(node, node.uuid())
    assert kind is None
    assert "neither energy nor power" in scope


# ---- which device --------------------------------------------------------------------------

READ_EACH = """
import os
from unittest.mock import patch
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.environment import DeviceTarget
answer = []
for uuids, environ in given:
    with patch.dict(os.environ, environ):
        source = NVMLSource(DeviceTarget("gpu", tuple(uuids)), SamplingRates())
        source.start()
        source.open_window()
        t0_ns = time.monotonic_ns()
        time.sleep(0.4)
        recording = source.close_window(Window(t0_ns, time.monotonic_ns()))
        source.stop()
    answer.append([[part.name[-1], recording.total_j / 0.4] for part in recording.components])
"""


@pytest.fixture
def three(tmp_path: Path) -> SimulatedNode:
    """Make devices that draw 100, 200 and 300 W."""
    node = SimulatedNode(tmp_path, [Board(V100)] * 3)
    for device in range(3):
        node.set_load(100.0 * (device + 1), device, at_s=node.epoch_s)
    return node


def test_a_named_device_is_found_whatever_cuda_calls_it(three: SimulatedNode) -> None:
    visible = [{"CUDA_VISIBLE_DEVICES": value} for value in ("2,0,1", "1", "7", "")]
    read = ask_on(three, READ_EACH, [([three.uuid(1)], environ) for environ in visible])
    assert read == [[["1", pytest.approx(200.0, rel=0.2)]]] * len(visible)


def test_without_a_name_the_visible_device_is_read(three: SimulatedNode) -> None:
    visible = (
        {"CUDA_VISIBLE_DEVICES": "GPU-00000000-0000-0000-0000-000000000002"},
        {"CUDA_VISIBLE_DEVICES": "2,9,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    )
    read = ask_on(three, READ_EACH, [([], environ) for environ in visible])
    assert read == [[["2", pytest.approx(300.0, rel=0.2)]]] * len(visible)


def test_without_a_name_a_doubtful_device_is_refused(three: SimulatedNode) -> None:
    reasons = {
        "9": "hides every GPU",
        "": "hides every GPU",
        "GPU-nobody": "hides every GPU",
        "1": "CUDA_DEVICE_ORDER=PCI_BUS_ID",
    }
    asked = [("gpu", [], {"CUDA_VISIBLE_DEVICES": visible}) for visible in reasons]
    for reason, (kind, scope, _) in zip(
        reasons.values(), ask_on(three, COVERAGE, asked), strict=True
    ):
        assert kind is None
        assert reason in scope


# ---- whole experiments ---------------------------------------------------------------------

EXPERIMENT = """
from llenergymeasure import run_experiment
result = run_experiment(**given)
answer = result.model_dump(mode="json")
"""
IDLE_OF_SCRIPT_W = 60.0


def experiment(folder: Path, profile: DeviceProfile, **fields: Any) -> tuple[SimulatedNode, Any]:
    """Run a scripted experiment of some seconds on two of three devices, which share a load log."""
    log = folder / "load.log"
    node = SimulatedNode(folder, [Board(profile, load_log=log) for _ in range(3)])
    log.write_text(f"{node.epoch_s!r} {IDLE_OF_SCRIPT_W}\n")
    script = {
        "ttft_ms": 60.0,
        "itl_ms": 13.0,
        "batch_size": 2,
        "device_uuids": [node.uuid(0), node.uuid(2)],
        "load_log": str(log),
        **fields.pop("scripted", {}),
    }
    values = {
        "model": "none",
        "backend": "scripted",
        "energy_backend": "nvml",
        "n": 10,
        "max_new_tokens": 20,
        "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
        "baseline": {"duration_seconds": 2.0},
        "window": {"min_duration_seconds": 3.0},
        "scripted": script,
    }
    homes = {name: str(folder / "home") for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME")}
    return node, ask_on(node, EXPERIMENT, {**values, **fields}, homes)


def test_a_whole_experiment_has_the_true_energy_within_its_interval(tmp_path: Path) -> None:
    node, result = experiment(tmp_path, V100)
    window, energy, baseline = result["window"], result["energy"], result["baseline"]
    t0_s, t1_s = window["t0_ns"] / 1e9, window["t1_ns"] / 1e9
    truth_j = 2 * node.true_energy_j(t0_s, t1_s)
    idle_j = 2 * IDLE_OF_SCRIPT_W * (t1_s - t0_s)

    assert (energy["source"], energy["kind"]) == ("nvml", "measured")
    assert energy["total_j"] == pytest.approx(truth_j, abs=energy["interval95_j"])
    assert energy["interval95_j"] < 0.1 * truth_j
    assert energy["scope"] == "the 2 GPUs that do the work"
    assert [part["name"] for part in energy["components"]] == [node.uuid(0), node.uuid(2)]
    for idle_w in (baseline["device_idle_w"], baseline["loaded_idle_w"]):
        assert idle_w == pytest.approx(2 * IDLE_OF_SCRIPT_W, rel=0.02)
    assert energy["adjusted_j"] == pytest.approx(
        truth_j - idle_j, abs=energy["adjusted_interval95_j"]
    )


def test_every_reading_of_an_experiment_is_kept(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    experiment(tmp_path, H100, output_dir=str(tmp_path / "results"))
    [file] = (tmp_path / "results").rglob("timeseries.parquet")
    assert set(parquet.read_table(file).to_pydict()["channel"]) == {
        *(channels.COUNTER, channels.POWER, channels.AVERAGE_POWER, channels.TEMPERATURE),
        *(channels.SM_CLOCK, channels.MEMORY_CLOCK, channels.CLOCK_EVENTS, channels.POWER_LIMIT),
        *(channels.DEFAULT_POWER_LIMIT, channels.PERSISTENCE, channels.PROCESSES),
    }


@pytest.mark.parametrize(("itl_ms", "flagged"), [(100.0, True), (37.0, False)])
def test_the_steps_of_an_experiment_tell_whether_it_keeps_step_with_its_sensor(
    tmp_path: Path, itl_ms: float, flagged: bool
) -> None:
    script = {"ttft_ms": itl_ms, "itl_ms": itl_ms}
    off = {"enabled": False}
    _, result = experiment(tmp_path, A100_PART_TIME, n=2, baseline=off, scripted=script)
    assert ("aliasing_risk" in result["energy"]["flags"]) is flagged


def test_the_conformance_test_of_sources_passes_with_a_device(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "-k", "nvml"),
            "tests/integration/test_energy_conformance.py",
        ],
        env=environment(node),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout, done.stdout


REFUSED = """
from llenergymeasure import run_experiment
from llenergymeasure.exceptions import PreFlightError
try:
    run_experiment(**given)
    answer = "it ran"
except PreFlightError as error:
    answer = str(error)
"""


@pytest.mark.parametrize(
    ("boards", "devices", "said"),
    [
        ([], ["GPU-nobody"], "NVML sees no GPU"),
        ([Board()], ["GPU-nobody"], "NVML shows no such GPU: GPU-nobody"),
        ([Board()], [], "covers no device that did the work"),
        ([Board(settings={"mig_mode": 1, "mig_slices": 2})], [SimulatedNode], "MIG is on"),
    ],
)
def test_a_named_source_that_covers_no_device_at_work_is_refused_before_anything_runs(
    tmp_path: Path, boards: list[Board], devices: list[Any], said: str
) -> None:
    node = SimulatedNode(tmp_path, boards)
    uuids = [node.uuid() if one is SimulatedNode else one for one in devices]
    fields = {"model": "none", "backend": "scripted", "energy_backend": "nvml", "n": 1}
    answer = ask_on(node, REFUSED, {**fields, "scripted": {"device_uuids": uuids}})

    assert said in answer
    assert "energy_backend" in answer
