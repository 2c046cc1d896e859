"""RAPL from a powercap tree to a recording, with real processes and a counter that moves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from llenergymeasure.core.energy.estimation.sensor import unwrap
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.rapl import RaplSource
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError
from tests.support.powercap import Meter, make_package

KILOJOULE_UJ = 1_000_000_000
NOBODY = 65534


def source_of(root: Path) -> RaplSource:
    return RaplSource(DeviceTarget("cpu"), SamplingRates(), root=root)


def record(source: RaplSource, seconds: float) -> tuple[Window, EnergyRecording]:
    source.open_window()
    t0_ns = time.monotonic_ns()
    time.sleep(seconds)
    window = Window(t0_ns, time.monotonic_ns())
    return window, source.close_window(window)


def children() -> set[psutil.Process]:
    """Give what this process has started, what earlier tests left included."""
    return set(psutil.Process().children())


@pytest.fixture
def stopping() -> Iterator[list[RaplSource]]:
    sources: list[RaplSource] = []
    before = children()
    yield sources
    for source in sources:
        source.stop()
    assert children() <= before


def test_two_packages_that_wrap_again_and_again_are_exact(tmp_path, stopping):
    package_0, memory_0, psys = make_package(tmp_path, 0, "dram", "psys", range_uj=KILOJOULE_UJ)
    package_1, core_1 = make_package(tmp_path, 1, "core", range_uj=KILOJOULE_UJ)
    power_w = {package_0: 1500.0, memory_0: 20.0, psys: 9e3, package_1: 1000.0, core_1: 900.0}
    source = source_of(tmp_path)
    stopping.append(source)
    with Meter(power_w, KILOJOULE_UJ - 40_000_000, KILOJOULE_UJ) as meter:
        source.start()
        window, recording = record(source, 2.0)

    assert recording.kind == "measured"
    assert recording.total_j == pytest.approx(2520.0 * window.seconds, rel=0.02)
    assert [part.name for part in recording.components] == ["package-0", "package-1", "dram-0"]
    for name, path in {"package-0": package_0, "package-1": package_1, "dram-0": memory_0}.items():
        values = [int(r.value) for r in recording.readings if r.device == name]
        _assert_exact(values, meter.written[path])
    package = [r.value for r in recording.readings if r.device == "package-0"]
    assert sum(later < earlier for earlier, later in pairwise(package)) >= 3


def _assert_exact(seen_uj: list[int], written_uj: list[int]) -> None:
    """Each reading, unwrapped, is a value that was written, to the microjoule."""
    unwrapped = unwrap(seen_uj, KILOJOULE_UJ)
    known = set(written_uj)
    first = next(total for total in written_uj if total % KILOJOULE_UJ == seen_uj[0])
    assert all(first + int(passed) in known for passed in unwrapped - unwrapped[0])


def test_a_source_gives_several_windows_and_starts_again(tmp_path, stopping):
    (counter,) = make_package(tmp_path, 0)
    source = source_of(tmp_path)
    stopping.append(source)
    with Meter({counter: 50.0}, 7, 262_143_328_850):
        for _ in range(2):
            source.start()
            for seconds in (0.3, 0.2):
                window, recording = record(source, seconds)
                assert recording.source == "rapl"
                assert recording.total_j == pytest.approx(50.0 * window.seconds, rel=0.1)
            source.stop()


def test_a_counter_that_disappears_in_the_window_leaves_a_reason_and_no_figure(tmp_path, stopping):
    counter, memory = make_package(tmp_path, 0, "dram")
    source = source_of(tmp_path)
    stopping.append(source)
    with Meter({counter: 50.0, memory: 5.0}, 7, 262_143_328_850):
        source.start()
        source.open_window()
        t0_ns = time.monotonic_ns()
        time.sleep(0.1)
        memory.unlink()
        time.sleep(0.1)
        recording = source.close_window(Window(t0_ns, time.monotonic_ns()))

    assert recording.total_j is None
    assert recording.kind == "unmeasurable"
    assert "dram-0: its counter cannot be read: [Errno 2] No such file" in recording.notes[0]


def test_a_counter_that_starts_again_in_the_window_leaves_a_reason_and_no_figure(
    tmp_path, stopping
):
    (counter,) = make_package(tmp_path, 0)
    source = source_of(tmp_path)
    stopping.append(source)
    source.start()
    with Meter({counter: 50.0}, 80 * KILOJOULE_UJ, 262_143_328_850):
        source.open_window()
        t0_ns = time.monotonic_ns()
        time.sleep(0.1)
    with Meter({counter: 50.0}, 0, 262_143_328_850):
        time.sleep(0.1)
        recording = source.close_window(Window(t0_ns, time.monotonic_ns()))

    assert recording.total_j is None
    assert "which is no wrap" in recording.notes[0]


def test_a_killed_sampler_leaves_a_reason_and_no_figure(tmp_path, stopping):
    make_package(tmp_path, 0)
    source = source_of(tmp_path)
    stopping.append(source)
    before = children()
    source.start()
    source.open_window()
    for child in children() - before:
        child.send_signal(signal.SIGKILL)
    t0_ns = time.monotonic_ns()
    recording = source.close_window(Window(t0_ns - 1, t0_ns))

    assert recording.total_j is None
    assert "killed by signal 9" in recording.notes[0]


def test_a_machine_without_counters_is_refused_at_the_start(tmp_path):
    before = children()
    with pytest.raises(BackendError, match="no RAPL counters under"):
        source_of(tmp_path).start()
    assert children() <= before


AS_SOMEONE_ELSE = """
import sys
from pathlib import Path
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.rapl import RaplSource, cpu_coverage
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError
root = Path(sys.argv[1])
coverage = cpu_coverage(root)
print(coverage.kind, coverage.scope, coverage.remedy, sep="|")
try:
    RaplSource(DeviceTarget("cpu"), SamplingRates(), root=root).start()
except BackendError as error:
    print(error)
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)  # unlike tmp_path, others may look into it
    yield directory
    shutil.rmtree(directory)


def test_who_may_not_read_the_counters_is_told_what_to_type(open_directory):
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads every file, and there is no setpriv to be someone else")
    for counter in make_package(open_directory, 0, "dram"):
        counter.chmod(0o400 if os.geteuid() == 0 else 0)
    shown = _as_someone_else(open_directory)

    kind, scope, remedy = shown.splitlines()[0].split("|")
    assert kind == "None"
    assert "since 5.10" in scope
    assert "Permission denied" in shown
    subprocess.run(remedy.removeprefix("sudo "), shell=True, check=True)
    for memory in open_directory.glob("*/*/energy_uj"):
        memory.chmod(0o444)  # sysfs shows it beside its package too, where the line reaches it
    assert _as_someone_else(open_directory).startswith("measured|CPU package and DRAM, 1 socket|")


def _as_someone_else(root: Path) -> str:
    other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    prefix = other if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, sys.executable, "-c", AS_SOMEONE_ELSE, str(root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if prefix and "No module named" in done.stderr:
        pytest.skip("the interpreter lies where only root may look")
    assert done.returncode == 0, done.stderr
    return done.stdout
