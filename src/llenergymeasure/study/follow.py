"""Reading what a worker tells while it runs: ``events.jsonl``, as it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure.orchestration.events import Event

WAITING = "wait"
"""Phase in which an experiment waits for a device that another one uses."""


class EventReader:
    """Reads each line once, when it is whole.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._read_to, self._pending = path, 0, b""

    def fresh(self) -> Iterator[Event]:
        """Yield the events since the last call; a line that says nothing is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError:  # not there yet, or its directory is gone
            return
        self._read_to += len(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            if (event := _event(line)) is not None:
                yield event


def _event(line: bytes) -> Event | None:
    try:
        event = Event(**json.loads(line))
    except (ValueError, TypeError):  # cut off by a full disk, or of another version
        return None
    return event if isinstance(event.phase, str) and isinstance(event.t_ns, int) else None


class Progress:
    """Where an experiment stands, and how long it has waited for a device.

    Attributes:
        phase: What it is doing.
    """

    def __init__(self) -> None:
        self.phase = "start"
        self._waited_ns = 0
        self._since_ns: int | None = None

    def note(self, event: Event) -> None:
        """Take an event into account."""
        if self._since_ns is not None and event.phase != WAITING:
            self._waited_ns += event.t_ns - self._since_ns
            self._since_ns = None
        elif self._since_ns is None and event.phase == WAITING:
            self._since_ns = event.t_ns
        self.phase = event.phase

    def waited_s(self, now_ns: int) -> float:
        """Sum the time spent waiting for a device until now, a wait that lasts included."""
        lasting_ns = 0 if self._since_ns is None else now_ns - self._since_ns
        return (self._waited_ns + lasting_ns) / 1e9
