"""Memory that a loaded PyTorch model needs: on its GPUs, or of the process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llenergymeasure.core.backends.shared import host_memory
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.units import MIB


class HostMemory:
    """The resident set of this process, from the moment this is made."""

    def __init__(self) -> None:
        self._resident = host_memory.ResidentSet()

    def reading(self) -> MemoryReading:
        """Give the peak so far."""
        return MemoryReading(
            "resident_set",
            self._resident.peak_mb(),
            self._resident.start_mb,
            host_memory.capacity_mb(),
        )


class CudaMemory:
    """What PyTorch allocates on the GPUs in use, summed, from the moment this is made.

    The peak is the sum of the devices' own peaks, which need not fall together. The capacity is
    that of one device, the smallest.
    """

    def __init__(self, torch: Any, devices: Iterable[str]) -> None:
        self._cuda, self._devices = torch.cuda, tuple(devices)
        for device in self._devices:
            self._cuda.reset_peak_memory_stats(device)
        self._model_mb = self._sum_mb(self._cuda.memory_allocated)

    def reading(self) -> MemoryReading:
        """Give the peak so far."""
        return MemoryReading(
            "device",
            self._sum_mb(self._cuda.max_memory_allocated),
            self._model_mb,
            min(map(self._capacity_mb, self._devices)),
        )

    def _capacity_mb(self, device: str) -> float:
        return float(self._cuda.get_device_properties(device).total_memory / MIB)

    def _sum_mb(self, in_bytes: Any) -> float:
        return float(sum(in_bytes(device) for device in self._devices) / MIB)
