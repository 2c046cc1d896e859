"""Whether passes that did the same work took the same energy; differences of windows."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

CLOSURE_SHARE = 0.01  # by which identical passes may differ beyond their intervals


@dataclass(frozen=True, slots=True)
class Figure:
    """Joules with the half-width of their 95 % interval."""

    energy_j: float
    interval95_j: float


@dataclass(frozen=True, slots=True)
class Closure:
    """How two passes compare.

    Attributes:
        difference_j: Second minus first.
        allowed_j: How much they may differ: √(U₁² + U₂²) + 1 % of their mean.
        closes: Whether they agree.
    """

    difference_j: float
    allowed_j: float
    closes: bool


def closure(first: Figure, second: Figure) -> Closure:
    """Compare two passes over the same prompts at unrelated phases of the sensor."""
    mean_j = (first.energy_j + second.energy_j) / 2
    allowed_j = hypot(first.interval95_j, second.interval95_j) + CLOSURE_SHARE * abs(mean_j)
    difference_j = second.energy_j - first.energy_j
    return Closure(difference_j, allowed_j, abs(difference_j) <= allowed_j)


def difference(whole: Figure, part: Figure) -> Figure:
    """Give what a window took beyond another, e.g. decode = whole - prefill-only.

    The windows are measured at different times; their intervals add in squares.
    """
    return Figure(whole.energy_j - part.energy_j, hypot(whole.interval95_j, part.interval95_j))
