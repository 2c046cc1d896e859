"""NVML as an energy source: the counters of NVIDIA GPUs, or their power where there is none."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llenergymeasure.core.energy.estimator import DeviceReadings, EnergyEstimate
from llenergymeasure.core.energy.figures import counter_readings, power_readings, record_devices
from llenergymeasure.core.energy.gpu_source import UNKNOWN, GPUSource
from llenergymeasure.core.energy.gpu_state import (
    Grouped,
    by_channel,
    device_states,
    process_flags,
    process_notes,
)
from llenergymeasure.core.energy.nvml_coverage import gpu_coverage
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER, POWER
from llenergymeasure.core.energy.protocol import Coverage
from llenergymeasure.core.energy.sampler import Recorded
from llenergymeasure.domain.energy import EnergyRecording, Reading
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.units import MJ

READER = "llenergymeasure.core.energy.nvml_reader:NVMLReader"
SENSORS = (COUNTER, POWER, AVERAGE_POWER)
GUARD_S = 0.5
SLOW_GUARD_S = 2.0  # a mean over a second shows a step for as long, and later
NO_GPU = Coverage(
    None,
    "NVML reads GPUs, and covers no device that did the work: the CPU did",
    "set energy_backend: rapl or codecarbon",
)


class NVMLSource(GPUSource):
    """NVML, read in the sampling process."""

    name = "nvml"
    reader = READER
    lead_s = GUARD_S
    tail_s = GUARD_S

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        """Say what NVML would tell of these devices on this machine."""
        return gpu_coverage(target.gpu_uuids) if target.kind == "gpu" else NO_GPU

    def start(self) -> None:
        """Start the sampler, and learn from an empty window what its devices offer.

        Raises:
            BackendError: Another source runs, or the driver or a device does not answer.
        """
        super().start()
        self._sampler.begin()
        offered = self._sampler.end().summary["offered"].values()
        slow = any(AVERAGE_POWER in one and not {COUNTER, POWER} & {*one} for one in offered)
        self.lead_s = self.tail_s = SLOW_GUARD_S if slow else GUARD_S

    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Give every GPU's energy and state; one that went away in the window is unknown."""
        summary, taken = recorded.summary, by_channel(recorded.readings)
        estimates: dict[str, EnergyEstimate] = {}
        reasons: dict[str, str] = {}
        for uuid in summary["offered"]:
            failing, refused = summary["failing"][uuid], summary["refused"][uuid]
            readings = device_readings(uuid, taken, failing, window)
            if reason := silence(readings, failing, refused):
                reasons[uuid], estimates[uuid] = reason, UNKNOWN
            else:
                estimates[uuid] = self.estimate(uuid, readings, recorded, window)
        states = device_states(taken, summary, window)
        notes = (*_notes(summary), *process_notes(states))
        made = record_devices(self.name, recorded, estimates, reasons=reasons, notes=notes)
        return replace(made, device_state=states, flags=(*made.flags, *process_flags(states)))


def device_readings(
    uuid: str, taken: Grouped, failing: Container[str], window: Window
) -> DeviceReadings:
    """Gather what was read of one GPU, without sensors that went silent in the window.

    Args:
        uuid: The GPU.
        taken: Readings by channel and device.
        failing: Channels whose last read failed.
        window: Its start and end.
    """

    def of(channel: str) -> Sequence[Reading]:
        found = taken.get((channel, uuid), ())
        silent = channel in failing and not (found and found[-1].before_ns > window.t1_ns)
        return () if silent else found

    return DeviceReadings(
        counter=counter_readings(of(COUNTER), COUNTER, uuid, MJ),
        power=power_readings(of(POWER), POWER, uuid),
        average_power=power_readings(of(AVERAGE_POWER), AVERAGE_POWER, uuid),
    )


def silence(
    readings: DeviceReadings, failing: Mapping[str, str], refused: Mapping[str, str]
) -> str | None:
    """Say why no sensor tells a GPU's energy; ``None`` where one might."""
    if readings.counter or readings.power or readings.average_power:
        return None
    lost = {failing[one] for one in SENSORS if one in failing}
    if lost:
        return f"it no longer answered when the window ended ({'; '.join(sorted(lost))})"
    denied = {refused[one] for one in SENSORS if one in refused}
    return f"it tells neither energy nor power ({'; '.join(sorted(denied))})"


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    for uuid, refused in summary["refused"].items():
        if COUNTER in refused:
            yield f"{uuid}: no energy counter ({refused[COUNTER]})"
    for uuid, failing in summary["failing"].items():
        for channel, reason in failing.items():
            yield f"{uuid}: {channel} no longer answered ({reason})"
