"""Calibration of a GPU's sensors: bursts of load at known times, and what the sensors make of them.

Forty bursts of 30 ms and twenty of 1 s, in a random order with random gaps, so that they fall on
every phase of the sensor's tick. A device that rested brings its clocks up only once there is work:
what power lacks meanwhile would be taken for lag, and hide as much of a tail. So the device is kept
awake with next to no work before each long burst, and the pace of the work tells whether power
still ramped. What is fitted to the readings is in :mod:`~.estimation.calibration_fit`.
"""

from __future__ import annotations

import importlib.util
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from llenergymeasure.core.energy.estimation.calibration_fit import Driven, fit_calibration
from llenergymeasure.core.energy.estimation.sensor import (
    Calibration,
    CounterReadings,
    PowerReadings,
)
from llenergymeasure.core.energy.estimator import DeviceReadings
from llenergymeasure.core.energy.gpus import by_channel
from llenergymeasure.core.energy.protocol import EnergyBackend
from llenergymeasure.core.energy.sampled_source import gpu_readings
from llenergymeasure.core.energy.stored import StoredCalibration
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError

WHERE = "--calibrate"
SHORT_S, LONG_S = 0.03, 1.0
LEAST_GAP_S, RANDOM_GAP_S = (
    0.8,
    0.2,
)  # idle between bursts: the fit needs three quarters of a second
EDGE_S = 1.0
SIMMER_S = 0.9  # before a long burst: what came before has settled, and half a second tells power
SIDE = 4096  # of the matrices that make load
SMALL_SIDE = 64  # of those that only keep a device awake
QUEUED = 4  # products between two looks at the clock, so that the device never waits for us
WARMUP_S = 1.0
MOST_LAG_S = 0.5  # a sensor that seems later than this was not looking at our load


class LoadGenerator(Protocol):
    """Something that makes one device work."""

    @property
    def lost_s(self) -> float:
        """How much time long bursts lost as they began, against their later pace; at the median."""
        ...

    def burst(self, seconds: float) -> Window:
        """Work for about so long; return when the device is done, with when it was at work."""
        ...

    def simmer(self, seconds: float) -> Window:
        """Keep the device awake for about so long, with next to no work; give when that was."""
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...


class Device(NamedTuple):
    """What a calibration belongs to."""

    uuid: str
    driver_version: str


class Script(NamedTuple):
    """How long bursts are and how long the device rests before each, seconds."""

    bursts_s: tuple[float, ...]
    gaps_s: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """How long it takes."""
        simmers_s = SIMMER_S * sum(is_long(burst_s) for burst_s in self.bursts_s)
        return sum(self.bursts_s) + sum(self.gaps_s) + simmers_s + 2 * EDGE_S


class Learned(NamedTuple):
    """A calibration, and why parts of it are missing."""

    stored: StoredCalibration
    notes: tuple[str, ...]


def make_script(rng: random.Random, short: int = 40, long: int = 20) -> Script:
    """Make a script of bursts in a random order with random gaps."""
    bursts_s = [SHORT_S] * short + [LONG_S] * long
    rng.shuffle(bursts_s)
    gaps_s = [LEAST_GAP_S + rng.uniform(0, RANDOM_GAP_S) for _ in bursts_s]
    return Script(tuple(bursts_s), tuple(gaps_s))


def calibrate(
    device: Device,
    source: EnergyBackend,
    load: LoadGenerator,
    script: Script,
    sleep: Callable[[float], None] = time.sleep,
) -> Learned:
    """Learn about the sensors of one idle device.

    Args:
        device: ``source`` reads it alone, and ``load`` makes it work.
        source: Not yet started.
        load: What makes it work.
        script: The bursts.
        sleep: Waits, seconds.

    Raises:
        BackendError: The source does not answer, another process computed on the device, or
            neither its counter nor its power tells anything.
    """
    source.start()
    try:
        return calibrate_with(device, source, load, script, sleep)
    finally:
        source.stop()


def calibrate_with(
    device: Device,
    source: EnergyBackend,
    load: LoadGenerator,
    script: Script,
    sleep: Callable[[float], None] = time.sleep,
) -> Learned:
    """Do the same with a source that runs already."""
    source.open_window()
    driven = _play(load, script, sleep)
    bursts = driven.bursts
    recording = source.close_window(Window(bursts[0].t0_ns, bursts[-1].t1_ns))
    company = {pid for one in recording.device_state for pid in one.foreign_pids or ()}
    if company:
        raise BackendError(
            f"other processes computed on the device ({', '.join(map(str, sorted(company)))}); "
            "end them and calibrate again",
            where=WHERE,
        )
    if not recording.readings:
        raise BackendError("; ".join(recording.notes) or "nothing was read", where=WHERE)
    return learn(device, gpu_readings(device.uuid, by_channel(recording.readings)), driven)


def learn(device: Device, readings: DeviceReadings, driven: Driven) -> Learned:
    """Fit a calibration to recorded bursts.

    Raises:
        BackendError: Neither counter nor power tells anything.
    """
    counter, counter_note = _fit("energy counter", readings.counter, driven)
    power, power_note = _fit("power sensor", readings.power, driven)
    notes = tuple(f"{device.uuid}: {note}" for note in (counter_note, power_note) if note)
    if counter is None and power is None:
        raise BackendError(
            f"nothing was learned about its sensors: {'; '.join(notes)}", where=WHERE
        )
    now = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    stored = StoredCalibration(
        uuid=device.uuid,
        driver_version=device.driver_version,
        calibrated_at=now,
        counter=counter,
        power=power,
    )
    return Learned(stored, notes)


def is_long(burst_s: float) -> bool:
    """Tell whether a burst reaches a plateau."""
    return burst_s > SHORT_S


def _play(load: LoadGenerator, script: Script, sleep: Callable[[float], None]) -> Driven:
    sleep(EDGE_S)
    bursts, simmers = [], []
    for gap_s, burst_s in zip(script.gaps_s, script.bursts_s, strict=True):
        sleep(gap_s)
        simmers += [load.simmer(SIMMER_S)] if is_long(burst_s) else []
        bursts.append(load.burst(burst_s))
    sleep(EDGE_S)
    return Driven(tuple(bursts), tuple(simmers), load.lost_s)


def _fit(
    what: str, readings: CounterReadings | PowerReadings | None, driven: Driven
) -> tuple[Calibration | None, str]:
    """Fit one sensor; ``None`` with the reason where that leads to nothing that can be true."""
    if readings is None:
        return None, f"it has no {what}"
    try:
        found = fit_calibration(readings, driven)
    except ValueError as error:
        return None, f"its {what}: {error}"
    told = (found.lag_s, found.tail.excess_s, found.edge_time_s)
    if not all(math.isfinite(value) and value <= MOST_LAG_S for value in told):
        return None, f"its {what} does not follow the load"
    return found, ""


def lost_s(t0_ns: int, done_ns: Sequence[int]) -> float:
    """Tell how much time equal pieces of work lost as they began, by the pace of the later half.

    Clocks that come up slowly show in it; 0 with fewer than four pieces.

    Args:
        t0_ns: When they began.
        done_ns: When each was done, ascending.
    """
    half = len(done_ns) // 2
    if half < 2:
        return 0.0
    pace_ns = (done_ns[-1] - done_ns[half - 1]) / (len(done_ns) - half)
    return max(done_ns[half - 1] - t0_ns - half * pace_ns, 0.0) / 1e9


class TorchLoad:
    """Multiplies square matrices on a device for as long as it is told.

    Args:
        uuid: The device.

    Raises:
        BackendError: PyTorch is not installed, or does not see the device.
    """

    def __init__(self, uuid: str) -> None:
        if importlib.util.find_spec("torch") is None:
            raise BackendError(
                "calibration drives the GPU through PyTorch, which is not installed: "
                "pip install 'llenergymeasure[pytorch]'",
                where=WHERE,
            )
        import torch

        self._torch: Any = torch
        count = torch.cuda.device_count()
        uuids = [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(count)]
        if uuid not in uuids:
            raise BackendError(
                f"PyTorch sees {count} CUDA devices, and {uuid} is none of them; check "
                "CUDA_VISIBLE_DEVICES and that this PyTorch is built for CUDA",
                where=WHERE,
            )
        self._device = torch.device("cuda", uuids.index(uuid))
        self._factor = torch.randn(SIDE, SIDE, device=self._device, dtype=torch.float16)
        self._product = torch.empty_like(self._factor)
        self._small = self._factor[:SMALL_SIDE, :SMALL_SIDE].contiguous()
        self._lost_s: list[float] = []
        self.burst(WARMUP_S)
        self._lost_s.clear()

    @property
    def lost_s(self) -> float:
        """How much time long bursts lost as they began; 0 before the first."""
        return statistics.median(self._lost_s) if self._lost_s else 0.0

    def burst(self, seconds: float) -> Window:
        """Multiply for about so long; the last products that were queued are waited for."""
        torch, done_ns = self._torch, []
        torch.cuda.synchronize(self._device)
        t0_ns = time.monotonic_ns()
        while time.monotonic_ns() - t0_ns < seconds * 1e9:
            for _ in range(QUEUED):
                torch.matmul(self._factor, self._factor, out=self._product)
            torch.cuda.synchronize(self._device)
            done_ns.append(time.monotonic_ns())
        if is_long(seconds):
            self._lost_s.append(lost_s(t0_ns, done_ns))
        return Window(t0_ns, time.monotonic_ns())

    def simmer(self, seconds: float) -> Window:
        """Multiply small matrices one by one: clocks stay up, and hardly any power is drawn."""
        torch, t0_ns = self._torch, time.monotonic_ns()
        while time.monotonic_ns() - t0_ns < seconds * 1e9:
            torch.matmul(self._small, self._small)
            torch.cuda.synchronize(self._device)
        return Window(t0_ns, time.monotonic_ns())

    def close(self) -> None:
        """Free the matrices."""
        del self._factor, self._product, self._small
        self._torch.cuda.empty_cache()
