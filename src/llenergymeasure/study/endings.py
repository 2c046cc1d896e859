"""What a signal that ended a worker tells: a crash, somebody's wish, or that memory ran out."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping

from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.allowance import read_oom_kills
from llenergymeasure.orchestration.order import WorkOrder

_CRASHES = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")
_LIMITS = {
    "SIGXCPU": "it has used up the CPU time that it may (ulimit -t)",
    "SIGXFSZ": "a file has grown beyond what it may (ulimit -f)",
}
_IN_GOOD_ORDER = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a worker that was told to end, and did."""


def signal_of(code: int | None) -> int | None:
    """Give the number of the signal that ended a worker, by its exit code; ``None`` if none did."""
    if code is None or (code >= 0 and code not in _IN_GOOD_ORDER):
        return None
    return -code if code < 0 else code - 128


class MemoryWatch:
    """Notices when the kernel kills for want of memory.

    Args:
        count: Counts what it has killed so far, by what counts.
    """

    def __init__(self, count: Callable[[], Mapping[str, int]] = read_oom_kills) -> None:
        self._count, self._before = count, count()

    def ran_out(self) -> str | None:
        """Name what has counted a kill since; ``None`` where nothing has."""
        now = self._count().items()
        return next((name for name, kills in now if kills > self._before.get(name, kills)), None)

    def knows(self) -> bool:
        """Tell whether such kills are counted at all."""
        return bool(self._before)


def told_by_signal(number: int, order: WorkOrder, memory: MemoryWatch) -> str:
    """Say what ended a worker that got a signal which the study did not send.

    Args:
        number: Of the signal.
        order: What the worker was told.
        memory: Has watched since it started.
    """
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    said = f"the worker was ended by {name}"
    if name in _CRASHES:
        return f"{said}: the engine, or native code it uses, crashed"
    if name in _LIMITS:
        return f"{said}: {_LIMITS[name]}"
    backend = order.config.backend
    less = f"lower {backend}.{backend_entry(backend).batch_field} or max_new_tokens, or take a "
    less += "smaller model"
    if number != signal.SIGKILL:
        return f"{said}, which a person, a scheduler or a time limit sent"
    if (where := memory.ran_out()) is not None:
        return f"{said}: memory ran out, as the kernel's count of kills in {where} says; {less}"
    if memory.knows():
        return (
            f"{said}, and not by the kernel for want of memory: a person, a scheduler or a guard "
            "of memory such as systemd-oomd or earlyoom sent it"
        )
    return f"{said}, and this system does not tell why; if memory ran out, {less}"
