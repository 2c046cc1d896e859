"""Ends a wait for an engine that no longer answers.

Engines wait for their processes without a limit. They may not see that one has ended: vLLM swallows
Ctrl-C at a moment of its start, when the same Ctrl-C has ended the processes. They never see that
one is stopped, or that a thread which should answer is gone. So a thread looks on: it kills
processes that do no work, which ends most waits, and breaks into those that go on without any.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import FrameType
from typing import NamedTuple

import psutil

from llenergymeasure.exceptions import BackendError
from llenergymeasure.processes import kill_all

# The last of those that have no meaning: alarms stay those of the caller, or of a C library, whose
# handlers Python knows nothing of and could not put back.
_SIGNAL = signal.SIGRTMAX
_LOOKED_WITHIN_S = 30.0  # the system may hold on to a look at a process
_STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


class Patience(NamedTuple):
    """How long an engine may owe an answer, s; a look lies between each second and the next.

    Attributes:
        stopped_s: While one of its processes is stopped (SIGSTOP, a debugger).
        idle_s: While its processes and this one are at rest and read no disk.
        at_rest: Share of a CPU that each of its processes may use without being at work, on
            average: one of vLLM looks for work again and again, which takes 0.013.
        gone_s: While none of its processes is left: it may see that by itself, and say why.
        whole_s: In all; ``None`` for as long as it works.
        limit_after_s: After that the limit of the experiment is asked for, where it has one.
        starts: Whether its processes may be about to start, and are looked for.
        look_every_s: Between two looks.
    """

    stopped_s: float = 10.0
    idle_s: float = 120.0
    at_rest: float = 0.03
    gone_s: float = 5.0
    whole_s: float | None = None
    limit_after_s: float = 300.0
    starts: bool = False
    look_every_s: float = 1.0


LOADING = Patience(idle_s=600.0, at_rest=0.005, starts=True)
"""A model may come over a slow network, or wait for another process that fetches it."""

WORKING = Patience()
"""A step of an engine takes CPU time, if only to tell a GPU what to do."""

CLOSING = Patience(whole_s=30.0)
"""An engine has nothing to do any more but to end."""

_longest_s: ContextVar[Callable[[], float]] = ContextVar("_longest_s", default=lambda: math.inf)


@contextlib.contextmanager
def no_answer_later_than(limit_s: Callable[[], float]) -> Iterator[None]:
    """Bound every single answer inside the block, where nobody supervises it from outside.

    Args:
        limit_s: Gives the longest time, s; asked from another thread, and only of a long wait.
    """
    token = _longest_s.set(limit_s)
    try:
        yield
    finally:
        _longest_s.reset(token)


@contextlib.contextmanager
def answering(
    engine: str, phase: str, processes: Known, patience: Patience = WORKING
) -> Iterator[None]:
    """Have every wait for an engine inside the block end.

    In a thread that is not the main one, a wait that goes on without processes is left alone.

    Args:
        engine: What the user calls it.
        phase: What it is asked to do, for the message.
        processes: Its processes.
        patience: How long it may owe an answer.

    Raises:
        BackendError: It did not answer in time; its processes have been killed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    watch = _Watch(processes, patience, breaks_in=in_main)
    before = signal.signal(_SIGNAL, _break_off) if in_main else None
    watch.start()
    try:
        try:
            yield
        finally:
            watch.end()
    except Exception as error:
        if watch.verdict is None:
            raise
        silent = BackendError(
            f"{engine} no longer answers: {watch.verdict}\n    {watch.remedy}", where=phase
        )
        for note in getattr(error, "__notes__", ()):
            silent.add_note(note)
        raise silent from error
    finally:
        if in_main:
            signal.signal(_SIGNAL, before)


class Known:
    """The processes of an engine; looking for them in all of the machine's is dear.

    Args:
        known: Those that are known; the ones that were found last, later.
        find: Lists those that run; by default there are no others than those known.
    """

    def __init__(
        self,
        known: Sequence[psutil.Process] = (),
        find: Callable[[], list[psutil.Process]] | None = None,
    ) -> None:
        self.known = list(known)
        self.find = find or (lambda: list(known))

    def alive(self, *, again: bool) -> list[psutil.Process]:
        """Tell which of them live.

        Args:
            again: Look for others as well, as is done where one has ended.
        """
        alive = self._alive()
        if again or len(alive) < len(self.known):
            self.known = self.find() or self.known
            alive = self._alive()
        return alive

    def _alive(self) -> list[psutil.Process]:
        return [process for process in self.known if not has_ended(process)]


class _Watch(threading.Thread):
    """Looks on; see :func:`answering`.

    Attributes:
        verdict: Why the wait is broken off, once it is.
        remedy: What helps.
    """

    verdict: str | None = None
    remedy = "run it again; if it comes back, the end of log.txt tells what the engine was doing"

    def __init__(self, processes: Known, patience: Patience, *, breaks_in: bool) -> None:
        super().__init__(name="engine-answers", daemon=True)
        self._processes, self._patience, self._breaks_in = processes, patience, breaks_in
        self._limit_s, self._over = _longest_s.get(), threading.Event()
        self._stopped_s = self._idle_s = self._gone_s = self._whole_s = self._worked_s = 0.0

    def end(self) -> None:
        """Look no more; safe to call twice."""
        self._over.set()
        self.join(_LOOKED_WITHIN_S)

    def run(self) -> None:
        """Look until the block is over, or has been broken off."""
        step_s = self._patience.look_every_s
        while not self._over.wait(step_s):  # looks count, not a clock: we may be stopped as well
            had_some, patience = bool(self._processes.known), self._patience
            suspect = self._idle_s > patience.idle_s / 2
            alive = self._processes.alive(again=suspect or (patience.starts and not had_some))
            self._whole_s += step_s
            self._gone_s = self._gone_s + step_s if had_some and not alive else 0.0
            if alive and self.verdict is None:
                self._judge(alive, step_s)
            if self.verdict is not None:
                kill_all(self._processes.find())
            if self._gone_s >= patience.gone_s and self._breaks_in:
                self.verdict = self.verdict or "all of its processes have ended"
                signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
                return

    def _judge(self, alive: Sequence[psutil.Process], step_s: float) -> None:
        patience, statuses = self._patience, [_status(process) for process in alive]
        stopped = [p for p, status in zip(alive, statuses, strict=True) if status in _STOPPED]
        self._stopped_s = self._stopped_s + step_s if stopped else 0.0
        own_s = time.process_time() - time.thread_time()  # but for that of looking on
        worked_s = own_s + sum(map(_cpu_s, alive))
        at_rest_s = patience.at_rest * patience.idle_s * len(alive)
        works = abs(worked_s - self._worked_s) > at_rest_s
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
        elif self._whole_s >= (whole_s := self._longest_s()):
            self.verdict = f"it has not done that within {whole_s:g} s"

    def _longest_s(self) -> float:
        if self._patience.whole_s is not None:
            return self._patience.whole_s
        return self._limit_s() if self._whole_s >= self._patience.limit_after_s else math.inf


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process is gone, or waits for its parent to notice."""
    return _status(process) == psutil.STATUS_ZOMBIE


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _break_off(_number: int, _frame: FrameType | None) -> None:
    raise RuntimeError("broke off a wait for an engine without processes")
