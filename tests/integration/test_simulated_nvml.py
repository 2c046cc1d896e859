"""The simulated NVML library under real bindings, in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.simulated_device import loads
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import (
    COUNTER_FUNCTION,
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    HW_THERMAL,
    NO_PERMISSION,
    NOT_SUPPORTED,
    PROCESSES_FUNCTION,
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

SOURCES = Path(__file__).parents[2] / "src"
# Zeus may live in an environment of its own; this names its interpreter.
ZEUS_PYTHON = os.environ.get("ZEUS_PYTHON")

PRELUDE = """
import ctypes, json, sys, time
import pynvml as nvml

def code_of(function, *arguments):
    try:
        function(*arguments)
    except nvml.NVMLError as error:
        return error.value
    return 0

def at(t_s):
    set_clock = nvml.nvmlLib.simnvmlSetClock
    set_clock.argtypes = [ctypes.c_double]
    set_clock(t_s)

def field(handle, number):
    value = nvml.nvmlDeviceGetFieldValues(handle, [number])[0]
    return value.value.uiVal if value.nvmlReturn == 0 else -value.nvmlReturn

given = json.loads(sys.argv[1])
energy = nvml.nvmlDeviceGetTotalEnergyConsumption
"""
OPEN = "nvml.nvmlInit()\nh = nvml.nvmlDeviceGetHandleByIndex(0)\n"


def _start(
    node: SimulatedNode, code: str, given: object = None, python: str = sys.executable
) -> subprocess.Popen[str]:
    program = PRELUDE + textwrap.dedent(code) + "\nprint(json.dumps(answer), flush=True)\n"
    return subprocess.Popen(
        [python, "-c", program, json.dumps(given)],
        env={**os.environ, **node.environment, "PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ask(node: SimulatedNode, code: str, given: object = None, python: str = sys.executable) -> Any:
    """Run code on a node's devices and give what it put into ``answer``."""
    out, err = _start(node, code, given, python).communicate(timeout=120)
    assert "unknown key" not in err
    assert out, err
    return json.loads(out.splitlines()[-1])


def _node(directory: Path, *profiles: DeviceProfile, **settings: float | str) -> SimulatedNode:
    return SimulatedNode(directory, [Board(profile, settings=settings) for profile in profiles])


def _busy(start_s: float, seconds: float) -> loads.Load:
    train = loads.request_train(start_s, start_s + seconds, request_s=0.37)
    rng = np.random.default_rng(3)
    return loads.noisy(train, 0.1, start_s, start_s + seconds, rng, every_s=0.007)


SENSORS = {
    "a100": vary(A100, counter_phase_s=0.033, power_phase_s=0.071, tick_jitter_s=0.004),
    "part time": vary(A100_PART_TIME, tick_jitter_s=0.003, gain=1.044, offset_w=-3.0),
    "lagging": vary(V100, rise_s=0.05, lag_s=0.013, noise_w=7.0),
    "averaging": vary(RTX_4090, noise_w=3.0, counter_gain=1.07),
    "slow part time": vary(H100, part_time=0.25, rise_s=0.03, lag_s=0.017, counter_phase_s=0.09),
}


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_library_publishes_what_its_twin_publishes(tmp_path: Path, sensor: str) -> None:
    board = Board(SENSORS[sensor], seed=11)
    node = SimulatedNode(tmp_path, [board])
    node.play(_busy(node.epoch_s + 1.0, 30.0))
    times_s = np.sort(np.random.default_rng(5).uniform(0.0, 35.0, 300)) + node.epoch_s
    shown = _ask(
        node,
        OPEN
        + """
answer = []
for t_s in given:
    at(t_s)
    values = energy(h), nvml.nvmlDeviceGetPowerUsage(h), field(h, 186), field(h, 185), field(h, 83)
    answer.append(values)
""",
        times_s.tolist(),
    )
    counter, usage, instant, average, _ = np.array(shown).T
    twin = node.twin()
    assert np.array_equal(counter, twin.counter_mj(times_s))
    assert np.array_equal(usage, twin.power_usage_mw(times_s))
    assert np.array_equal(instant, twin.power_mw(times_s))
    if board.profile.average_supported:
        assert np.array_equal(average, twin.average_power_mw(times_s))
    else:
        assert set(average) == {-NOT_SUPPORTED}


def test_the_library_follows_the_real_clock(tmp_path: Path) -> None:
    node = _node(tmp_path, vary(V100, tick_jitter_s=0.002))
    node.play(_busy(time.monotonic() + 0.4, 1.0))
    reads = _ask(
        node,
        OPEN
        + """
answer = []
end_s = time.monotonic() + 1.5
while time.monotonic() < end_s:
    before_s = time.monotonic()
    value_mj = energy(h)
    answer.append((before_s, value_mj, time.monotonic()))
    time.sleep(0.003)
""",
    )
    before_s, value_mj, after_s = np.array(reads).T
    twin = node.twin()
    assert np.all(np.diff(value_mj) >= 0)
    assert len(set(value_mj)) > 10
    assert np.all((twin.counter_mj(before_s) <= value_mj) & (value_mj <= twin.counter_mj(after_s)))


def test_long_windows_hold_the_true_energy_times_the_gain(tmp_path: Path) -> None:
    node = _node(tmp_path, vary(A100, gain=0.95), vary(A100_PART_TIME, gain=1.05))
    for device in (0, 1):
        node.play(_busy(node.epoch_s + 5.0, 595.0), device)
    window_s = (node.epoch_s + 0.05, node.epoch_s + 610.05)
    shown = _ask(
        node,
        """
nvml.nvmlInit()
handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in (0, 1)]
answer = []
for t_s in given:
    at(t_s)
    answer.append([energy(h) for h in handles])
""",
        window_s,
    )
    full_j, sampled_j = (np.array(shown[1]) - np.array(shown[0])) / 1000.0
    # At most a tick of 60 W separates a window from its ticks.
    assert full_j == pytest.approx(0.95 * node.true_energy_j(*window_s, device=0), abs=10.0)
    assert sampled_j == pytest.approx(1.05 * node.true_energy_j(*window_s, device=1), rel=0.01)


def test_lines_of_the_log_that_come_late_change_nothing_that_was_published(
    tmp_path: Path,
) -> None:
    node = _node(tmp_path, A100)
    node.set_load(100.0, at_s=node.epoch_s + 1.0)
    node.set_load(300.0, at_s=node.epoch_s + 2.0)
    shown = _ask(
        node,
        OPEN
        + """
epoch_s, log = given
def read():
    return [energy(h), nvml.nvmlDeviceGetPowerUsage(h)]
def write(line):
    with open(log, "a") as file:
        file.write(line)
times_s = [epoch_s + 1.5, epoch_s + 1.99, epoch_s + 5.0]
answer = []
for t_s in times_s:
    at(t_s)
    answer.append(read())
write(f"{epoch_s + 1.2} 5000\\n")  # older than the line before it
write(f"{epoch_s + 4.9} 300")  # not finished
answer.append(read())
write("0\\n")
answer.append(read())
for t_s in times_s[:2]:
    at(t_s)
    answer.append(read())
""",
        (node.epoch_s, str(node.load_log())),
    )
    first, second, third, *again = shown
    assert again == [third, third, first, second]


def test_a_node_has_devices_with_loads_of_their_own(tmp_path: Path) -> None:
    node = _node(tmp_path, *[A100] * 4)
    for device in range(4):
        node.set_load(100.0 * (device + 1), device, at_s=node.epoch_s)
    shown = _ask(
        node,
        """
nvml.nvmlInit()
at(given[0] + 3.0)
handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in given[1]]
answer = [nvml.nvmlDeviceGetCount(), [nvml.nvmlDeviceGetPowerUsage(h) for h in handles],
          [nvml.nvmlDeviceGetIndex(h) for h in handles],
          [nvml.nvmlDeviceGetPciInfo(h).busId for h in handles],
          code_of(nvml.nvmlDeviceGetHandleByUUID, "GPU-nobody"),
          code_of(nvml.nvmlDeviceGetHandleByIndex, 4)]
""",
        (node.epoch_s, [node.uuid(device) for device in (3, 0, 2, 1)]),
    )
    assert shown[:3] == [4, [400_000, 100_000, 300_000, 200_000], [3, 0, 2, 1]]
    assert len(set(shown[3])) == 4
    assert shown[4:] == [6, 2]


def test_devices_can_share_a_log(tmp_path: Path) -> None:
    log = tmp_path / "shared.log"
    node = SimulatedNode(tmp_path, [Board(load_log=log), Board(vary(V100, gain=2.0), load_log=log)])
    node.set_load(200.0, at_s=node.epoch_s)
    code = """
nvml.nvmlInit()
at(given + 1.0)
answer = [nvml.nvmlDeviceGetPowerUsage(nvml.nvmlDeviceGetHandleByIndex(i)) for i in (0, 1)]
"""
    assert _ask(node, code, node.epoch_s) == [200_000, 400_000]


def test_a_device_from_before_the_counter_has_only_power(tmp_path: Path) -> None:
    code = OPEN + "answer = [code_of(energy, h), field(h, 83), nvml.nvmlDeviceGetPowerUsage(h)]"
    shown = _ask(_node(tmp_path, PASCAL_P100), code)
    assert shown == [NOT_SUPPORTED, -NOT_SUPPORTED, 30_000]


def test_fields_of_other_scopes_and_unknown_fields_are_refused(tmp_path: Path) -> None:
    code = """
    nvml.nvmlInit()
    h = nvml.nvmlDeviceGetHandleByIndex(0)
    values = nvml.nvmlDeviceGetFieldValues(h, [186, (186, 2), 1])
    answer = [value.nvmlReturn for value in values]
    """
    assert _ask(_node(tmp_path, H100), code) == [0, NOT_SUPPORTED, NOT_SUPPORTED]


def test_a_device_with_only_an_average_has_no_instantaneous_power(tmp_path: Path) -> None:
    node = _node(tmp_path, A10)
    node.set_load(150.0, at_s=node.epoch_s + 2.0)
    code = OPEN + "at(given + 2.55)\nanswer = [field(h, 186), nvml.nvmlDeviceGetPowerUsage(h)]"
    instant, usage = _ask(node, code, node.epoch_s)
    assert instant == -NOT_SUPPORTED
    assert 20_000 < usage < 150_000  # half a second after the step, it is on its way


Prepare = Callable[[SimulatedNode], None]
FAULTS: dict[str, tuple[Prepare, str, list[object]]] = {
    "counter denied": (
        lambda node: node.fail(COUNTER_FUNCTION, NO_PERMISSION),
        "[code_of(energy, h), code_of(nvml.nvmlDeviceGetPowerUsage, h)]",
        [NO_PERMISSION, 0],
    ),
    "power not supported": (
        lambda node: node.fail("nvmlDeviceGetPowerUsage", NOT_SUPPORTED),
        "[code_of(energy, h), code_of(nvml.nvmlDeviceGetPowerUsage, h)]",
        [0, NOT_SUPPORTED],
    ),
    "field denied": (
        lambda node: node.fail("field:186", NO_PERMISSION),
        "[field(h, 186), nvml.nvmlDeviceGetPowerUsage(h)]",
        [-NO_PERMISSION, 60_000],
    ),
    "counter reads zero": (
        lambda node: node.fault("zero counter"),
        "[energy(h), field(h, 83), nvml.nvmlDeviceGetPowerUsage(h)]",
        [0, 0, 60_000],
    ),
    "power reads zero": (
        lambda node: node.fault("zero power"),
        "[energy(h) > 0, field(h, 186), nvml.nvmlDeviceGetPowerUsage(h)]",
        [True, 0, 0],
    ),
    "foreign process": (
        lambda node: node.add_process(4711, mib=2048),
        "[(p.pid, p.usedGpuMemory >> 20) for p in nvml.nvmlDeviceGetComputeRunningProcesses(h)]",
        [[4711, 2048]],
    ),
    "processes hidden": (
        lambda node: node.fail(PROCESSES_FUNCTION, NO_PERMISSION),
        "[code_of(nvml.nvmlDeviceGetComputeRunningProcesses, h)]",
        [NO_PERMISSION],
    ),
    "another device lost": (lambda node: node.lose(1), "[code_of(energy, h)]", [0]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_shows(tmp_path: Path, name: str) -> None:
    prepare, question, expected = FAULTS[name]
    node = _node(tmp_path, A100, A100)
    prepare(node)
    assert _ask(node, OPEN + f"answer = {question}") == expected


def test_faults_can_appear_while_a_reader_runs(tmp_path: Path) -> None:
    node = _node(tmp_path, A100)
    code = """
    nvml.nvmlInit()
    h = nvml.nvmlDeviceGetHandleByIndex(0)
    before = [code_of(energy, h), len(nvml.nvmlDeviceGetComputeRunningProcesses(h))]
    print("ready", flush=True)
    sys.stdin.readline()
    during = [code_of(energy, h), len(nvml.nvmlDeviceGetComputeRunningProcesses(h))]
    print("ready", flush=True)
    sys.stdin.readline()
    answer = [before, during, code_of(energy, h), code_of(nvml.nvmlDeviceGetHandleByIndex, 0)]
    """
    reader = _start(node, code)
    assert reader.stdout is not None
    assert reader.stdin is not None
    reader.stdout.readline()
    node.add_process(99)
    reader.stdin.write("\n")
    reader.stdin.flush()
    reader.stdout.readline()
    node.lose()
    out, err = reader.communicate("\n", timeout=60)
    assert json.loads(out) == [[0, 0], [0, 1], GPU_IS_LOST, GPU_IS_LOST], err


def test_a_counter_reset_starts_from_zero_and_counts_on(tmp_path: Path) -> None:
    node = _node(tmp_path, A100, A100_PART_TIME)
    for device in (0, 1):
        node.set_load(100.0, device, at_s=node.epoch_s)
        node.reset_counter(device, at_s=node.epoch_s + 10.0)
    code = """
nvml.nvmlInit()
answer = []
for i in (0, 1):
    h = nvml.nvmlDeviceGetHandleByIndex(i)
    for since_s in (9.99, 10.01, 20.01):
        at(given + since_s)
        answer.append(energy(h))
"""
    shown = _ask(node, code, node.epoch_s)
    for before, at_reset, later in (shown[:3], shown[3:]):
        assert before > 123_456_789
        assert at_reset <= 10_000
        assert later - at_reset == pytest.approx(1_000_000, abs=10_001)


def test_a_stalled_read_returns_when_the_stall_ends(tmp_path: Path) -> None:
    node = _node(tmp_path, A100)
    code = """
    nvml.nvmlInit()
    h = nvml.nvmlDeviceGetHandleByIndex(0)
    print("ready", flush=True)
    sys.stdin.readline()
    energy(h)
    stalled = time.monotonic()
    energy(h)
    answer = [stalled, time.monotonic()]
    """
    reader = _start(node, code)
    assert reader.stdout is not None
    reader.stdout.readline()
    at_s = time.monotonic()
    node.stall(1.0, at_s=at_s)
    out, err = reader.communicate("\n", timeout=60)
    assert out, err
    stalled_s, next_s = json.loads(out)
    assert stalled_s >= at_s + 1.0
    assert next_s - stalled_s < 0.9


def test_slow_reads_take_their_time(tmp_path: Path) -> None:
    node = _node(tmp_path, A100, read_s=0.02)
    code = OPEN + "start = time.monotonic()\nenergy(h)\nanswer = time.monotonic() - start"
    assert _ask(node, code) >= 0.02


def test_a_stuck_sensor_stands_still_under_load(tmp_path: Path) -> None:
    node = _node(tmp_path, A100)
    node.set_load(300.0, at_s=node.epoch_s)
    node.fault("stuck", from_s=node.epoch_s + 5.0)
    code = OPEN + "answer = []\nfor s in (5.0, 9.0):\n    at(given + s)\n    answer += [energy(h)]"
    before, after = _ask(node, code, node.epoch_s)
    assert before == after > 123_456_789


def test_clock_events_come_and_go_and_slow_the_clock(tmp_path: Path) -> None:
    node = _node(tmp_path, A100)
    node.set_load(400.0, at_s=node.epoch_s + 1.0)
    node.throttle(HW_THERMAL, from_s=node.epoch_s + 2.0, until_s=node.epoch_s + 3.0)
    code = """
nvml.nvmlInit()
h = nvml.nvmlDeviceGetHandleByIndex(0)
answer = []
for since_s in (0.5, 1.5, 2.5, 3.5):
    at(given + since_s)
    assert nvml.nvmlDeviceGetCurrentClocksThrottleReasons(h) == (
        nvml.nvmlDeviceGetCurrentClocksEventReasons(h))
    answer.append([nvml.nvmlDeviceGetCurrentClocksEventReasons(h),
                   nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_SM)])
"""
    shown = _ask(node, code, node.epoch_s)
    assert shown == [[0x1, 210], [0x4, 1410], [0x4 | HW_THERMAL, 987], [0x4, 1410]]


def test_without_persistence_the_counter_restarts_with_the_first_client(tmp_path: Path) -> None:
    node = _node(tmp_path, A100, persistence_mode=0)
    node.set_load(400.0, at_s=node.epoch_s)
    wait = 'print("ready", flush=True)\nsys.stdin.readline()\nanswer = None'
    code = OPEN + "at(time.monotonic() + given)\nanswer = energy(h)"
    with _start(node, OPEN + wait) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        held = _ask(node, code, 5.0)
        assert _ask(node, code, 6.0) > held >= 1_900_000
        holder.communicate("\n")
    assert _ask(node, code, 0.0) <= 800_000


def test_a_mig_slice_has_no_energy_of_its_own(tmp_path: Path) -> None:
    node = _node(tmp_path, A100, mig_mode=1, mig_slices=2)
    code = (
        OPEN
        + """
s = nvml.nvmlDeviceGetMigDeviceHandleByIndex(h, 1)
uuid = nvml.nvmlDeviceGetUUID(s)
parent = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(s)
answer = [nvml.nvmlDeviceGetMigMode(h), nvml.nvmlDeviceGetCount(), uuid[:4],
          code_of(nvml.nvmlDeviceGetHandleByUUID, uuid), code_of(energy, s), code_of(energy, h),
          nvml.nvmlDeviceIsMigDeviceHandle(s).value, nvml.nvmlDeviceGetIndex(parent),
          code_of(nvml.nvmlDeviceGetMigDeviceHandleByIndex, h, 2)]
"""
    )
    assert _ask(node, code) == [[1, 1], 1, "MIG-", 0, NOT_SUPPORTED, 0, 1, 0, 6]


@pytest.mark.parametrize("code", [DRIVER_NOT_LOADED, NO_PERMISSION])
def test_the_driver_can_refuse(tmp_path: Path, code: int) -> None:
    node = _node(tmp_path, A100)
    node.fail("nvmlInit", code)
    assert _ask(node, "answer = code_of(nvml.nvmlInit)") == code


def test_a_driver_without_a_device_counts_none(tmp_path: Path) -> None:
    code = "nvml.nvmlInit()\nanswer = nvml.nvmlDeviceGetCount()"
    assert _ask(SimulatedNode(tmp_path, []), code) == 0


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    code = OPEN + "answer = code_of(nvml.nvmlDeviceSetPowerManagementLimit, h, 200000)"
    assert _ask(_node(tmp_path, A100), code) == NO_PERMISSION


def test_power_limits_are_told_apart(tmp_path: Path) -> None:
    code = (
        OPEN
        + """
answer = [nvml.nvmlDeviceGetEnforcedPowerLimit(h), nvml.nvmlDeviceGetPowerManagementLimit(h),
          nvml.nvmlDeviceGetPowerManagementDefaultLimit(h),
          *nvml.nvmlDeviceGetPowerManagementLimitConstraints(h)]
"""
    )
    shown = _ask(_node(tmp_path, A100, limit_w=250.0), code)
    assert shown == [250_000, 250_000, 400_000, 100_000, 400_000]


def test_our_survey_finds_the_devices(tmp_path: Path) -> None:
    node = _node(tmp_path, A100, GH200, limit_w=300.0)
    code = """
    from dataclasses import asdict
    from llenergymeasure.core.gpu_survey import survey_gpus
    found = survey_gpus()
    answer = [found.driver_version, found.cuda_version, found.note]
    answer += [gpu.model_dump() for gpu in found.gpus]
    """
    driver, cuda, note, first, second = _ask(node, code)
    assert (driver, cuda, note) == ("570.86.15", "12.8", None)
    assert first["uuid"] == node.uuid(0)
    assert second["name"] == GH200.name
    assert (first["power_limit_w"], first["power_limit_default_w"]) == (300.0, 400.0)
    assert None not in first.values()


def _called(directory: Path) -> set[str]:
    """List the functions of NVML that a package names."""
    texts = (path.read_text(encoding="utf-8") for path in directory.rglob("*.py"))
    return {name for text in texts for name in re.findall(r"\bnvml(?:Device|System)\w+\b", text)}


@pytest.mark.parametrize("package", ["llenergymeasure", "codecarbon"])
def test_every_nvml_function_that_a_package_calls_is_there(tmp_path: Path, package: str) -> None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    code = """
    nvml.nvmlInit()
    has = lambda name: any(hasattr(nvml.nvmlLib, name + v) for v in ("", "_v2", "_v3"))
    answer = [name for name in given if hasattr(nvml, name) and not has(name)]
    """
    names = sorted(_called(Path(spec.origin).parent))
    assert names
    assert _ask(_node(tmp_path, A100), code, names) == []


def test_codecarbon_measures_it_unmodified(tmp_path: Path) -> None:
    pytest.importorskip("codecarbon")
    node = _node(tmp_path, V100)
    node.set_load(300.0, at_s=node.epoch_s)
    code = """
    from codecarbon import OfflineEmissionsTracker
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA", measure_power_secs=1, save_to_file=False, log_level="error")
    tracker.start()
    t0_s = time.monotonic()
    time.sleep(2.5)
    t1_s = time.monotonic()
    tracker.stop()
    answer = [t0_s, t1_s, tracker.final_emissions_data.gpu_energy * 3.6e6]
    """
    t0_s, t1_s, joules = _ask(node, code)
    assert joules == pytest.approx(node.true_energy_j(t0_s, t1_s), rel=0.15)


ZEUS = """
from zeus.monitor import ZeusMonitor
monitor = ZeusMonitor(gpu_indices=[0])
monitor.begin_window("w", sync_execution=False)
t0_s = time.monotonic()
time.sleep(2.0)
t1_s = time.monotonic()
seen = monitor.end_window("w", sync_execution=False)
answer = [t0_s, t1_s, seen.gpu_energy[0]]
"""
ZEUS_DEVICES = """
import pathlib, re, zeus.device.gpu.nvidia as nvidia
from zeus.device import get_gpus
gpu = get_gpus().gpus[0]
text = pathlib.Path(nvidia.__file__).read_text()
names = set(re.findall(r"nvml(?:Device|System)\\w+", text))
nvml.nvmlInit()
has = lambda name: any(hasattr(nvml.nvmlLib, name + v) for v in ("", "_v2", "_v3"))
answer = [sorted(name for name in names if hasattr(nvml, name) and not has(name)), gpu.get_name(),
          gpu.supports_get_total_energy_consumption(), gpu.get_instant_power_usage(),
          gpu.get_power_management_limit(), gpu.get_gpu_temperature()]
"""


@pytest.fixture(scope="module")
def zeus_python() -> str:
    if ZEUS_PYTHON is None and importlib.util.find_spec("zeus") is None:
        pytest.skip("Zeus is not installed, and ZEUS_PYTHON names no interpreter that has it")
    return ZEUS_PYTHON or sys.executable


@pytest.mark.parametrize("profile", [V100, H100], ids=["V100", "H100"])
def test_zeus_measures_it_unmodified(
    tmp_path: Path, zeus_python: str, profile: DeviceProfile
) -> None:
    node = _node(tmp_path, profile)
    node.set_load(300.0, at_s=node.epoch_s)
    t0_s, t1_s, joules = _ask(node, ZEUS, python=zeus_python)
    assert joules == pytest.approx(node.true_energy_j(t0_s, t1_s), rel=0.15)


def test_zeus_finds_every_function_it_calls(tmp_path: Path, zeus_python: str) -> None:
    missing, name, counts, power_mw, limit_mw, celsius = _ask(
        _node(tmp_path, H100), ZEUS_DEVICES, python=zeus_python
    )
    assert missing == []
    assert (name, counts, power_mw, limit_mw) == (H100.name, True, 75_000, 700_000)
    assert 20 < celsius < 60
