"""CodeCarbon itself, as it is installed here: offline, without files, in proportion to time."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llenergymeasure.core.energy.codecarbon import READER, CodeCarbonSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.sampler import SamplerProcess
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

if importlib.util.find_spec("codecarbon") is None:
    pytest.skip("codecarbon is not installed", allow_module_level=True)

NVML = Path(__file__).parents[1] / "support" / "simulated_nvml"

HOSTILE = "[codecarbon]\nforce_ram_power=12345\npue=9\noutput_methods=csv\nsave_to_file=true\n"

# Notes every attempt in a file, because CodeCarbon swallows the exception.
NO_NETWORK = """
import os, pathlib, socket
notes = pathlib.Path(os.environ["NETWORK_NOTES"])
with notes.open("a") as file: file.write("watching\\n")
def refuse(*args, **kwargs):
    with notes.open("a") as file: file.write(f"attempt {args[:2]}\\n")
    raise OSError("no network in this test")
socket.getaddrinfo = refuse
class Socket(socket.socket):
    def connect(self, address):
        refuse(address)
socket.socket = Socket
"""

RUN = """
import json, sys, time
from llenergymeasure.core.energy.codecarbon import CodeCarbonSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.environment import DeviceTarget
source = CodeCarbonSource(DeviceTarget("cpu"), SamplingRates())
source.start()
source.open_window()
t0 = time.monotonic_ns()
time.sleep(1.0)
recording = source.close_window(Window(t0, time.monotonic_ns()))
source.stop()
print(json.dumps({part.name: part.energy_j for part in recording.components}))
"""


@pytest.fixture
def on_cpu() -> Iterator[CodeCarbonSource]:
    source = CodeCarbonSource(DeviceTarget("cpu"), SamplingRates())
    source.start()
    yield source
    source.stop()


def record(source: CodeCarbonSource, seconds: float) -> EnergyRecording:
    source.open_window()
    t0_ns = time.monotonic_ns()
    time.sleep(seconds)
    return source.close_window(Window(t0_ns, time.monotonic_ns()))


def energies(recording: EnergyRecording) -> dict[str, float | None]:
    return {part.name: part.energy_j for part in recording.components}


def test_energy_is_modelled_not_zero_and_in_proportion_to_time(on_cpu):
    # One second is the period at which CodeCarbon's own scheduler would count twice.
    seconds = (0.3, 1.0, 2.0)
    recordings = [record(on_cpu, length) for length in seconds]

    assert {recording.kind for recording in recordings} == {"modelled"}
    assert all(recording.total_j > 0 for recording in recordings)
    assert all(recording.interval_j is None for recording in recordings)
    assert all(recording.codecarbon_grams > 0 for recording in recordings)
    ram_w = [energies(r)["ram"] / length for r, length in zip(recordings, seconds, strict=True)]
    assert max(ram_w) < 1.2 * min(ram_w)


def test_constant_power_is_that_of_the_window_however_short(on_cpu):
    """CodeCarbon's own marks lie a few milliseconds outside, which is as much again."""
    windows = [0.008, 0.008, 0.008, 1.0]
    watts = []
    for length_s in windows:
        on_cpu.open_window()
        t0_ns = time.monotonic_ns()
        time.sleep(length_s)
        window = Window(t0_ns, time.monotonic_ns())
        recording = on_cpu.close_window(window)
        watts.append(energies(recording)["ram"] / window.seconds)

    assert watts == pytest.approx([watts[-1]] * len(watts))


def test_a_window_of_several_stretches_has_power_readings_and_loses_nothing(on_cpu):
    short, long = record(on_cpu, 1.0), record(on_cpu, 6.0)

    assert energies(long)["ram"] == pytest.approx(6 * energies(short)["ram"], rel=0.1)
    power_w = {reading.channel: reading.value for reading in long.readings}
    assert power_w["ram_power_w"] == pytest.approx(energies(short)["ram"], rel=0.1)
    assert "cpu_power_w" in power_w
    assert short.readings == ()


def test_no_network_no_file_and_nobodys_settings(tmp_path):
    home, work, site = (tmp_path / name for name in ("home", "work", "site"))
    for directory in (home, work, site):
        directory.mkdir()
    for directory in (home, work):
        (directory / ".codecarbon.config").write_text(HOSTILE)
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    notes = tmp_path / "notes"
    environment = {
        **os.environ,
        "HOME": str(home),
        "CODECARBON_PUE": "7",
        "NETWORK_NOTES": str(notes),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(site), *sys.path])),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=work, env=environment, capture_output=True, check=True
    )
    energy_j = json.loads(done.stdout)

    watched = notes.read_text().splitlines()
    assert len(watched) >= 2  # this process and the sampler
    assert set(watched) == {"watching"}  # and no attempt
    assert energy_j["cpu"] > 0
    assert 0 < energy_j["ram"] < 1000
    assert [path.name for path in work.iterdir()] == [".codecarbon.config"]
    assert [path.name for path in home.iterdir()] == [".codecarbon.config"]


def test_gpus_are_told_apart_by_uuid_and_a_silent_one_is_unknown(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.syspath_prepend(str(NVML))
    # These three stand for too little of NVML to tell a state.
    sampler = SamplerProcess(READER)
    source = CodeCarbonSource(DeviceTarget("gpu", ("GPU-bbbb",)), SamplingRates(), sampler)
    try:
        source.start()
        recording = record(source, 1.5)
    finally:
        source.stop()

    energy_j = energies(recording)
    assert energy_j["GPU-aaaa"] == pytest.approx(150, rel=0.1)
    assert energy_j["GPU-bbbb"] == pytest.approx(75, rel=0.1)
    assert energy_j["GPU-dead"] is None
    assert recording.total_j == energy_j["GPU-bbbb"]
    assert recording.kind == "measured"
    assert any("could not read GPU-dead" in note for note in recording.notes)
    assert {part.name for part in recording.components if not part.in_scope} == {
        "cpu",
        "ram",
        "GPU-aaaa",
        "GPU-dead",
    }
