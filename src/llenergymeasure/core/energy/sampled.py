"""A reader of quantities inside the sampling process; standard library only.

What a source's own reader adds is which quantities its devices offer, and how each is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from llenergymeasure.core.energy.cadence import Cadence
from llenergymeasure.core.energy.sampling_child import Row

Read = Callable[[], float]


class Quantity(NamedTuple):
    """One thing that is read of one device.

    Attributes:
        channel: What it is, with its unit.
        device: Whose it is.
        read: Reads it in that unit.
        every: It is read at every so many polls.
    """

    channel: str
    device: str
    read: Read
    every: int = 1


class SampledReader:
    """Reads what is due at each poll; what fails is asked again when it is due again.

    Args:
        devices: Names of the devices, in the order in which they are told.
        errors: What a read raises where a device does not answer.

    Attributes:
        period_s: Time from one poll to the next, seconds.
        quantities: What is read, in the order of reading.
        refused: Why a device does not offer something, by device and channel.
    """

    period_s: float

    def __init__(self, devices: Iterable[str], errors: tuple[type[Exception], ...]) -> None:
        self.quantities: list[Quantity] = []
        self.refused: dict[str, dict[str, str]] = {device: {} for device in devices}
        self._errors = errors
        self._failing: dict[Quantity, str] = {}

    @cached_property
    def cadence(self) -> Cadence:
        """When what is read, by positions in ``quantities``; by default at their steady rates."""
        return Cadence(self.period_s, [one.every for one in self.quantities])

    def kept(self, offered: Iterable[Quantity]) -> list[Quantity]:
        """Try each quantity once; one that its device does not have is not asked for again."""
        kept = []
        for one in offered:
            reason = self.refusal(one.read)
            if reason is None:
                kept.append(one)
                self.refused[one.device].pop(one.channel, None)
            else:
                self.refused[one.device][one.channel] = reason
        return kept

    def refusal(self, read: Read) -> str | None:
        """Say why something will never be told; ``None`` when it is, or might be later."""
        try:
            read()
        except self._errors as error:
            return said(error)
        return None

    def begin(self) -> None:
        """Begin a window; everything is due at its first poll."""
        self._failing.clear()
        self.cadence.begin(time.monotonic_ns())

    def poll(self) -> Iterator[Row]:
        """Read what is due."""
        return self.read(self.cadence.turn())

    def read(self, due: Sequence[int]) -> Iterator[Row]:
        """Read quantities, named by their positions."""
        for index in due:
            one = self.quantities[index]
            try:
                value = one.read()
            except self._errors as error:
                self._failing[one] = said(error)
                continue
            if self._failing:
                self._failing.pop(one, None)
            self.cadence.saw(index, value, time.monotonic_ns())
            yield Row(one.channel, one.device, value)

    def end(self) -> dict[str, Any]:
        """End the window; give what each device offers and refuses, and what failed last."""
        offered: dict[str, list[str]] = {device: [] for device in self.refused}
        for one in self.quantities:
            offered[one.device].append(one.channel)
        failing: dict[str, dict[str, str]] = {device: {} for device in self.refused}
        for one, reason in self._failing.items():
            failing[one.device][one.channel] = reason
        return {"offered": offered, "refused": self.refused, "failing": failing}

    def close(self) -> None:
        """Let go of the meter; by default nothing outlives the process."""


def said(error: Exception) -> str:
    """Give what an error says, or at least what it is."""
    return str(error) or type(error).__name__
