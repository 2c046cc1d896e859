"""Calibration of a GPU's sensors: bursts of load at known times, and what the sensors make of them.

Forty bursts of 30 ms and twenty of 1 s, in a random order with random gaps, so that they fall on
every phase of the sensor's tick. What is fitted to the readings is in
:mod:`~.estimation.calibration_fit`.
"""

from __future__ import annotations

import importlib.util
import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from llenergymeasure.core.energy.estimation.calibration_fit import fit_calibration
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
SIDE = 4096  # of the matrices that make load
QUEUED = 4  # products between two looks at the clock, so that the device never waits for us
WARMUP_S = 1.0
MOST_LAG_S = 0.5  # a sensor that seems later than this was not looking at our load


class LoadGenerator(Protocol):
    """Something that makes one device work."""

    def burst(self, seconds: float) -> Window:
        """Work for about so long; return when the device is done, with when it was at work."""
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
        return sum(self.bursts_s) + sum(self.gaps_s) + 2 * EDGE_S


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
        source.open_window()
        bursts = _play(load, script, sleep)
        recording = source.close_window(Window(bursts[0].t0_ns, bursts[-1].t1_ns))
    finally:
        source.stop()
    company = {pid for one in recording.device_state for pid in one.foreign_pids or ()}
    if company:
        raise BackendError(
            f"other processes computed on the device ({', '.join(map(str, sorted(company)))}); "
            "end them and calibrate again",
            where=WHERE,
        )
    if not recording.readings:
        raise BackendError("; ".join(recording.notes) or "nothing was read", where=WHERE)
    return learn(device, gpu_readings(device.uuid, by_channel(recording.readings)), bursts)


def learn(device: Device, readings: DeviceReadings, bursts: Sequence[Window]) -> Learned:
    """Fit a calibration to recorded bursts.

    Raises:
        BackendError: Neither counter nor power tells anything.
    """
    counter, counter_note = _fit("energy counter", readings.counter, bursts)
    power, power_note = _fit("power sensor", readings.power, bursts)
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


def _play(
    load: LoadGenerator, script: Script, sleep: Callable[[float], None]
) -> tuple[Window, ...]:
    sleep(EDGE_S)
    bursts = []
    for gap_s, burst_s in zip(script.gaps_s, script.bursts_s, strict=True):
        sleep(gap_s)
        bursts.append(load.burst(burst_s))
    sleep(EDGE_S)
    return tuple(bursts)


def _fit(
    what: str, readings: CounterReadings | PowerReadings | None, bursts: Sequence[Window]
) -> tuple[Calibration | None, str]:
    """Fit one sensor; ``None`` with the reason where that leads to nothing that can be true."""
    if readings is None:
        return None, f"it has no {what}"
    try:
        found = fit_calibration(readings, bursts)
    except ValueError as error:
        return None, f"its {what}: {error}"
    told = (found.lag_s, found.tail.excess_s, found.edge_time_s)
    if not all(math.isfinite(value) and value <= MOST_LAG_S for value in told):
        return None, f"its {what} does not follow the load"
    return found, ""


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
        self.burst(WARMUP_S)

    def burst(self, seconds: float) -> Window:
        """Multiply for about so long; the last products that were queued are waited for."""
        torch = self._torch
        torch.cuda.synchronize(self._device)
        t0_ns = time.monotonic_ns()
        while time.monotonic_ns() - t0_ns < seconds * 1e9:
            for _ in range(QUEUED):
                torch.matmul(self._factor, self._factor, out=self._product)
            torch.cuda.synchronize(self._device)
        return Window(t0_ns, time.monotonic_ns())

    def close(self) -> None:
        """Free the matrices."""
        del self._factor, self._product
        self._torch.cuda.empty_cache()
