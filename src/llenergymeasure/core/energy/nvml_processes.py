"""Who computes on a GPU, as seen from the sampling process; standard library only.

NVML tells process ids of the host. In a container they may be meaningless, or hidden: what is
known is said, and what it means is decided elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

# PROC_PID_INIT_INO of the Linux sources (include/linux/proc_ns.h): the host's own namespace.
HOST_NAMESPACE = "pid:[4026531836]"

Kin = Literal["own", "other", "unseen"]


class ProcessWatch:
    """Keeps every process that was seen on a device, and whether it belongs to the experiment.

    Args:
        nvml: A module with the functions of ``pynvml``.
        owner_pid: The experiment's process.
        host_pids: Whether process ids here are the host's; by default found out.
        proc: Where the kernel shows processes.
    """

    def __init__(
        self,
        nvml: Any,
        owner_pid: int,
        host_pids: bool | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._nvml, self._owner, self._proc = nvml, owner_pid, proc
        self.host_pids = pids_are_of_the_host(proc) if host_pids is None else host_pids
        self.seen: dict[str, list[tuple[int, Kin]]] = {}
        self._known: set[tuple[str, int]] = set()

    def clear(self) -> None:
        """Forget who was seen."""
        self.seen = {}
        self._known.clear()

    def count(self, uuid: str, handle: Any) -> int:
        """Look at a device once; give how many compute on it.

        Raises:
            NVMLError: It does not tell.
        """
        pids = [process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        seen = self.seen.setdefault(uuid, [])
        for pid in pids:
            if (uuid, pid) not in self._known:
                self._known.add((uuid, pid))
                seen.append((pid, kin(pid, self._owner, self._proc)))
        return len(pids)


def kin(pid: int, owner: int, proc: Path = Path("/proc")) -> Kin:
    """Say whether a process is the owner or comes from it.

    Returns:
        ``own``, ``other``, or ``unseen`` where there is no such process here.
    """
    if not (proc / str(pid)).exists():
        return "unseen"
    while pid > 1:
        if pid == owner:
            return "own"
        pid = _parent(pid, proc)
    return "other"


def pids_are_of_the_host(proc: Path = Path("/proc")) -> bool:
    """Tell whether this process counts processes as the host does."""
    try:
        return str((proc / "self" / "ns" / "pid").readlink()) == HOST_NAMESPACE
    except OSError:
        return False


def _parent(pid: int, proc: Path) -> int:
    """Give a process's parent, or 0 when it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])  # the name before it may hold anything
