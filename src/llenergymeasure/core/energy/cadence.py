"""The reading plan of a sampling process: when it wakes, and what it reads then.

No clock and no meter: times come in as numbers, so that the sampling process plays the plan in real
time and a benchmark the very same one on a virtual clock. Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NS = 1e9
SLOW_POLL_S = 0.25  # of what changes slowly: within the guard on either side of a window once


class Cadence:
    """Turns at a steady distance; each quantity is read at every so many of them.

    A late wake-up delays every quantity of its turn. Turns that were due meanwhile are left out,
    so that the plan neither drifts nor catches up.

    Args:
        period_s: From one turn to the next, seconds.
        every: Each quantity is read at every so many turns, in the order of reading.
    """

    def __init__(self, period_s: float, every: Sequence[int] = ()) -> None:
        self.period_s = period_s
        self.every = tuple(every)
        self._period_ns = max(1, round(period_s * NS))
        self._due_ns = 0
        self._turns = 0

    def begin(self, now_ns: int) -> None:
        """Begin a window: its first turn is now, and everything is due at it."""
        self._due_ns, self._turns = now_ns, 0

    def turn(self) -> list[int]:
        """Take a turn: give what is due, as positions in the order of reading."""
        number, self._turns = self._turns, self._turns + 1
        return [index for index, every in enumerate(self.every) if number % every == 0]

    def next_ns(self, now_ns: int) -> int:
        """Give when the next turn is due, once a turn is over; turns missed by now are left out."""
        late_ns = max(0, now_ns - self._due_ns)
        self._due_ns += (late_ns // self._period_ns + 1) * self._period_ns
        return self._due_ns


class Tiers(NamedTuple):
    """How many quantities of GPUs are read, in the order of reading.

    Attributes:
        counters: Energy counters.
        powers: Readings of power.
        states: Readings of what follows the load, such as clocks.
        slow: Readings of what changes slowly or is read only for comparison.
    """

    counters: int = 0
    powers: int = 0
    states: int = 0
    slow: int = 0


def gpu_cadence(tiers: Tiers, counter_poll_s: float, power_poll_s: float) -> Cadence:
    """Plan the readings of GPUs.

    Args:
        tiers: What is read.
        counter_poll_s: From one poll of the counters to the next, and of power without a counter.
        power_poll_s: The same of power and state, rounded to a multiple of the other.
    """
    at_some = turns_in(power_poll_s, counter_poll_s)
    at_few = turns_in(SLOW_POLL_S, counter_poll_s)
    rates = (1, at_some if tiers.counters else 1, at_some, at_few)
    every = [rate for rate, count in zip(rates, tiers, strict=True) for _ in range(count)]
    return Cadence(counter_poll_s, every)


def turns_in(seconds: float, period_s: float) -> int:
    """Give the number of turns that comes nearest to a time."""
    return max(1, round(seconds / period_s))
