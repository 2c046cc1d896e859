"""Zeus itself on simulated devices, from its device layer to a recording."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support import fake_amdsmi
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import (
    COUNTER_FUNCTION,
    HW_THERMAL,
    NOT_SUPPORTED,
    Board,
    SimulatedNode,
)
from tests.support.simulated_device.profiles import (
    A10,
    A100,
    GH200,
    H100,
    PASCAL_P100,
    V100,
    vary,
)

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

SOURCES = Path(__file__).parents[2] / "src"
# Zeus may live in an environment of its own; this names its interpreter.
ZEUS_PYTHON = os.environ.get("ZEUS_PYTHON")
POWER = "zeus: integrated power readings"
METHODS = [
    "get_name",
    "supports_get_total_energy_consumption",
    "get_total_energy_consumption",
    "get_instant_power_usage",
    "get_average_power_usage",
]

PRELUDE = """
import json, sys, time
from pathlib import Path
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.zeus import ZeusSource
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError

given = json.loads(sys.argv[1])

def work(logs, watts, seconds):
    draw(logs, watts)
    t0_ns = time.monotonic_ns()
    time.sleep(seconds)
    window = Window(t0_ns, time.monotonic_ns())
    draw(logs, 60.0)
    return window

def draw(logs, watts):
    for log in logs:
        with Path(log).open("a") as file:
            file.write(f"{time.monotonic()!r} {watts!r}\\n")

def told(recording):
    parts = [[p.name, p.energy_j, p.interval95_j, p.method] for p in recording.components]
    states = [[s.device, s.start_c, s.clock_events, s.power_limit_w, s.foreign_pids]
              for s in recording.device_state]
    return [recording.total_j, recording.kind, parts, recording.notes, recording.flags, states]
"""


@pytest.fixture(scope="module")
def python() -> str:
    if ZEUS_PYTHON is None and importlib.util.find_spec("zeus") is None:
        pytest.skip("Zeus is not installed, and ZEUS_PYTHON names no interpreter that has it")
    return ZEUS_PYTHON or sys.executable


def ask(python: str, code: str, node: SimulatedNode, given: object, **environment: str) -> Any:
    program = PRELUDE + textwrap.dedent(code) + "\nprint(json.dumps(answer))\n"
    done = subprocess.run(
        [python, "-c", program, json.dumps(given)],
        env={**os.environ, **node.environment, "PYTHONPATH": str(SOURCES), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


MEASURE = """
coverage = ZeusSource.coverage(DeviceTarget("gpu", tuple(given["uuids"])))
source = ZeusSource(DeviceTarget("gpu", tuple(given["uuids"])), SamplingRates())
source.start()
try:
    ZeusSource(DeviceTarget("gpu"), SamplingRates()).start()
except BackendError as error:
    second = str(error)
source.open_window()
window = work(given["logs"], 300.0, given["seconds"])
recording = source.close_window(window)
source.stop()
answer = [[coverage.kind, coverage.scope], window.t0_ns / 1e9, window.t1_ns / 1e9,
          told(recording), second]
"""


def measure(python: str, node: SimulatedNode, devices: list[int], **environment: str) -> Any:
    given = {
        "uuids": [node.uuid(device) for device in devices],
        "logs": [str(node.load_log(device)) for device in devices],
        "seconds": 2.0,
    }
    return ask(python, MEASURE, node, given, **environment)


def test_named_gpus_are_measured_whatever_cuda_is_told_to_see(tmp_path: Path, python: str) -> None:
    node = SimulatedNode(tmp_path, [Board(A100), Board(H100), Board(V100)])
    node.add_process(4711, device=2)
    node.throttle(HW_THERMAL, device=2)
    coverage, t0_s, t1_s, (total_j, kind, parts, _, flags, states), second = measure(
        python, node, [2, 1], CUDA_VISIBLE_DEVICES=f"{node.uuid(2)},{node.uuid(1)}"
    )

    assert coverage == ["measured", "the 2 GPUs that do the work"]
    assert kind == "measured"
    assert "already runs in this process" in second
    assert [name for name, *_ in parts] == [node.uuid(2), node.uuid(1)]
    for device, (_, energy_j, interval95_j, method) in zip((2, 1), parts, strict=True):
        true_j = node.true_energy_j(t0_s, t1_s, device)
        assert energy_j == pytest.approx(true_j, rel=0.03)
        assert abs(energy_j - true_j) < interval95_j
        assert method == "zeus: energy counter"
    assert total_j == pytest.approx(sum(part[1] for part in parts))
    assert "counter_reset" not in flags
    assert "foreign_process" in flags
    (_, start_c, events, limit_w, foreign), (_, _, quiet, _, alone) = states
    assert 20 < start_c < 90
    assert limit_w == V100.limit_w
    assert (foreign, alone) == ([4711], [])
    assert events["hardware_thermal"] > 0
    assert "hardware_thermal" not in quiet


def test_each_fault_and_each_lack_of_a_device_shows_in_its_figure(
    tmp_path: Path, python: str
) -> None:
    average_only = vary(A10, average_supported=True)
    node = SimulatedNode(
        tmp_path,
        [
            Board(PASCAL_P100),
            Board(average_only),
            Board(A100),
            Board(A100),
            Board(A100),
            Board(GH200),
        ],
    )
    for device in (1, 2):
        node.fail(COUNTER_FUNCTION, NOT_SUPPORTED, device=device)
    code = """
    target = DeviceTarget("gpu", tuple(given["uuids"]))
    source = ZeusSource(target, SamplingRates())
    source.start()
    source.open_window()
    with Path(given["faults"]).open("a") as faults:
        faults.write(f"3 {time.monotonic() + 1.0!r} inf fail * 15\\n")
        faults.write(f"4 {time.monotonic() + 1.0!r} inf reset\\n")
    window = work(given["logs"], 250.0, 2.0)
    answer = [window.t0_ns / 1e9, window.t1_ns / 1e9, told(source.close_window(window))]
    source.stop()
    """
    given = {
        "uuids": [node.uuid(device) for device in range(6)],
        "logs": [str(node.load_log(device)) for device in range(6)],
        "faults": str(tmp_path / "faults"),
    }
    t0_s, t1_s, (total_j, kind, parts, notes, flags, _) = ask(python, code, node, given)

    assert (total_j, kind) == (None, "unmeasurable"), notes
    energies = [part[1] for part in parts]
    assert energies[3] is None
    for device, source in [(0, POWER), (2, POWER), (4, POWER), (5, "zeus: energy counter")]:
        true_j = node.true_energy_j(t0_s, t1_s, device)
        assert energies[device] == pytest.approx(true_j, rel=0.05)
        assert abs(energies[device] - true_j) < parts[device][2]
        assert parts[device][3] == source
    assert energies[1] is None or energies[1] == pytest.approx(500.0, rel=0.2)
    assert "one_second_average" in flags
    said = "\n".join(notes)
    assert f"{node.uuid(0)}: no energy counter" in said
    assert f"{node.uuid(2)}: no energy counter (Not Supported)" in said
    assert f"{node.uuid(3)}: it no longer answered when the window ended" in said
    assert "counter_reset" in flags
    assert f"{node.uuid(5)}: the readings are those of the whole Grace Hopper module" in said


def test_a_device_that_is_not_there_or_is_sliced_is_not_covered(
    tmp_path: Path, python: str
) -> None:
    node = SimulatedNode(tmp_path, [Board(A100), Board(A100, settings={"mig_mode": 1})])
    code = """
    answer = []
    for uuid in given:
        covered = ZeusSource.coverage(DeviceTarget("gpu", (uuid,)))
        answer.append([covered.kind, covered.scope])
    """
    fine, absent, sliced = ask(python, code, node, [node.uuid(0), "GPU-nobody", node.uuid(1)])

    assert fine == ["measured", "the GPU that does the work"]
    assert absent[0] is None
    assert "no such GPU: GPU-nobody" in absent[1]
    assert sliced[0] is None
    assert "MIG is on" in sliced[1]


CHOSEN = """
from llenergymeasure.core.energy import energy_problems, get_active_energy_backend
target = DeviceTarget("gpu", tuple(given))
selection = get_active_energy_backend("auto", target, SamplingRates())
selection.source.start()
selection.source.stop()
answer = [selection.name, [problem.what for problem in energy_problems("zeus", target)]]
"""


def test_a_device_that_zeus_sees_but_cannot_read_goes_to_nvml(tmp_path: Path, python: str) -> None:
    node = SimulatedNode(tmp_path, [Board(PASCAL_P100), Board(A100)])
    for field in ("field:186", "field:185"):
        node.fail(field, NOT_SUPPORTED)

    assert ask(python, CHOSEN, node, [node.uuid(1)]) == ["zeus", []]
    name, problems = ask(python, CHOSEN, node, [node.uuid(0)])
    assert name == "nvml"
    assert [node.uuid(0) in problem for problem in problems] == [True]


def test_a_machine_without_a_driver_is_told_so(tmp_path: Path, python: str) -> None:
    node = SimulatedNode(tmp_path, [Board(A100)])
    node.fail("nvmlInit", 9)
    code = """
    covered = ZeusSource.coverage(DeviceTarget("gpu", ("GPU-a",)))
    answer = [covered.kind, covered.scope, covered.remedy]
    try:
        ZeusSource(DeviceTarget("gpu", ("GPU-a",)), SamplingRates()).start()
    except BackendError as error:
        answer.append(str(error))
    """
    kind, scope, remedy, refused = ask(python, code, node, None)

    assert kind is None
    assert "Zeus sees no GPU" in scope
    assert "driver" in remedy
    assert "Failed to initialize GPU management library" in refused


AMD = """
target = DeviceTarget("gpu", tuple(given))
covered = ZeusSource.coverage(target)
source = ZeusSource(target, SamplingRates())
source.start()
source.open_window()
recording = source.close_window(work([], 0.0, 1.0))
source.stop()
answer = [[covered.kind, covered.scope], told(recording)]
"""


@pytest.mark.parametrize(
    ("uuids", "watts"),
    [
        (["GPU-31386539-6661-3564-3963-366131623263"], [100]),  # as PyTorch prints HIP's UUID
        (["GPU-08e9fa5d9c6a1b2c"], [300]),
        (["GPU-of-some-name", "GPU-of-another"], [100, 300]),
        ([], [100, 300]),
    ],
)
def test_amd_gpus_are_measured_where_zeus_sees_them(
    tmp_path: Path, python: str, uuids: list[str], watts: list[int]
) -> None:
    node = SimulatedNode(tmp_path, [])
    node.fail("nvmlInit", 9)
    (tmp_path / "amd").mkdir()
    shutil.copy(Path(fake_amdsmi.__file__), tmp_path / "amd" / "amdsmi.py")
    path = os.pathsep.join([str(tmp_path / "amd"), str(SOURCES)])
    covered, (total_j, kind, parts, notes, _, states) = ask(
        python, AMD, node, uuids, PYTHONPATH=path, **({"HIP_VISIBLE_DEVICES": "1"} if uuids else {})
    )

    assert covered[0] == "measured", covered
    assert kind == "measured", notes
    assert [part[1] for part in parts] == [pytest.approx(w, rel=0.02) for w in watts]
    assert total_j == pytest.approx(sum(watts), rel=0.02)
    assert {part[3] for part in parts} == {"zeus: energy counter"}
    assert states == []


def test_zeus_still_has_the_methods_that_are_called(tmp_path: Path, python: str) -> None:
    code = """
    import inspect
    from zeus.device.gpu.amd import AMDGPU
    from zeus.device.gpu.nvidia import NVIDIAGPU
    answer = [str(inspect.signature(getattr(kind, name)))
              for kind in (NVIDIAGPU, AMDGPU) for name in given]
    """
    shown = ask(python, code, SimulatedNode(tmp_path), METHODS)

    assert shown == ["(self) -> 'str'", "(self) -> 'bool'", *["(self) -> 'int'"] * 3] * 2
