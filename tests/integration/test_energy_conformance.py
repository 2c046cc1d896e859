"""What every energy source does, run over all that are registered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from llenergymeasure.config.energy_sources import energy_sources
from llenergymeasure.config.plugins import load_object, missing
from llenergymeasure.core.energy.protocol import EnergyBackend, SamplingRates
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

TARGETS = {"cpu": DeviceTarget("cpu"), "gpu": DeviceTarget("gpu")}
SOURCES = energy_sources()  # those of installed packages included
REGISTERED = list(SOURCES)


EARLIER: set[psutil.Process] = set()


@pytest.fixture(scope="module", autouse=True)
def earlier_children():
    """Take note of what other tests left running, such as a resource tracker."""
    EARLIER.update(psutil.Process().children(recursive=True))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child not in EARLIER]


@pytest.fixture(params=[(name, kind) for name in REGISTERED for kind in TARGETS], ids="-".join)
def source(request: pytest.FixtureRequest):
    name, kind = request.param
    entry = SOURCES[name]
    if problem := missing(entry, "energy_backend"):
        pytest.skip(str(problem))
    make = load_object(entry.implementation)
    coverage = make.coverage(TARGETS[kind])
    if coverage.kind is None:
        pytest.skip(coverage.scope)
    made = make(TARGETS[kind], SamplingRates())
    yield made
    made.stop()
    assert children() == []


def record(source: EnergyBackend, seconds: float) -> EnergyRecording:
    source.open_window()
    t0_ns = time.monotonic_ns()
    time.sleep(seconds)
    return source.close_window(Window(t0_ns, time.monotonic_ns()))


def assert_nothing_is_silently_zero(recording: EnergyRecording) -> None:
    for part in recording.components:
        assert part.energy_j is None or part.energy_j > 0
        assert (part.energy_j is None) == (part.kind == "unmeasurable")
    if recording.total_j is None:
        assert recording.kind == "unmeasurable"
    else:
        assert recording.total_j > 0


def test_two_windows_between_start_and_stop(source):
    name = source.name
    source.start()
    recordings = [record(source, 0.5), record(source, 0.5)]
    source.stop()
    source.stop()

    for recording in recordings:
        assert recording.source == name
        assert_nothing_is_silently_zero(recording)
    assert recordings[0].kind == recordings[1].kind
    assert children() == []


def test_a_source_can_be_stopped_before_it_started_and_in_a_window(source):
    source.stop()
    source.start()
    source.open_window()
    source.stop()

    assert children() == []


def test_a_source_can_be_started_again(source):
    source.start()
    source.stop()
    source.start()

    assert_nothing_is_silently_zero(record(source, 0.1))


def test_a_source_whose_process_is_killed_gives_a_reason_and_no_figure(source):
    source.start()
    source.open_window()
    sampling = children()
    if source.name == "none":
        assert not sampling
        return
    assert sampling
    for child in sampling:
        child.send_signal(signal.SIGKILL)
    t0_ns = time.monotonic_ns()
    recording = source.close_window(Window(t0_ns - 1, t0_ns))

    assert recording.kind == "unmeasurable"
    assert recording.total_j is None
    assert "killed by signal 9" in recording.notes[0]
    source.open_window()
    assert source.close_window(Window(t0_ns - 1, t0_ns)).kind == "unmeasurable"


@pytest.mark.parametrize("name", [name for name in REGISTERED if name != "none"])
def test_no_process_outlives_a_killed_parent(name):
    if problem := missing(SOURCES[name], "energy_backend"):
        pytest.skip(str(problem))
    find = load_object(SOURCES[name].implementation).coverage
    covered = {kind: find(target) for kind, target in TARGETS.items()}
    kind = next((kind for kind, found in covered.items() if found.kind is not None), None)
    if kind is None:
        pytest.skip("; ".join(found.scope for found in covered.values()))
    script = (
        "import time, psutil\n"
        "from llenergymeasure.config.energy_sources import energy_sources\n"
        "from llenergymeasure.config.plugins import load_object\n"
        "from llenergymeasure.core.energy.protocol import SamplingRates\n"
        "from llenergymeasure.domain.environment import DeviceTarget\n"
        f"make = load_object(energy_sources()[{name!r}].implementation)\n"
        f"source = make(DeviceTarget({kind!r}), SamplingRates())\n"
        "source.start(); source.open_window()\n"
        "print(*[c.pid for c in psutil.Process().children(recursive=True)], flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        sampling = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(sampling, timeout=3)

    assert sampling
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
