"""NVML as an energy source: the counters of NVIDIA GPUs, or their power where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.config.energy_sources import other_sources
from llenergymeasure.core.energy.estimator import DeviceReadings
from llenergymeasure.core.energy.gpus import Grouped, gpu_coverage
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER, POWER
from llenergymeasure.core.energy.protocol import Coverage
from llenergymeasure.core.energy.sampled_source import GPUSource
from llenergymeasure.core.energy.sampler import Recorded
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

READER = "llenergymeasure.core.energy.nvml_reader:NVMLReader"
SENSORS = (COUNTER, POWER, AVERAGE_POWER)
GUARD_S = 0.5
NO_GPU = "NVML reads GPUs, and covers no device that did the work: the CPU did"


class NVMLSource(GPUSource):
    """NVML, read in the sampling process."""

    name = "nvml"
    reader = READER
    lead_s = GUARD_S
    tail_s = GUARD_S

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        """Say what NVML would tell of these devices on this machine."""
        if target.kind == "gpu":
            return gpu_coverage(target.gpu_uuids)
        return Coverage(None, NO_GPU, other_sources(target.kind))

    def silent(self, uuid: str, taken: Grouped, recorded: Recorded, window: Window) -> set[str]:
        """Name the sensors of a GPU that went silent in the window."""

        def answered_after(channel: str) -> bool:
            found = taken.get((channel, uuid), ())
            return bool(found) and found[-1].before_ns > window.t1_ns

        failing = recorded.summary["failing"][uuid]
        return {channel for channel in failing if not answered_after(channel)}

    def fault(self, readings: DeviceReadings, summary: Mapping[str, Any], uuid: str) -> str | None:
        """Say why no sensor tells a GPU's energy; ``None`` where one might."""
        if readings.counter or readings.power or readings.average_power:
            return None
        failing, refused = summary["failing"][uuid], summary["refused"][uuid]
        if lost := {failing[one] for one in SENSORS if one in failing}:
            return f"it no longer answered when the window ended ({'; '.join(sorted(lost))})"
        denied = {refused[one] for one in SENSORS if one in refused}
        return f"it tells neither energy nor power ({'; '.join(sorted(denied))})"

    def notes(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Say which counters are missing, and what no longer answered."""
        for uuid, refused in summary["refused"].items():
            if COUNTER in refused:
                yield f"{uuid}: no energy counter ({refused[COUNTER]})"
        for uuid, failing in summary["failing"].items():
            for channel, reason in failing.items():
                yield f"{uuid}: {channel} no longer answered ({reason})"
