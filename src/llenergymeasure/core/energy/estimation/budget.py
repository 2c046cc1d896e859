"""What is not known about an energy figure, line by line in joules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

COVERAGE_FACTOR = 2.0  # standard uncertainties to a 95 % interval
MAX_SHARE = 0.2  # of the energy; a wider interval is no measurement


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One source of uncertainty.

    Attributes:
        name: What it comes from, a stable word.
        standard_j: Its standard uncertainty, joules.
        shared: Whether devices of one kind share it, so that it adds linearly over them.
    """

    name: str
    standard_j: float
    shared: bool = False


def interval95_j(lines: Iterable[BudgetLine]) -> float:
    """Half-width of the 95 % interval: twice the root of the summed squares (JCGM 100:2008)."""
    return COVERAGE_FACTOR * sqrt(sum(line.standard_j**2 for line in lines))


def merged(lines: Iterable[BudgetLine]) -> tuple[BudgetLine, ...]:
    """Bring lines of one name together: squares add, or values where the line is shared."""
    found: dict[str, list[BudgetLine]] = {}
    for line in lines:
        found.setdefault(line.name, []).append(line)
    return tuple(
        BudgetLine(name, sum(line.standard_j for line in same), shared=True)
        if same[0].shared
        else BudgetLine(name, sqrt(sum(line.standard_j**2 for line in same)))
        for name, same in found.items()
    )


def shortest_window_s(lines: Iterable[BudgetLine], power_w: float, length_s: float) -> float | None:
    """Give the shortest window whose interval would be within :data:`MAX_SHARE` of its energy.

    Lines of the edges keep their size in a longer window; the part-time and gap lines grow with
    the root of its length; aliasing grows with the length itself.

    Returns:
        Seconds, or ``None`` where no longer window would do or the power is not positive.
    """
    if power_w <= 0:
        return None
    lines = tuple(lines)
    fixed = sum(line.standard_j**2 for line in lines if line.name not in {*GROWING, *LINEAR})
    growing = sum(line.standard_j**2 for line in lines if line.name in GROWING) / length_s
    linear = sum(line.standard_j**2 for line in lines if line.name in LINEAR) / length_s**2
    allowed = (MAX_SHARE * power_w / COVERAGE_FACTOR) ** 2 - linear
    if allowed <= 0:
        return None
    return (growing + sqrt(growing**2 + 4 * allowed * fixed)) / (2 * allowed)


OUTSIDE_LEVEL = "outside_level_times_overhang"
OUTSIDE_TIME = "outside_power_times_tick_time"
OUTSIDE_SLOPE = "tail_slope_times_overhang"
KNOWN_TAIL = "known_tail"
UNKNOWN_TAIL = "unknown_tail"
UNSEEN_TAIL = "unseen_tail"
LATE = "still_to_count_at_end"
EDGE_TIME = "level_step_times_edge_time"
QUANTUM = "counter_quantum"
GAPS = "sampling_gaps"
EDGE_RISE = "slow_rise"
COMPANY = "company"
PART_TIME = "part_time_sampling"
ALIASING = "aliased_load"
POWER_SHAPE = "averaging_window"
SENSOR_MODE = "sensor_mode"
NO_GUARD = "no_guard"
GROWING = frozenset({PART_TIME, GAPS})
LINEAR = frozenset({ALIASING, POWER_SHAPE})
# What is assumed of the sensor (its lag at the edges, its averaging window, load in step with it)
# and of tails is alike in every window. The other lines vary from window to window, so that the
# spread between repeats shows them already.
COMMON = frozenset({EDGE_TIME, POWER_SHAPE, ALIASING, KNOWN_TAIL, UNSEEN_TAIL, SENSOR_MODE})
