"""llenergymeasure, Zeus and CodeCarbon side by side, in real time, on simulated devices.

Run from the repository root: ``PYTHONPATH=. python benchmarks/energy_realtime.py``. Every program
loads the real NVML bindings, and these a library whose devices have a known load. All programs
measure the same windows of the same load at the same time, each in a process of its own. The load
is written ahead of time, so that its energy is exact and no reader can be ahead of it.

Each program answers for the time between its own two marks: a late wake-up is not its error.
Phases of tick, load and window length are stratified, and those of llem's polls; the peers' polls
run freely. ``--phases 2 --waves step --windows 0.5 --profiles a100`` is a quick trial.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import machine
from energy_cells import make_load
from energy_realtime_report import cell_figures, report, verdict
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.sampled_source import SETTLE_S, SLOW_GUARD_S
from tests.support.simulated_device import loads
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import PROFILES, DeviceProfile, vary

HERE = Path(__file__).parent
PROFILE_NAMES = ("a100", "h100", "rtx4090", "p100")
WAVES = ("step", "train", "square23")
WINDOWS_S = (0.5, 1.0, 2.0)
LLEM, UNCALIBRATED = "llem", "llem, uncalibrated"
PEERS = ("zeus_monitor", "zeus_power_monitor", "codecarbon", "codecarbon_task")
OUTSIDE_W = 75.0
POLL_S = SamplingRates().counter_poll_ms / 1e3
NOISE, SENSOR_NOISE_W, JITTER_S = 0.07, 1.0, 0.003
START_S = 2.0  # from the last program's readiness to the first window's preparation
AROUND_S = 0.9  # from preparation to a window, and from a window to the next preparation
AROUND_SLOW_S = SETTLE_S + SLOW_GUARD_S + 0.4  # the same where power alone tells the energy
GUARD_S = 0.7  # of noise around a window
MOST_LATE_S = 0.02  # a mark later than this says that the machine was busy, and nothing else


class Phases(NamedTuple):
    """Where in their periods tick, poll and load stand at the start of the window, 0 to 1."""

    tick: float
    poll: float
    load: float
    length: float


def stratified(count: int, rng: np.random.Generator) -> list[Phases]:
    """Spread phases evenly, each in an order of its own (a Latin hypercube)."""
    columns = [(rng.permutation(count) + rng.random(count)) / count for _ in Phases._fields]
    return [Phases(*row) for row in np.column_stack(columns).tolist()]


class Planned(NamedTuple):
    """One window of the schedule, in seconds of the monotonic clock."""

    wave: str
    nominal_s: float
    load_phase: float
    prepare_s: float
    t0_s: float
    t1_s: float

    @property
    def for_meters(self) -> dict[str, float]:
        """What a program is told of it."""
        return {"prepare_s": self.prepare_s, "t0_s": self.t0_s, "t1_s": self.t1_s}


class Chosen(NamedTuple):
    """What to run.

    Attributes:
        phases: Windows a cell.
        waves: Loads.
        windows_s: Nominal windows.
        peer_python: Interpreter of the peers' environment.
        seed: Of phases and noise.
    """

    phases: int
    waves: Sequence[str]
    windows_s: Sequence[float]
    peer_python: Path
    seed: int


def device_of(name: str) -> DeviceProfile:
    """Give a profile with jitter as in the other benchmark, and with noise.

    Zeus's ``PowerMonitor`` keeps a sample only where it differs from the one before: without noise,
    as no real sensor is, it would see next to nothing.
    """
    return vary(PROFILES[name], tick_jitter_s=JITTER_S, noise_w=SENSOR_NOISE_W)


def tick_of(device: DeviceProfile) -> float:
    """Give the period of what is read: the counter, or power where there is none."""
    return device.counter_period_s if device.counter_supported else device.power_period_s


def around_of(device: DeviceProfile) -> float:
    """Give the time that every program has before and after a window, in seconds.

    llem reads for longer around one where a device has no counter.
    """
    return AROUND_S if device.counter_supported else AROUND_SLOW_S


def plan(
    chosen: Chosen, device: DeviceProfile, start_s: float, rng: np.random.Generator
) -> list[Planned]:
    """Lay out every window; those of one cell lie apart, so a disturbance hits many cells."""
    cells = list(product(chosen.waves, chosen.windows_s))
    phases = {cell: stratified(chosen.phases, rng) for cell in cells}
    windows: list[Planned] = []
    free_s = start_s
    for turn in range(chosen.phases):
        for number in rng.permutation(len(cells)):
            wave, nominal_s = cells[number]
            at = phases[wave, nominal_s][turn]
            windows.append(_place(wave, nominal_s, at, device, free_s))
            free_s = windows[-1].t1_s + around_of(device)
    return windows


def _place(
    wave: str, nominal_s: float, at: Phases, device: DeviceProfile, free_s: float
) -> Planned:
    # Ticks are at whole multiples of their period, since profiles have phase 0.
    tick_s, around_s = tick_of(device), around_of(device)
    t0_s = (np.ceil((free_s + around_s + POLL_S) / tick_s) + at.tick) * tick_s
    t1_s = t0_s + nominal_s + (at.length - 0.5) * tick_s
    prepare_s = t0_s - around_s - at.poll * POLL_S  # llem's polls start here
    return Planned(wave, nominal_s, at.load, float(prepare_s), float(t0_s), float(t1_s))


def load_log(
    windows: Sequence[Planned], device: DeviceProfile, rng: np.random.Generator
) -> Iterator[str]:
    """Give the load of a schedule as lines of a load log."""
    for window in windows:
        length_s = window.t1_s - window.t0_s
        load = make_load(window.wave, length_s, window.load_phase)[0].scaled(device.limit_w / 400.0)
        load = loads.noisy(load, NOISE, -GUARD_S, length_s + GUARD_S, rng).shifted(window.t0_s)
        kept = load.start_s >= window.t0_s - GUARD_S - 1e-9
        slopes = load.slope_w_per_s[kept]
        yield loads.to_log(loads.Load(load.start_s[kept], load.level_w[kept], slopes))


class Stand:
    """One simulated device, and the programs that measure it."""

    def __init__(self, name: str, chosen: Chosen, folder: Path) -> None:
        self.name, self.device, self._chosen = name, device_of(name), chosen
        self._node = SimulatedNode(folder, [Board(self.device)])
        self._folder = folder
        self._outside_w = OUTSIDE_W * self.device.limit_w / 400.0
        self._node.set_load(self._outside_w)
        self._meters: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        """Start the programs that need not calibrate, one by one.

        Zeus's ``PowerMonitor`` gives up where its process takes 10 s to start, as it may where
        others start beside it.

        Raises:
            RuntimeError: A program failed.
        """
        for name in self._commands():
            if name != LLEM:
                self._start_meter(name)

    def run(self) -> list[dict[str, Any]]:
        """Calibrate, then measure all windows with all programs; give a row for each of both.

        Raises:
            RuntimeError: A program failed.
        """
        self._start_meter(LLEM)
        windows = self._play()
        for meter in self._meters.values():
            _tell(meter, windows)
        answers = {name: self._answers(name, meter) for name, meter in self._meters.items()}
        return list(self._rows(windows, answers))

    def close(self) -> None:
        """End all programs."""
        for meter in self._meters.values():
            meter.kill()
            meter.communicate()

    def _commands(self) -> dict[str, list[str]]:
        llem = [sys.executable, str(HERE / "energy_meter_llem.py"), self._node.uuid()]
        busy_w = self.device.limit_w
        load = [str(self._node.load_log()), repr(self._outside_w), repr(busy_w)]
        peers = {
            # Without a counter ZeusMonitor is a PowerMonitor that it gives a period of 0: it would
            # take a core from all the others. PowerMonitor itself stands for both.
            name: [
                str(self._chosen.peer_python),
                str(HERE / "energy_meter_peers.py"),
                name,
                repr(tick_of(self.device)),
            ]
            for name in PEERS
            if name != "zeus_monitor" or self.device.counter_supported
        }
        return {LLEM: [*llem, *load], UNCALIBRATED: llem, **peers}

    def _start_meter(self, name: str) -> None:
        environment = machine.environment(
            **self._node.environment, HOME=str(self._folder), OMP_NUM_THREADS="1"
        )
        with self._log(name).open("w") as log:
            self._meters[name] = subprocess.Popen(
                self._commands()[name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        self._expect_ready(name, self._meters[name])

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.replace(', ', '-')}.log"

    def _expect_ready(self, name: str, meter: subprocess.Popen[str]) -> None:
        assert meter.stdout is not None
        line = meter.stdout.readline()
        while line and line.strip() != "ready":  # what a library prints goes before
            line = meter.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} on {self.name} failed:\n{self._tail(name)}")

    def _tail(self, name: str) -> str:
        return self._log(name).read_text(errors="replace")[-3000:]

    def _play(self) -> list[Planned]:
        rng = np.random.default_rng([self._chosen.seed, PROFILE_NAMES.index(self.name)])
        windows = plan(self._chosen, self.device, time.monotonic() + START_S, rng)
        with self._node.load_log().open("a", encoding="ascii") as log:
            log.writelines(load_log(windows, self.device, rng))
        return windows

    def _answers(self, name: str, meter: subprocess.Popen[str]) -> list[dict[str, Any]]:
        assert meter.stdout is not None
        lines = meter.stdout.read().splitlines()
        if meter.wait():
            raise RuntimeError(f"{name} on {self.name} stopped:\n{self._tail(name)}")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def _rows(
        self, windows: Sequence[Planned], answers: Mapping[str, Sequence[dict[str, Any]]]
    ) -> Iterator[dict[str, Any]]:
        load = self._node.load()
        for name, told in answers.items():
            for window, answer in zip(windows, told, strict=True):
                yield self._row(name, window, answer, load)

    def _row(
        self, name: str, window: Planned, answer: dict[str, Any], load: loads.Load
    ) -> dict[str, Any]:
        t0_s, t1_s = answer["t0_ns"] / 1e9, answer["t1_ns"] / 1e9
        late_s = max(t0_s - window.t0_s, t1_s - window.t1_s)
        true_j = load.energy_j(t0_s, t1_s)
        energy_j, half_j = answer["energy_j"], answer["half_j"]
        return {
            "profile": self.name,
            "wave": window.wave,
            "nominal_s": window.nominal_s,
            "method": name,
            "disturbed": late_s > MOST_LATE_S,
            "error": None if energy_j is None else energy_j / true_j - 1,
            "half": None if half_j is None else half_j / true_j,
            "zero": energy_j == 0,
            "flags": answer["flags"],
        }


def _tell(meter: subprocess.Popen[str], windows: Sequence[Planned]) -> None:
    assert meter.stdin is not None
    meter.stdin.write(json.dumps([window.for_meters for window in windows]) + "\n")
    meter.stdin.flush()


def measure(chosen: Chosen, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run a stand for each device, all at the same time."""
    with ExitStack() as stack:
        stands = []
        for name in names:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            stands.append(Stand(name, chosen, Path(folder)))
            stack.callback(stands[-1].close)
            stands[-1].start()
        with ThreadPoolExecutor(len(stands)) as pool:
            return [row for rows in pool.map(Stand.run, stands) for row in rows]


def main() -> int:
    """Measure, print and keep the figures; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phases", type=int, default=20, help="windows per cell")
    parser.add_argument("--profiles", nargs="*", default=PROFILE_NAMES, choices=PROFILE_NAMES)
    parser.add_argument("--waves", nargs="*", default=WAVES)
    parser.add_argument("--windows", nargs="*", type=float, default=WINDOWS_S)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    given = parser.parse_args()
    peer = given.peer_python.absolute()  # not resolved: the link names its environment
    chosen = Chosen(given.phases, given.waves, given.windows, peer, given.seed)
    rows = measure(chosen, given.profiles)
    packages = ("zeus", "codecarbon", "nvidia-ml-py")
    cells = cell_figures(rows)
    data = {
        "machine": machine.describe(),
        "load_1min": os.getloadavg()[0],
        "versions": machine.versions(peer, packages),
        "cells": cells,
    }
    machine.save(given.output / "energy_realtime.json", data)
    text = report(data)
    (given.output / "energy_realtime.md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if verdict(cells) else 1


if __name__ == "__main__":
    raise SystemExit(main())
