"""Loads whose energy is known: watts over time in straight pieces, with their exact integral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Load:
    """True power of a device, piece after piece; each piece is a straight line.

    The first level also holds before the first piece; the last piece has no end.

    Attributes:
        start_s: When each piece starts, ascending. (pieces,)
        level_w: Power at the start of each piece. (pieces,)
        slope_w_per_s: Its slope; 0 in the last piece. (pieces,)
    """

    start_s: FloatArray
    level_w: FloatArray
    slope_w_per_s: FloatArray

    @cached_property
    def _joules_before(self) -> FloatArray:
        width_s = np.diff(self.start_s)
        pieces = self.level_w[:-1] * width_s + 0.5 * self.slope_w_per_s[:-1] * width_s * width_s
        return np.concatenate(([0.0], np.cumsum(pieces)))  # (pieces,)

    def piece_at(self, t_s: ArrayLike) -> NDArray[np.intp]:
        """Find the piece that holds at each time; the first one before all of them."""
        return np.maximum(np.searchsorted(self.start_s, t_s, side="right") - 1, 0)

    def power_w(self, t_s: ArrayLike) -> FloatArray:
        """Give the true power at each time."""
        i = self.piece_at(t_s)
        since_s = np.asarray(t_s, dtype=np.float64) - self.start_s[i]
        slope = np.where(since_s < 0.0, 0.0, self.slope_w_per_s[i])
        return self.level_w[i] + slope * since_s

    def integral_j(self, t_s: ArrayLike) -> FloatArray:
        """Give the energy since the first piece; negative before it."""
        i = self.piece_at(t_s)
        since_s = np.asarray(t_s, dtype=np.float64) - self.start_s[i]
        slope = np.where(since_s < 0.0, 0.0, self.slope_w_per_s[i])
        return self._joules_before[i] + (self.level_w[i] * since_s + 0.5 * slope * since_s**2)

    def energy_j(self, t0_s: float, t1_s: float) -> float:
        """Give the exact energy between two times."""
        joules = self.integral_j(np.array([t0_s, t1_s]))
        return float(joules[1] - joules[0])

    def __add__(self, other: Load) -> Load:
        """Superpose two loads."""
        start_s = np.union1d(self.start_s, other.start_s)
        slopes = [_slope_after(load, start_s) for load in (self, other)]
        return Load(start_s, self.power_w(start_s) + other.power_w(start_s), slopes[0] + slopes[1])

    def shifted(self, by_s: float) -> Load:
        """Move the whole load in time."""
        return Load(self.start_s + by_s, self.level_w, self.slope_w_per_s)

    def scaled(self, factor: float) -> Load:
        """Multiply every watt."""
        return Load(self.start_s, self.level_w * factor, self.slope_w_per_s * factor)

    def cut_at(self, times_s: ArrayLike) -> Load:
        """Split pieces at more times; power stays as it is."""
        start_s = np.union1d(self.start_s, times_s)
        return Load(start_s, self.power_w(start_s), _slope_after(self, start_s))


def _slope_after(load: Load, t_s: FloatArray) -> FloatArray:
    return np.where(t_s < load.start_s[0], 0.0, load.slope_w_per_s[load.piece_at(t_s)])


def steps(start_s: ArrayLike, level_w: ArrayLike) -> Load:
    """Make a load of constant pieces."""
    levels = np.asarray(level_w, dtype=np.float64)
    return Load(np.asarray(start_s, dtype=np.float64), levels, np.zeros_like(levels))


def lines(t_s: ArrayLike, watts: ArrayLike) -> Load:
    """Make a load that runs straight from point to point, flat before and after."""
    times, levels = np.asarray(t_s, dtype=np.float64), np.asarray(watts, dtype=np.float64)
    return Load(times, levels, np.append(np.diff(levels) / np.diff(times), 0.0))


def flat(watts: float, start_s: float = 0.0) -> Load:
    """Hold one power for ever."""
    return steps([start_s], [watts])


def step(
    t0_s: float, t1_s: float, inside_w: float = 400.0, outside_w: float = 75.0, lead_s: float = 10.0
) -> Load:
    """Hold one power between two times and another outside; the first piece is ``lead_s`` long."""
    return steps([t0_s - lead_s, t0_s, t1_s], [outside_w, inside_w, outside_w])


def square(
    t0_s: float,
    t1_s: float,
    period_s: float,
    *,
    high_w: float = 400.0,
    low_w: float = 150.0,
    outside_w: float = 75.0,
    duty: float = 0.5,
) -> Load:
    """Alternate between two levels between two times, starting high."""
    rises_s = np.arange(t0_s, t1_s, period_s)
    edges_s = np.stack([rises_s, rises_s + duty * period_s], axis=1).ravel()
    levels_w = np.tile([high_w, low_w], len(rises_s))
    return _between(edges_s, levels_w, t1_s, outside_w)


def request_train(
    t0_s: float,
    t1_s: float,
    *,
    request_s: float = 0.5,
    prefill_s: float = 0.08,
    prefill_w: float = 650.0,
    decode_w: float = 380.0,
    outside_w: float = 75.0,
    last_burst: bool = True,
) -> Load:
    """Repeat prefill and decode; with ``last_burst`` the last thing inside is a prefill too."""
    rises_s = np.arange(t0_s, t1_s, request_s)
    if last_burst:
        rises_s = np.append(rises_s[rises_s < t1_s - 2.0 * prefill_s], t1_s - prefill_s)
    edges_s = np.stack([rises_s, rises_s + prefill_s], axis=1).ravel()
    return _between(edges_s, np.tile([prefill_w, decode_w], len(rises_s)), t1_s, outside_w)


def _between(edges_s: FloatArray, levels_w: FloatArray, t1_s: float, outside_w: float) -> Load:
    kept = edges_s < t1_s - 1e-9
    return steps(
        np.concatenate(([edges_s[0] - 10.0], edges_s[kept], [t1_s])),
        np.concatenate(([outside_w], levels_w[kept], [outside_w])),
    )


def ramp(
    t0_s: float, t1_s: float, first_w: float = 400.0, last_w: float = 360.0, outside_w: float = 75.0
) -> Load:
    """Drift from one power to another between two times, with steps at both ends."""
    slope = (last_w - first_w) / (t1_s - t0_s)
    return Load(
        np.array([t0_s - 10.0, t0_s, t1_s]),
        np.array([outside_w, first_w, outside_w]),
        np.array([0.0, slope, 0.0]),
    )


def bursts(
    start_s: Sequence[float] | FloatArray, width_s: float, inside_w: float, outside_w: float
) -> Load:
    """Hold one power for ``width_s`` from each start on, and another between."""
    rises_s = np.asarray(start_s, dtype=np.float64)
    edges_s = np.stack([rises_s, rises_s + width_s], axis=1).ravel()
    levels_w = np.tile([inside_w, outside_w], len(rises_s))
    return steps(np.append(rises_s[0] - 10.0, edges_s), np.append(outside_w, levels_w))


def tail(at_s: float, watts: float = 150.0, over_s: float = 0.1, curved: bool = True) -> Load:
    """Decay from ``watts`` to nothing; add it to a load that falls at ``at_s``.

    Curved, it falls like exp(-3 t / over_s), in 16 straight pieces, and ends at 0.
    """
    share = np.linspace(0.0, 1.0, 17)
    level = (np.exp(-3.0 * share) - np.exp(-3.0)) / (1.0 - np.exp(-3.0)) if curved else 1.0 - share
    times_s = at_s + over_s * share
    slopes = np.append(np.diff(watts * level) / np.diff(times_s), 0.0)
    return Load(
        np.append(at_s - 10.0, times_s), np.append(0.0, watts * level), np.append(0.0, slopes)
    )


def noisy(
    load: Load,
    share: float,
    t0_s: float,
    t1_s: float,
    rng: np.random.Generator,
    *,
    every_s: float = 0.01,
) -> Load:
    """Multiply the true power by a random factor, drawn anew every ``every_s`` and at each piece.

    The noise is the load's own: the true energy has it too.

    Args:
        load: What to disturb.
        share: Standard deviation of the factor, which never falls below 0.05.
        t0_s: Where the noise starts.
        t1_s: Where it ends.
        rng: Draws the factors.
        every_s: How long one draw holds at most.
    """
    cut = load.cut_at(np.arange(t0_s, t1_s, every_s))
    factor = np.maximum(1.0 + share * rng.standard_normal(len(cut.start_s)), 0.05)
    factor = np.where((cut.start_s >= t0_s) & (cut.start_s < t1_s), factor, 1.0)
    return Load(cut.start_s, cut.level_w * factor, cut.slope_w_per_s * factor)


def stepped(load: Load, t0_s: float, t1_s: float, every_s: float = 0.005) -> Load:
    """Replace slopes by steps of their mean power, so that a load log can hold the load.

    Energy over whole pieces stays what it was.
    """
    cut = load.cut_at(np.arange(t0_s, t1_s, every_s))
    width_s = np.append(np.diff(cut.start_s), 0.0)
    return steps(cut.start_s, cut.level_w + 0.5 * cut.slope_w_per_s * width_s)


def from_log(text: str, idle_w: float, epoch_s: float) -> Load:
    """Read a load log: lines of ``monotonic_seconds watts``; ``idle_w`` until the first.

    A line older than the one before it counts from that one on: history is not rewritten. A last
    line without its end is still being written and is left out.
    """
    rows = [line.split() for line in text.split("\n")[:-1] if line.strip()]
    times_s = np.maximum.accumulate([epoch_s, *(float(row[0]) for row in rows)])
    return steps(times_s, [idle_w, *(float(row[1]) for row in rows)])


def to_log(load: Load) -> str:
    """Write a load of constant pieces as lines of a load log.

    Raises:
        ValueError: A piece has a slope; see :func:`stepped`.
    """
    if np.any(load.slope_w_per_s != 0.0):
        raise ValueError("a load log holds constant pieces only")
    return "".join(
        f"{start_s!r} {watts!r}\n"
        for start_s, watts in zip(load.start_s.tolist(), load.level_w.tolist(), strict=True)
    )
