"""The parent side of the sampler: a small process that reads a meter, and no thread in this one.

Sampling in a thread of the inference process would fight the generation loop for the interpreter
lock, lose its own cadence and slow what it measures. The child (``sampling_child``) is spoken to
over a channel of its own; what a library prints goes to a log whose tail is part of every failure.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import weakref
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from llenergymeasure.domain.energy import Reading, SamplingCost
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError
from llenergymeasure.processes import ChildProcess, same_modules

WHERE = "energy_backend"
REMEDY = "set energy_backend: none to run without energy figures"
_MODULE = "llenergymeasure.core.energy.sampling_child"
LOOK_S = 0.5  # how often a wait for an answer checks that the child still lives


@dataclass(frozen=True, slots=True)
class ReaderSpec:
    """What the child is to run.

    Attributes:
        path: ``"module:Class"`` of a :class:`~.sampling_child.Reader`.
        arguments: Its keyword arguments, as data that JSON can hold.
    """

    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SamplerLimits:
    """Longest waits for the child, in seconds."""

    start_s: float = 60.0
    answer_s: float = 15.0
    exit_s: float = 2.0


class WatchedEnd(NamedTuple):
    """The end of a warm-up batch that rest followed.

    Attributes:
        at_ns: When it was, monotonic clock.
        readings: Every reading around it.
    """

    at_ns: int
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the child recorded over one window.

    Attributes:
        readings: Every reading, in the order it was taken.
        summary: What the reader itself made of the window.
        cost: What taking the readings cost.
        span: From the child's ``begin`` to its ``end``.
        step_times_ns: When each step of the load began, as far as the caller told.
        rest_from_ns: From when on what came before the window no longer shows.
        ends: Ends of warm-up batches.
    """

    readings: tuple[Reading, ...]
    summary: dict[str, Any]
    cost: SamplingCost
    span: Window
    step_times_ns: Sequence[int] = ()
    rest_from_ns: int = 0
    ends: tuple[WatchedEnd, ...] = ()


@dataclass(slots=True)
class _Owner:
    """The one sampler that may run in this process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pid: int = 0
    _sampler: weakref.ref[SamplerProcess] | None = None

    def claim(self, sampler: SamplerProcess) -> None:
        """Make a sampler the one that runs.

        Raises:
            BackendError: Another one runs.
        """
        with self._lock:
            # A fork inherits this table, but not the child that it speaks of.
            current = self._sampler() if self._sampler and self._pid == os.getpid() else None
            if current is not None and current is not sampler:
                raise BackendError(
                    f"an energy source already runs in this process ({current.reader.path}); "
                    "stop it before another one starts",
                    where=WHERE,
                )
            self._sampler, self._pid = weakref.ref(sampler), os.getpid()

    def release(self, sampler: SamplerProcess) -> None:
        """Let the next one run."""
        with self._lock:
            if self._sampler is not None and self._sampler() is sampler:
                self._sampler = None


_OWNER = _Owner()


class SamplerProcess:
    """A reader in a process of its own; ended on every path.

    After a failure every call but :meth:`stop` raises the same :class:`BackendError`.
    """

    def __init__(self, reader: ReaderSpec, limits: SamplerLimits | None = None) -> None:
        self.reader = reader
        self._limits = limits or SamplerLimits()
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, or ``None`` when there is none."""
        return self._child.process.pid if self._child else None

    def start(self) -> None:
        """Start the child; return once its first reading is in.

        Raises:
            BackendError: Another sampler runs, or the child failed or was too slow.
        """
        if self._child is not None:
            raise BackendError("this energy source is already started", where=WHERE)
        _OWNER.claim(self)
        try:
            self._child = _Child(self.reader)
            self._child.receive("start", self._limits.start_s)
        except OSError as error:
            self.stop()
            raise BackendError(
                f"no sampling process could be started: {error}; {REMEDY}", where=WHERE
            ) from error
        except BaseException:
            self.stop()
            raise

    def begin(self) -> None:
        """Begin a window; return once its first reading is in.

        Raises:
            BackendError: The child is gone or does not answer.
        """
        self._ask("begin")

    def end(self) -> Recorded:
        """End the window and give what was recorded.

        Raises:
            BackendError: The child is gone or does not answer.
        """
        child, header = self._ask("end")
        columns = [child.receive_bytes("end", self._limits.answer_s) for _ in range(4)]
        readings = _readings(header["keys"], columns)
        cost = sampling_cost(readings, header["cpu_seconds"])
        return Recorded(readings, header["summary"], cost, Window(*header["span_ns"]))

    def stop(self) -> None:
        """End the child, forcibly if need be; safe to call twice and after a failure."""
        child, self._child = self._child, None
        try:
            if child is not None:
                child.close(self._limits.exit_s)
        finally:
            _OWNER.release(self)

    def _ask(self, command: str) -> tuple[_Child, dict[str, Any]]:
        if self._child is None:
            raise BackendError("this energy source is not started", where=WHERE)
        self._child.send(command)
        return self._child, self._child.receive(command, self._limits.answer_s)


class _Child:
    """One child process and its answers."""

    def __init__(self, reader: ReaderSpec) -> None:
        self._reader = reader
        self._failure: str | None = None
        job = {"reader": reader.path, "arguments": dict(reader.arguments)}
        self.process = ChildProcess(_MODULE, job, environment=same_modules())
        self._channel = Connection(self.process.end.detach())

    def send(self, command: str) -> None:
        """Pass a command on; a dead child shows in the answer."""
        with suppress(OSError):
            self._channel.send_bytes(command.encode())

    def receive(self, command: str, limit_s: float) -> dict[str, Any]:
        """Wait for the answer to a command."""
        header: dict[str, Any] = json.loads(self.receive_bytes(command, limit_s))
        return header

    def receive_bytes(self, command: str, limit_s: float) -> bytes:
        """Wait for one message.

        Raises:
            BackendError: The child ended, or is too slow (and was ended).
        """
        if self._failure is None:
            try:
                if self._wait(limit_s):
                    return self._channel.recv_bytes()
                self._failure = f"did not answer '{command}' within {limit_s:g} s and was ended"
                self.process.kill()
            except (EOFError, OSError):
                self._failure = f"{self.process.last_exit()} before it answered '{command}'"
        said = self.process.printed()
        raise BackendError(
            f"the energy sampler ({self._reader.path}) {self._failure}"
            + (f"; it last said:\n{said}\n{REMEDY}" if said else f"; {REMEDY}"),
            where=WHERE,
        )

    def close(self, exit_s: float) -> None:
        """End the process, asking it first."""
        self.send("stop")
        try:
            self.process.close(exit_s if self._failure is None else 0)
        finally:
            self._channel.close()

    def _wait(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self._channel.poll(min(LOOK_S, left_s)):
                return True
            # Another fork of this process may hold the child's end of the channel open.
            if self.process.wait(0) is not None and not self._channel.poll():
                raise EOFError
        return False


def _readings(keys: Sequence[Sequence[str]], columns: Sequence[bytes]) -> tuple[Reading, ...]:
    key, before_ns, after_ns, value = (array(code) for code in "Hqqd")
    for column, data in zip((key, before_ns, after_ns, value), columns, strict=True):
        column.frombytes(data)
    rows = zip(key, before_ns, after_ns, value, strict=True)
    return tuple(
        Reading(keys[k][0], keys[k][1], before, after, read) for k, before, after, read in rows
    )


def sampling_cost(readings: Sequence[Reading], cpu_seconds: float) -> SamplingCost:
    """Sum up what readings cost; times are ``None`` where nothing was read."""
    times_ms = sorted((reading.after_ns - reading.before_ns) / 1e6 for reading in readings)
    count = len(times_ms)
    return SamplingCost(
        reads=count,
        mean_read_ms=sum(times_ms) / count if count else None,
        p99_read_ms=times_ms[math.ceil(0.99 * count) - 1] if count else None,
        cpu_seconds=cpu_seconds,
    )
