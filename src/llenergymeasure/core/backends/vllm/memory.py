"""Memory that vLLM's processes need: on their GPUs, or of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llenergymeasure.core.backends.shared import host_memory
from llenergymeasure.domain.samples import MemoryReading

Facts = Sequence[Mapping[str, Any]]


class HostMemory:
    """The resident set of the engine core and its workers, from the moment this is made.

    Args:
        pids: The processes of the engine.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._resident = host_memory.ResidentSet(pids)

    def reading(self, facts: Facts) -> MemoryReading:
        """Give the peak so far."""
        return MemoryReading(
            "resident_set",
            self._resident.peak_mb(),
            self._resident.start_mb,
            host_memory.capacity_mb(),
        )


class DeviceMemory:
    """What PyTorch allocates in the workers, summed over their GPUs; KV cache included.

    Args:
        facts: What the workers said right after loading.
    """

    def __init__(self, facts: Facts) -> None:
        self._model_mb = float(sum(worker["device_mb"] for worker in facts))

    def reading(self, facts: Facts) -> MemoryReading:
        """Give the peak so far; the capacity is that of one device, the smallest."""
        return MemoryReading(
            "device",
            float(sum(worker["device_peak_mb"] for worker in facts)),
            self._model_mb,
            min(worker["device_capacity_mb"] for worker in facts),
        )
