"""llenergymeasure's NVML source as a meter of ``energy_realtime.py``, at default rates.

``python energy_meter_llem.py UUID [LOAD_LOG IDLE_W BUSY_W]``: with a load log, sensors are first
calibrated with bursts of their own, as ``llem config --calibrate`` does.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import energy_meter
from energy_meter import Told
from llenergymeasure.core.energy.calibration import Device, calibrate, make_script
from llenergymeasure.core.energy.estimator import Knowledge
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

AHEAD_S = 0.005  # a burst is written before its time, so that no reader is ahead of it


class LoggedLoad(NamedTuple):
    """Bursts of a known device.

    Attributes:
        log: Its load log.
        idle_w: Between bursts.
        busy_w: In bursts.
    """

    log: Path
    idle_w: float
    busy_w: float

    @property
    def lost_s(self) -> float:
        """Nothing: it is at full power at once."""
        return 0.0

    def burst(self, seconds: float) -> Window:
        """Work for so long."""
        t0_s = time.monotonic() + AHEAD_S
        t1_s = t0_s + seconds
        with self.log.open("a", encoding="ascii") as log:
            log.write(f"{t0_s!r} {self.busy_w!r}\n{t1_s!r} {self.idle_w!r}\n")
        time.sleep(max(0.0, t1_s - time.monotonic()))
        return Window(round(t0_s * 1e9), round(t1_s * 1e9))

    def simmer(self, seconds: float) -> Window:
        """Idle for so long: such a device needs nothing to stay awake."""
        t0_ns = time.monotonic_ns()
        time.sleep(seconds)
        return Window(t0_ns, time.monotonic_ns())

    def close(self) -> None:
        """Do nothing."""


class LlemMeter:
    """The NVML source, as an experiment uses it."""

    def __init__(self, uuid: str, knowledge: Knowledge | None) -> None:
        known = {} if knowledge is None else {uuid: knowledge}
        target = DeviceTarget("gpu", (uuid,))
        self._source = NVMLSource(target, SamplingRates(), knowledge=known)
        self._source.start()

    def prepare(self) -> None:
        """Read for the guard time that the source asks for."""
        self._source.open_window()

    def begin(self) -> None:
        """Do nothing: the window is told afterwards."""

    def end(self) -> None:
        """Do nothing."""

    def tell(self, t0_ns: int, t1_ns: int) -> Told:
        """Read on for the guard time, and estimate."""
        recording = self._source.close_window(Window(t0_ns, t1_ns))
        energy_j = [one.energy_j for one in recording.components]
        return Told(energy_j[0] if energy_j else None, recording.interval_j, recording.flags)

    def close(self) -> None:
        """End the sampler."""
        self._source.stop()


def learnt(uuid: str, load: LoggedLoad) -> Knowledge:
    """Calibrate the sensors of a device."""
    source = NVMLSource(DeviceTarget("gpu", (uuid,)), SamplingRates())
    stored = calibrate(
        Device(uuid, "simulated"), source, load, make_script(random.Random(1))
    ).stored
    return Knowledge(counter=stored.counter, power=stored.power)


def main(uuid: str, load: Sequence[str]) -> None:
    """Serve as a meter, calibrated where a load is given."""
    knowledge = None
    if load:
        knowledge = learnt(uuid, LoggedLoad(Path(load[0]), float(load[1]), float(load[2])))
    energy_meter.serve(LlemMeter(uuid, knowledge))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
