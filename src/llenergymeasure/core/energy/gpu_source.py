"""What sources that read GPUs in a sampling process share, whichever library they read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.sampled_source import SampledSource
from llenergymeasure.core.energy.sampler import ReaderSpec, Recorded, SamplerProcess
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.target import DeviceTarget

UNKNOWN = EnergyEstimate(None, None, "unmeasurable", "none")


class GPUSource(SampledSource):
    """Counters and power of GPUs, read in the sampling process.

    Args:
        target: The devices that do the work.
        rates: How often to read.
        sampler: The process that reads; by default one of its own.
        knowledge: What is known of devices beyond their readings, by UUID.

    Attributes:
        reader: What the sampling process runs, as ``"module:Class"``.
    """

    reader: str

    def __init__(
        self,
        target: DeviceTarget,
        rates: SamplingRates,
        sampler: SamplerProcess | None = None,
        knowledge: Mapping[str, Knowledge] | None = None,
    ) -> None:
        super().__init__(sampler or SamplerProcess(reader_spec(self.reader, target, rates)))
        self._knowledge = knowledge or {}

    def estimate(
        self, uuid: str, readings: DeviceReadings, recorded: Recorded, window: Window
    ) -> EnergyEstimate:
        """Give the energy of one GPU, with what is known of it and of the load's steps."""
        known = self._knowledge.get(uuid, Knowledge())
        known = replace(known, step_times_ns=recorded.step_times_ns)
        return estimate_energy(readings, window, known)


def reader_spec(reader: str, target: DeviceTarget, rates: SamplingRates) -> ReaderSpec:
    """Say what the sampling process is to read."""
    arguments = {
        "uuids": list(target.gpu_uuids),
        "counter_poll_s": rates.counter_poll_ms / 1e3,
        "power_poll_s": rates.power_poll_ms / 1e3,
    }
    return ReaderSpec(reader, arguments)
