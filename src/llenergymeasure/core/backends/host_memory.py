"""Resident set of this process, with a peak that can be set back, and what the machine has."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil

MIB = 1 << 20
_PROC = Path("/proc/self")


class ResidentSet:
    """Watches the resident set from the moment it is made.

    Linux keeps the peak itself (``VmHWM``) and sets it back when ``5`` is written to
    ``/proc/self/clear_refs`` (proc(5)); where that is not possible the peak is unknown.
    """

    def __init__(self) -> None:
        self.start_mb = psutil.Process().memory_info().rss / MIB
        try:
            (_PROC / "clear_refs").write_text("5")
            self._was_reset = True
        except OSError:
            self._was_reset = False

    def peak_mb(self) -> float | None:
        """Highest resident set since this object was made, MiB; ``None`` where unknown."""
        if not self._was_reset:
            return None
        try:
            status = (_PROC / "status").read_text()
        except OSError:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
        return int(found.group(1)) / 1024 if found else None


def usable_cpus() -> int:
    """Count the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def capacity_mb() -> float:
    """Memory of the machine, MiB."""
    return psutil.virtual_memory().total / MIB
