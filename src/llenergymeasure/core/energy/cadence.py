"""The reading plan of a sampling process: when it wakes, and what it reads then.

No clock and no meter: times come in as numbers, so that the sampling process plays the plan in real
time and a benchmark the very same one on a virtual clock. Standard library only.

A wake-up stalls work that uses every core, and most find a sensor unchanged. So once the ticks of a
sensor are known, turns at which none is expected are left out. Those around a tick lie where they
always did: what is known of its time is as narrow as if none had been left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

NS = 1e9
SLOW_POLL_S = 0.25  # of what changes slowly: within the guard on either side of a window once
LONGEST_REST_S = 0.1  # without a turn: clocks and what holds them down are read as often
LEARNT_TICKS = 4  # distances of ticks that place the next one: within a guard of half a second
LEAST_TURNS = 8  # between two ticks, below which hardly a turn could be left out
IRREGULAR = 0.25  # of a tick: ticks that differ by more from a steady comb can't be awaited
NARROW_TURNS = 2  # as far apart, two readings still tell the time of a change
LOST_TICKS = 2.5  # without finding one, after which nothing is known of ticks any more
OVERDUE = 5  # turns beyond the largest surprise, after which a tick is taken to be lost
# Ticks are followed like a target by an alpha-beta filter: gains of place and of distance.
PLACE_GAIN, TICK_GAIN = 0.3, 0.02
FORGETTING = 0.98  # of the largest surprise, with every tick


class TickFollower:
    """Follows the ticks of one quantity through the changes that its readings show.

    Args:
        turn_ns: Time between two turns: no tick's time is known better.
    """

    def __init__(self, turn_ns: int) -> None:
        self._turn_ns = turn_ns
        self._value: float | None = None
        self._read_ns = 0
        self._seen: deque[float] = deque(maxlen=LEARNT_TICKS + 1)
        self._last_ns = self._tick_ns = self._surprise_ns = 0.0
        self._lost_ns: int | None = None

    @property
    def knows(self) -> bool:
        """Whether the next tick can be awaited, or is looked for at every turn."""
        return self._tick_ns > 0

    @property
    def awaited_ns(self) -> float:
        """From when on it has to be read, so that the next tick cannot come unseen."""
        if self._lost_ns is not None:
            return self._lost_ns
        return self._last_ns + self._tick_ns - self._surprise_ns - self._turn_ns

    def saw(self, value: float, at_ns: int) -> None:
        """Take note of a reading."""
        changed = self._value is not None and value != self._value
        before_ns, self._read_ns, self._value = self._read_ns, at_ns, value
        if not self.knows:
            if changed:
                self._learn((before_ns + at_ns) / 2)
        elif self._lost_ns is not None:
            self._look(self._lost_ns, before_ns, at_ns, changed=changed)
        elif changed:
            self._follow(before_ns, at_ns)
        elif at_ns > self.awaited_ns + 2 * self._surprise_ns + OVERDUE * self._turn_ns:
            self._lost_ns = at_ns

    def _learn(self, at_ns: float) -> None:
        """Take the last ticks for a comb if they are as steady as one."""
        self._seen.append(at_ns)
        if len(self._seen) <= LEARNT_TICKS:
            return
        seen = list(self._seen)
        tick_ns = (seen[-1] - seen[0]) / LEARNT_TICKS
        middle_ns = sum(seen) / len(seen)
        off_ns = [
            abs(one - middle_ns - (number - LEARNT_TICKS / 2) * tick_ns)
            for number, one in enumerate(seen)
        ]
        if tick_ns >= LEAST_TURNS * self._turn_ns and max(off_ns) < IRREGULAR * tick_ns:
            self._tick_ns, self._surprise_ns = tick_ns, max(off_ns) + self._turn_ns / 2
            self._last_ns = middle_ns + LEARNT_TICKS / 2 * tick_ns

    def _follow(self, before_ns: int, at_ns: int) -> None:
        """Move the comb towards a tick that came between two readings."""
        count = max(1, int((at_ns - self._last_ns) / self._tick_ns + IRREGULAR))
        awaited_ns = self._last_ns + count * self._tick_ns
        half_ns = min(self._turn_ns, at_ns - before_ns) / 2
        if at_ns - half_ns < awaited_ns and at_ns - before_ns > NARROW_TURNS * self._turn_ns:
            self._lost_ns = at_ns  # it came before it was looked for
            return
        # Of a turn that came late, only the bracket is known.
        off_ns = min(max(awaited_ns, before_ns + half_ns), at_ns - half_ns) - awaited_ns
        self._last_ns = awaited_ns + PLACE_GAIN * off_ns
        self._tick_ns += TICK_GAIN * off_ns / count
        self._surprise_ns = max(abs(off_ns), FORGETTING * self._surprise_ns)

    def _look(self, since_ns: int, before_ns: int, at_ns: int, *, changed: bool) -> None:
        """Go on from a tick that was found, or give up when none shows for long."""
        if changed and at_ns - before_ns <= NARROW_TURNS * self._turn_ns:
            self._last_ns, self._lost_ns = (before_ns + at_ns) / 2, None
        elif at_ns > since_ns + LOST_TICKS * self._tick_ns:
            self._seen.clear()
            self._tick_ns, self._lost_ns = 0.0, None


class Cadence:
    """Turns at a steady distance; each quantity is read at every so many of them.

    A late wake-up delays every quantity of its turn. Turns that were due meanwhile are left out,
    so that the plan neither drifts nor catches up. A quantity with ticks that are known is read
    around each of them instead; others are then read at turns that are taken anyway.

    Args:
        period_s: From one turn to the next, seconds.
        every: Each quantity is read at every so many turns, in the order of reading.
        ticking: Positions of those that change at ticks only.
        waking: Positions of those that turns are taken for while their ticks are not known; by
            default all.
    """

    def __init__(
        self,
        period_s: float,
        every: Sequence[int] = (),
        ticking: Collection[int] = (),
        waking: Collection[int] | None = None,
    ) -> None:
        self.period_s = period_s
        self.every = tuple(every)
        self._period_ns = max(1, round(period_s * NS))
        self._longest = max(1, round(LONGEST_REST_S / period_s))
        self._ticking = tuple(ticking)
        self._waking = tuple(range(len(every)) if waking is None else waking)
        self.begin(0)

    def begin(self, now_ns: int) -> None:
        """Begin a window: its first turn is now, everything is due at it, and no tick is known."""
        self._due_ns, self._turn = now_ns, 0
        self._next = [0] * len(self.every)
        self._followers = {index: TickFollower(self._period_ns) for index in self._ticking}

    def turn(self) -> list[int]:
        """Take a turn: give what is due, as positions in the order of reading."""
        due = [index for index in range(len(self.every)) if self._turns_to(index) <= 0]
        for index in due:
            self._next[index] = self._turn + self.every[index]
        self._turn += 1
        return due

    def saw(self, index: int, value: float, at_ns: int) -> None:
        """Take note of what was read at a turn."""
        if (follower := self._followers.get(index)) is not None:
            follower.saw(value, at_ns)

    def next_ns(self, now_ns: int) -> int:
        """Give when the next turn is due, once a turn is over; those missed by now are left out."""
        missed = max(0, now_ns - self._due_ns) // self._period_ns
        self._due_ns += (missed + 1) * self._period_ns
        self._turn += missed
        known = (index for index, one in self._followers.items() if one.knows)
        rest = min(map(self._turns_to, {*self._waking, *known}), default=0)
        rest = max(0, min(rest, self._longest - 1))
        self._due_ns += rest * self._period_ns
        self._turn += rest
        return self._due_ns

    def _turns_to(self, index: int) -> int:
        """Give the number of turns from this one to that at which a quantity is due."""
        follower = self._followers.get(index)
        if follower is None or not follower.knows:
            return self._next[index] - self._turn
        return int(-(-(follower.awaited_ns - self._due_ns) // self._period_ns))


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


def gpu_cadence(tiers: Tiers, counter_poll_s: float, state_poll_s: float) -> Cadence:
    """Plan the readings of GPUs.

    Args:
        tiers: What is read.
        counter_poll_s: From one poll of counters and power to the next.
        state_poll_s: The same of state, rounded to a multiple of the other.
    """
    # A turn costs much more than a reading, so that power is read at each that is taken.
    rates = (1, 1, turns_in(state_poll_s, counter_poll_s), turns_in(SLOW_POLL_S, counter_poll_s))
    every = [rate for rate, count in zip(rates, tiers, strict=True) for _ in range(count)]
    if not tiers.counters:  # an update of power that is missed is lost, unlike a counter's
        return Cadence(counter_poll_s, every)
    ticking, waking = range(tiers.counters + tiers.powers), range(tiers.counters)
    return Cadence(counter_poll_s, every, ticking, waking)


def turns_in(seconds: float, period_s: float) -> int:
    """Give the number of turns that comes nearest to a time."""
    return max(1, round(seconds / period_s))
