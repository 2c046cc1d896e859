"""Ends a wait for an engine that no longer answers.

Engines wait for their processes without a limit. They may not see that one has ended: vLLM swallows
Ctrl-C at a moment of its start, when the same Ctrl-C has ended the processes. They never see that
one is stopped, or that a thread which should answer is gone. So a thread looks on: it kills
processes that do no work, which ends most waits, and breaks into those that go on without any.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple

import psutil

from llenergymeasure.exceptions import BackendError
from llenergymeasure.processes import kill_all

_SIGNAL = signal.SIGALRM
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
_AT_REST = 0.01  # share of a CPU that an engine may use without being at work


class Patience(NamedTuple):
    """How long an engine may owe an answer, s; a look lies between each second and the next.

    Attributes:
        stopped_s: While one of its processes is stopped (SIGSTOP, a debugger).
        idle_s: While its processes and this one together use no CPU and read no disk.
        gone_s: While none of its processes is left: it may see that by itself, and say why.
        whole_s: In all; ``None`` for as long as it works.
        look_every_s: Between two looks.
    """

    stopped_s: float = 10.0
    idle_s: float = 120.0
    gone_s: float = 5.0
    whole_s: float | None = None
    look_every_s: float = 1.0


LOADING = Patience(idle_s=600.0)
"""A model may come over a slow network, or wait for another process that fetches it."""

WORKING = Patience()
"""A step of an engine takes CPU time, if only to tell a GPU what to do."""

CLOSING = Patience(whole_s=30.0)
"""An engine has nothing to do any more but to end."""

Processes = Callable[[], Sequence[psutil.Process]]


@contextlib.contextmanager
def answering(
    engine: str, phase: str, processes: Processes, patience: Patience = WORKING
) -> Iterator[None]:
    """Have every wait for an engine inside the block end.

    In a thread that is not the main one, a wait that goes on without processes is left alone.

    Args:
        engine: What the user calls it.
        phase: What it is asked to do, for the message.
        processes: Lists its processes that run.
        patience: How long it may owe an answer.

    Raises:
        BackendError: It did not answer in time; its processes have been killed.
    """
    watch = _Watch(processes, patience)
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(_SIGNAL, _break_off) if in_main else None
    watch.start()
    try:
        yield
    except Exception as error:
        watch.end()
        if watch.verdict is None:
            raise
        raise BackendError(
            f"{engine} no longer answers: {watch.verdict}\n    {watch.remedy}", where=phase
        ) from error
    finally:
        watch.end()
        if in_main:
            signal.signal(_SIGNAL, before)


class _Watch(threading.Thread):
    """Looks on; see :func:`answering`.

    Attributes:
        verdict: Why the wait is broken off, once it is.
        remedy: What helps.
    """

    verdict: str | None = None
    remedy = "run it again; if it comes back, the end of log.txt tells what the engine was doing"

    def __init__(self, processes: Processes, patience: Patience) -> None:
        super().__init__(name="engine-answers", daemon=True)
        self._list, self._patience = processes, patience
        self._over = threading.Event()
        self._known: list[psutil.Process] = []
        self._stopped_s = self._idle_s = self._gone_s = self._whole_s = self._worked_s = 0.0

    def end(self) -> None:
        """Look no more; safe to call twice."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look until the block is over, or has been broken off."""
        step_s = self._patience.look_every_s
        while not self._over.wait(step_s):  # looks count, not a clock: we may be stopped as well
            had_some, alive = bool(self._known), self._alive()
            self._whole_s += step_s
            if alive and self.verdict is None:
                self._judge(alive, step_s)
            if self.verdict is not None:
                kill_all(self._list())
            if alive or not (had_some or self._gone_s):
                self._gone_s = 0.0
            elif (gone_s := self._gone_s + step_s) < self._patience.gone_s:
                self._gone_s = gone_s
            else:
                self.verdict = self.verdict or "all of its processes have ended"
                signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
                return

    def _alive(self) -> list[psutil.Process]:
        """Tell which of its processes live; looking for them in all of the machine's is dear."""
        alive = [process for process in self._known if _status(process) != psutil.STATUS_ZOMBIE]
        suspect = self._idle_s > self._patience.idle_s / 2
        if len(alive) < len(self._known) or not alive or suspect:
            alive = self._known = list(self._list())
        return alive

    def _judge(self, alive: Sequence[psutil.Process], step_s: float) -> None:
        patience, statuses = self._patience, [_status(process) for process in alive]
        stopped = [p for p, status in zip(alive, statuses, strict=True) if status in _STOPPED]
        self._stopped_s = self._stopped_s + step_s if stopped else 0.0
        own_s = time.process_time() - time.thread_time()  # but for that of looking on
        worked_s = own_s + sum(map(_cpu_s, alive))
        works = abs(worked_s - self._worked_s) > _AT_REST * patience.idle_s
        if works or psutil.STATUS_DISK_SLEEP in statuses:
            self._idle_s, self._worked_s = 0.0, worked_s
        self._idle_s += step_s
        if self._stopped_s >= patience.stopped_s:
            self.verdict = (
                f"its process {stopped[0].pid} has been stopped for {patience.stopped_s:g} s"
            )
            self.remedy = "let nothing stop processes of a run: no kill -STOP, no debugger"
        elif self._idle_s >= patience.idle_s:
            self.verdict = f"its processes have done nothing for {patience.idle_s:g} s"
        elif patience.whole_s is not None and self._whole_s >= patience.whole_s:
            self.verdict = f"it has not done that within {patience.whole_s:g} s"


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _break_off(_number: int, _frame: FrameType | None) -> None:
    raise RuntimeError("broke off a wait for an engine without processes")
