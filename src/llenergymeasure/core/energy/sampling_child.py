"""The child side of the sampler: what runs in the sampling process.

It is ``python -m llenergymeasure.core.energy.sampling_child JOB``. Only the standard library is
imported here, so that the process starts in tens of milliseconds and stays small. A reader that
polls fast lives in a module that does the same.
"""

from __future__ import annotations

import importlib
import json
import math
import queue
import sys
import time
from array import array
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from llenergymeasure import lifeline
from llenergymeasure.core.energy.cadence import Cadence


class Row(NamedTuple):
    """What one step of a reader gave.

    Attributes:
        channel: What was read, with its unit, e.g. ``"gpu_power_w"``.
        device: UUID or name of the device it belongs to.
        value: The reading, in the unit the channel names.
    """

    channel: str
    device: str
    value: float


class Reader(Protocol):
    """What reads a meter, inside the sampling process.

    Made from arguments that JSON can hold. An exception out of any method ends the process; the
    parent reports it with the traceback.
    """

    @property
    def cadence(self) -> Cadence:
        """When it is to be polled."""
        ...

    def begin(self) -> None:
        """Take note that a window begins, and begin the cadence."""
        ...

    def poll(self) -> Iterator[Row]:
        """Read once, one quantity a step: each step is bracketed by time stamps of its own."""
        ...

    def end(self) -> dict[str, Any]:
        """Take note that a window ends; give what the reader itself made of it, as plain data."""
        ...

    def close(self) -> None:
        """Let go of the meter."""
        ...


class Rows:
    """Readings in memory, 26 bytes each."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], int] = {}
        self._key = array("H")
        self._before_ns = array("q")
        self._after_ns = array("q")
        self._value = array("d")

    def add(self, row: Row, before_ns: int, after_ns: int) -> None:
        """Keep one reading."""
        key = self._keys.setdefault((row.channel, row.device), len(self._keys))
        self._key.append(key)
        self._before_ns.append(before_ns)
        self._after_ns.append(after_ns)
        self._value.append(row.value)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Channel and device behind each key, in the order of the keys."""
        return list(self._keys)

    def columns(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Give key, time before, time after and value as raw arrays of H, q, q and d."""
        columns = (self._key, self._before_ns, self._after_ns, self._value)
        return tuple(column.tobytes() for column in columns)  # type: ignore[return-value]


class SamplingLoop:
    """Polls while a window is open, sleeps otherwise, and answers the parent's commands."""

    def __init__(
        self, reader: Reader, inbox: queue.SimpleQueue[str], connection: Connection
    ) -> None:
        self._reader = reader
        self._inbox = inbox
        self._connection = connection
        self._deadline_ns: int | None = None
        self._rows = Rows()
        self._span_from_ns = 0
        self._cpu_from_s = 0.0

    def run(self) -> None:
        """Work until the parent says stop."""
        answers = {"begin": self._begin, "end": self._end}
        self._poll()
        self._reply({})
        while (command := self._next()) != "stop":
            if command is None:
                self._poll_in_window()
            else:
                answers[command]()
        self._reader.close()

    def _next(self) -> str | None:
        """Wait for a command; ``None`` once the next poll is due."""
        if self._deadline_ns is None:
            return self._inbox.get()
        try:
            return self._inbox.get(timeout=max(0, self._deadline_ns - time.monotonic_ns()) / 1e9)
        except queue.Empty:
            return None

    def _poll_in_window(self) -> None:
        self._poll()
        self._deadline_ns = self._reader.cadence.next_ns(time.monotonic_ns())

    def _poll(self) -> None:
        steps = self._reader.poll()
        while True:
            before_ns = time.monotonic_ns()
            row = next(steps, None)
            after_ns = time.monotonic_ns()
            if row is None:
                return
            if math.isfinite(row.value):  # a meter that says nan says nothing
                self._rows.add(row, before_ns, after_ns)

    def _begin(self) -> None:
        self._rows = Rows()
        self._cpu_from_s = time.process_time()
        self._reader.begin()
        self._span_from_ns = time.monotonic_ns()
        self._poll_in_window()
        self._reply({})

    def _end(self) -> None:
        span_to_ns = time.monotonic_ns()
        self._poll()
        summary = self._reader.end()
        self._deadline_ns = None
        rows, self._rows = self._rows, Rows()
        header = {
            "summary": summary,
            "keys": rows.keys,
            "span_ns": [self._span_from_ns, span_to_ns],
            "cpu_seconds": time.process_time() - self._cpu_from_s,
        }
        self._reply(header, *rows.columns())

    def _reply(self, header: dict[str, Any], *columns: bytes) -> None:
        self._connection.send_bytes(json.dumps(header).encode())
        for column in columns:
            self._connection.send_bytes(column)


def make_reader(path: str, arguments: dict[str, Any]) -> Reader:
    """Import ``"module:Class"`` and make the reader."""
    module, _, name = path.partition(":")
    reader: Reader = getattr(importlib.import_module(module), name)(**arguments)
    return reader


def main(arguments: list[str]) -> int:
    """Run one reader; everything a library prints goes to standard error, never to the channel."""
    job = json.loads(arguments[0])
    line = lifeline.answer(job["parent"], job["fd"])
    reader = make_reader(job["reader"], job["arguments"])
    SamplingLoop(reader, line.inbox, line.channel).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
