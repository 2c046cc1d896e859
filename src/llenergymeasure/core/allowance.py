"""What of a machine this process may have, by what a container, a batch job or a shell allows.

Linux bounds memory and CPU time by control groups. They nest, each may set a bound of its own, and
the tightest one up the tree holds (cgroups(7); of the kernel's documentation cgroup-v2.rst, and of
version 1 cgroup-v1/memory.rst and scheduler/sched-bwc.rst). A container often sees no group above
its own: version 1 tells what bounds memory up there all the same; version 2 does not, and neither
tells of CPU time.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

from llenergymeasure.domain.results import CPUThrottling
from llenergymeasure.units import MIB, NS_PER_S

_ROOT = Path("/")
_MEMORY_FILES = ("memory.max", "memory.high", "memory.limit_in_bytes")
_ABOVE = "hierarchical_memory_limit"
_CPU_FILES = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
_KILLS_FILES = ("memory.events", "memory.oom_control")
_US_PER_S = 1e6
_ULIMITS = {"ulimit -v": resource.RLIMIT_AS, "ulimit -d": resource.RLIMIT_DATA}
"""Bounds that make an allocation fail (getrlimit(2)); Linux heeds none on the resident set."""


class Allowance(NamedTuple):
    """What this process may have.

    Attributes:
        memory_mb: Memory of the machine, or the tightest bound on it, MiB.
        memory_by: What sets that bound; ``None`` where it is all that the machine has.
        cpus: Logical CPUs it may run on (sched_setaffinity(2); a cpuset shows there too).
        cpu_quota: CPU time it may take, in CPUs; ``None`` without a quota.
    """

    memory_mb: float
    memory_by: str | None
    cpus: int
    cpu_quota: float | None

    @property
    def memory_owner(self) -> str:
        """Who has so much memory, as a message says it."""
        by = self.memory_by
        return "this machine's RAM" if by is None else f"this process, limited by {by},"

    @property
    def threads(self) -> int:
        """Threads that can all compute all the time without being held back; at least one."""
        return self.cpus if self.cpu_quota is None else max(1, min(self.cpus, int(self.cpu_quota)))


def allowance(
    root: Path = _ROOT, ulimit: Callable[[int], tuple[int, int]] = resource.getrlimit
) -> Allowance:
    """Look at every bound there is.

    Args:
        root: Below which ``/proc`` and the mounted control groups are found.
        ulimit: Gives the soft and the hard value of a limit of this process.
    """
    bounds: list[tuple[int, str | None]] = [(psutil.virtual_memory().total, None)]
    for name, folder in _groups("memory", root):
        told = {file: _text(folder / file).split()[:1] for file in _MEMORY_FILES}
        stat = _text(folder / "memory.stat").split()
        told[_ABOVE] = stat[stat.index(_ABOVE) + 1 :][:1] if _ABOVE in stat else []
        for file, words in told.items():
            bounds += [(int(word), f"{file} of {name}") for word in words if word.isdecimal()]
    for name, limit in _ULIMITS.items():
        if (bound := ulimit(limit)[0]) != resource.RLIM_INFINITY:
            bounds.append((bound, name))
    least_bytes, by = min(bounds, key=lambda one: one[0])
    quotas = []
    for _, folder in _groups("cpu", root):
        words = [word for file in _CPU_FILES for word in _text(folder / file).split()]
        if len(words) == 2 and words[0].isdecimal():  # else "max", or -1
            quotas.append(int(words[0]) / int(words[1]))
    on_linux = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return Allowance(least_bytes / MIB, by, cpus, min(quotas, default=None))


def read_throttling(root: Path = _ROOT) -> dict[str, dict[str, int]]:
    """Read what quotas on CPU time have held back so far, by the control group that has one."""
    read: dict[str, dict[str, int]] = {}
    for name, folder in _groups("cpu", root):
        words = _text(folder / "cpu.stat").split()
        counts = {key: int(count) for key, count in zip(words[::2], words[1::2], strict=True)}
        if counts.get("nr_periods"):
            read[name] = counts
    return read


def throttling(
    before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]
) -> CPUThrottling | None:
    """Tell what quotas held back between two readings.

    Returns:
        Of the group that was held back longest; ``None`` without a quota.
    """

    def of(group: str) -> CPUThrottling:
        earlier = before.get(group, {})
        since = {name: count - earlier.get(name, 0) for name, count in after[group].items()}
        # Version 2 counts in microseconds, version 1 in nanoseconds.
        held_s = since.get("throttled_usec", 0) / _US_PER_S
        held_s += since.get("throttled_time", 0) / NS_PER_S
        return CPUThrottling(
            group=group,
            periods=since["nr_periods"],
            throttled_periods=since["nr_throttled"],
            throttled_s=held_s,
        )

    return max(map(of, after), key=lambda one: one.throttled_s, default=None)


def read_oom_kills(root: Path = _ROOT) -> dict[str, int]:
    """Count what the kernel has killed so far for want of memory, by what counts it.

    First the control group of this process (``memory.events``, in version 1
    ``memory.oom_control``), last the machine (``/proc/vmstat``), which counts for everybody on it.
    Empty where nothing counts.
    """
    files = [
        (name, folder / file) for name, folder in _groups("memory", root) for file in _KILLS_FILES
    ]
    read: dict[str, int] = {}
    for name, file in (*files, ("this machine", root / "proc/vmstat")):
        words = _text(file).split()
        if "oom_kill" in words:
            read[name] = int(words[words.index("oom_kill") + 1])
    return read


def _groups(controller: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the control groups this process is in, each before those above it: name and folder.

    ``/proc/self/cgroup`` names its group in every hierarchy; ``/proc/self/mountinfo`` says where
    each is mounted, and from which of its groups on: in a container that may be its own.
    """
    own: dict[str, str] = {}  # by controller; version 2 has one hierarchy, without a name
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _text(root / "proc/self/mountinfo").splitlines():
        place, _, system = line.partition(" - ")
        kind, *_, options = system.split()
        mounts = {"cgroup2": ("",), "cgroup": options.split(",")}.get(kind, ())
        hierarchy = "" if kind == "cgroup2" else controller
        if hierarchy not in mounts or hierarchy not in own:
            continue
        # A space in the name of a folder is written as \040 (proc(5)).
        top, mounted = (
            re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)
            for word in place.split()[3:5]
        )
        group, inside = PurePosixPath(own[hierarchy]), PurePosixPath()
        if group.is_relative_to(top) and ".." not in group.parts:
            inside = group.relative_to(top)
        for each in (inside, *inside.parents):
            yield f"the control group {PurePosixPath('/', each)}", root / mounted[1:] / each


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
