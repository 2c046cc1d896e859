"""The GPU that is checked: what makes it work, and what reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from gpu_check.plan import Plan
from llenergymeasure.core.energy.calibration import LoadGenerator, TorchLoad
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

IDLE_W, BUSY_W = 60.0, 300.0  # of a simulated device
SETTLE_S = 2.0  # from work to idling, seconds


class LoggedLoad:
    """Stands in for work: appends what a simulated device draws to its load log."""

    def __init__(self, log: Path) -> None:
        self._log, self.lost_s = log, 0.0
        self._write(IDLE_W)

    def burst(self, seconds: float) -> Window:
        """Draw power for so long."""
        t0_ns = self._write(BUSY_W)
        time.sleep(seconds)
        return Window(t0_ns, self._write(IDLE_W))

    def simmer(self, seconds: float) -> Window:
        """Idle for so long: such a device needs nothing to stay awake."""
        t0_ns = time.monotonic_ns()
        time.sleep(seconds)
        return Window(t0_ns, time.monotonic_ns())

    def close(self) -> None:
        """Let go of nothing."""

    def _write(self, watts: float) -> int:
        at_ns = time.monotonic_ns()
        with self._log.open("a", encoding="ascii") as log:
            log.write(f"{at_ns / 1e9:.9f} {watts:g}\n")
        return at_ns


def chosen_uuid(plan: Plan) -> str:
    """Name the GPU that is checked.

    Raises:
        LookupError: CUDA would see none.
    """
    shown = [gpu.uuid for gpu in survey_gpus().gpus]
    return plan.uuid or visible_uuids(shown, os.environ)[0]


@contextmanager
def load_of(plan: Plan, uuid: str) -> Iterator[LoadGenerator]:
    """Make what drives the GPU.

    Raises:
        BackendError: PyTorch does not see it.
    """
    made = LoggedLoad(Path(plan.load_log)) if plan.load_log else TorchLoad(uuid)
    with closing(made) as load:
        yield load


def record(
    uuid: str, work: Callable[[], Window], rates: SamplingRates | None = None
) -> tuple[Window, EnergyRecording]:
    """Read a GPU around a stretch of work; give when it was and what was read.

    Raises:
        BackendError: The GPU cannot be read.
    """
    source = NVMLSource(DeviceTarget("gpu", (uuid,)), rates or SamplingRates())
    source.start()
    try:
        source.open_window()
        window = work()
        return window, source.close_window(window)
    finally:
        source.stop()


def idle(seconds: float) -> Window:
    """Do nothing for a while."""
    t0_ns = time.monotonic_ns()
    time.sleep(seconds)
    return Window(t0_ns, time.monotonic_ns())
