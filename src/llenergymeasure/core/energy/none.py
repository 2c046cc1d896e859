"""No energy source: for experiments that measure time and memory only."""

from __future__ import annotations

from llenergymeasure.core.energy.protocol import Coverage, SamplingRates, StepTimes, no_steps
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.target import DeviceTarget


class NoSource:
    """Reads nothing, starts nothing, and says so."""

    name = "none"

    def __init__(self, target: DeviceTarget, rates: SamplingRates) -> None:
        pass

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:  # noqa: ARG004 - the same for every target
        """Say that energy stays unknown, whatever does the work."""
        return Coverage("unmeasurable", "nothing is read")

    def start(self) -> None:
        """Do nothing."""

    def open_window(self) -> None:
        """Do nothing."""

    def close_window(self, window: Window, step_times: StepTimes = no_steps) -> EnergyRecording:
        """Give a recording without any figure."""
        return EnergyRecording(source=self.name)

    def stop(self) -> None:
        """Do nothing."""
