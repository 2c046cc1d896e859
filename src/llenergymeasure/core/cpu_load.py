"""Who keeps the CPUs of the machine busy: the processes of an experiment, or others.

What the kernel counts as busy (``/proc/stat``), less what the processes of the experiment spent
themselves, is the work of others. In a container the kernel's figures are usually those of the
whole machine, which is what decides how fast and how hot it is.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

import psutil

from llenergymeasure.domain.results import CPULoad

LEAST_S = 1.0  # the kernel counts in steps of 10 ms, for each CPU and for each process


class CPUTimes(NamedTuple):
    """Seconds of CPU time since some moment, summed over CPUs.

    Attributes:
        total_s: Of all CPUs, idle or not.
        busy_s: In which they worked.
        own_s: In which they worked for this process and its descendants.
    """

    total_s: float
    busy_s: float
    own_s: float


def usable_cpus() -> int:
    """Count the logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_cpu_times() -> CPUTimes | None:
    """Read the counters of the kernel; ``None`` where they cannot be read.

    It takes some milliseconds, so this is no business of a measured window.
    """
    this, own_s = psutil.Process(), 0.0
    try:
        for process in (this, *this.children(recursive=True)):
            # With what its children that have ended spent. The time of one that has just ended is
            # in that of its parent.
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = process.cpu_times()
                own_s += spent.user + spent.system + spent.children_user + spent.children_system
        times = psutil.cpu_times()._asdict()
    except (psutil.Error, OSError):
        return None
    # A guest's time is in that of its user; stolen time no process of this machine had.
    total_s = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    rest_s = sum(times.get(name, 0.0) for name in ("idle", "iowait", "steal"))
    return CPUTimes(total_s, total_s - rest_s, own_s)


def cpu_load(before: CPUTimes | None, after: CPUTimes | None, elapsed_s: float) -> CPULoad | None:
    """Share the work between two readings out; ``None`` where it is not known or too short."""
    if before is None or after is None or elapsed_s < LEAST_S:
        return None
    total_s = after.total_s - before.total_s
    if total_s <= 0:
        return None
    own_s, busy_s = after.own_s - before.own_s, after.busy_s - before.busy_s
    # Both are counted in steps, so a difference below zero is none.
    return CPULoad(own_share=own_s / total_s, other_share=max(0.0, busy_s - own_s) / total_s)
