"""Another reader inside the sampling process, with the state of NVIDIA GPUs beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.core.energy.nvml_reader import NVMLReader
from llenergymeasure.core.energy.sampling_child import Reader, Row, make_reader


class StateBeside:
    """Another reader, and NVML beside it in the same sampling process.

    Args:
        reader: The other one, as ``"module:Class"``.
        arguments: Its keyword arguments.
        state: Those of :class:`~.nvml_reader.NVMLReader`.
    """

    def __init__(self, reader: str, arguments: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self._state: Reader = NVMLReader(**state)
        self._other = make_reader(reader, dict(arguments))
        self.period_s = self._state.period_s
        self._every = max(1, round(self._other.period_s / self.period_s))
        self._polls = 0

    def begin(self) -> None:
        """Begin a window."""
        self._state.begin()
        self._other.begin()
        self._polls = 0

    def poll(self) -> Iterator[Row]:
        """Read the state, and the other where that is due."""
        number, self._polls = self._polls, self._polls + 1
        if number % self._every == 0:
            yield from self._other.poll()
        yield from self._state.poll()

    def end(self) -> dict[str, Any]:
        """End the window; give what the other made of it, and the state."""
        return {**self._other.end(), "state": self._state.end()}

    def close(self) -> None:
        """Let go of both."""
        self._other.close()
        self._state.close()
