"""What an experiment measured, before any figure is derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from llenergymeasure.core.backends.protocol import EngineReport
from llenergymeasure.core.energy import Selection
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.results import (
    BaselineResult,
    CPULoad,
    LoadResult,
    PassComparison,
    WarmupResult,
)
from llenergymeasure.domain.samples import RawProcessResult, Window, WindowReadings
from llenergymeasure.orchestration.executor import PreparedWork
from llenergymeasure.orchestration.order import WorkOrder


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """A window with everything recorded in it."""

    window: Window
    started_at: datetime
    passes: tuple[Window, ...]
    energy: EnergyRecording
    comparison: PassComparison | None
    cpu_load: CPULoad | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything the coordinating process measured; a result's figures are derived from it.

    Attributes:
        order: What was asked for.
        raw: The share of process 0, with the energy of all devices.
        started_at: Wall-clock time of t0.
        report: What the engine says about itself.
        target: The devices that did the work.
        selection: The energy source.
        work: The prompts.
        warmup: What was done before the window.
        baseline: Idle power.
        prefill: The prefill-only window, where one was asked for.
        comparison: How the halves of the window compare.
        cpu_load: Who kept the CPUs busy, for work on the CPU.
        load: Loading the model, of a cold start.
        others: The shares of the other processes, where there are several.
        windows: Everything that was read, window by window.
    """

    order: WorkOrder
    raw: RawProcessResult
    started_at: datetime
    report: EngineReport
    target: DeviceTarget
    selection: Selection
    work: PreparedWork
    warmup: WarmupResult
    baseline: BaselineResult
    prefill: MeasuredWindow | None
    comparison: PassComparison | None = None
    cpu_load: CPULoad | None = None
    load: LoadResult | None = None
    others: tuple[RawProcessResult, ...] = ()
    windows: tuple[WindowReadings, ...] = ()

    @property
    def processes(self) -> tuple[RawProcessResult, ...]:
        """The share of every process."""
        return (self.raw, *self.others)
