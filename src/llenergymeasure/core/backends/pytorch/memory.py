"""Memory that a loaded PyTorch model needs on its GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.units import MIB


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
        boards = map(self._cuda.get_device_properties, self._devices)
        return MemoryReading(
            "device",
            self._sum_mb(self._cuda.max_memory_allocated),
            self._model_mb,
            min(properties.total_memory for properties in boards) / MIB,
        )

    def _sum_mb(self, in_bytes: Any) -> float:
        return float(sum(in_bytes(device) for device in self._devices) / MIB)
