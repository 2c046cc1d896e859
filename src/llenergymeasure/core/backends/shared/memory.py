"""Memory since a moment: the resident set of processes, or what PyTorch allocates on GPUs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from llenergymeasure.core.allowance import allowance
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.units import MIB


class ResidentSet:
    """Watches the resident set of processes, summed, from the moment it is made.

    Linux keeps the peak itself (``VmHWM``) and sets it back when ``5`` is written to
    ``/proc/PID/clear_refs`` (proc(5)); where that is not possible the peak is unknown. The peak of
    several is the sum of their own peaks, which need not fall together.

    Args:
        pids: The processes; by default this one.
    """

    def __init__(self, pids: Sequence[int] = ()) -> None:
        self._pids = tuple(pids) or (os.getpid(),)
        self.start_mb = sum(psutil.Process(pid).memory_info().rss for pid in self._pids) / MIB
        try:
            for pid in self._pids:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            self._was_reset = True
        except OSError:
            self._was_reset = False

    def peak_mb(self) -> float | None:
        """Highest resident set since this object was made, MiB; ``None`` where unknown."""
        if not self._was_reset:
            return None
        try:
            peaks = [_peak_mb(Path(f"/proc/{pid}/status").read_text()) for pid in self._pids]
        except OSError:
            return None
        known = [peak for peak in peaks if peak is not None]
        return sum(known) if len(known) == len(peaks) else None

    def reading(self) -> MemoryReading:
        """Give the peak so far, beside what this process may have."""
        allowed_mb = allowance().memory_mb
        return MemoryReading("resident_set", self.peak_mb(), self.start_mb, allowed_mb)


def _peak_mb(status: str) -> float | None:
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
    return int(found.group(1)) / 1024 if found else None


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
