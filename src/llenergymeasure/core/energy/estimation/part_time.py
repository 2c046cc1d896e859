"""What a sensor that looks at a share of each tick makes of a load.

It takes the rest of each tick to be like the share it saw, which lies at the tick's end. A step
inside a tick is then moved, and load that differs from tick to tick is sampled, not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.band import level_between, start_axis
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.sensor import Timing
from llenergymeasure.core.energy.estimation.ticks import Ticks

UNSEEN_SHARE = 0.3  # of the unseen part of an edge tick: its load need not be a clean step
UNSEEN_SPREAD = 0.1  # of the level, where too few ticks tell how they differ


@dataclass(frozen=True, slots=True)
class Steps:
    """How much power rises at the start of a window and falls at its end, W."""

    rise_w: float
    fall_w: float


def moved_s(to_tick_end_s: float, tick_s: float, share: float) -> float:
    """Tell how much too early a step up is seen, seconds.

    A step of 1 W that lies ``to_tick_end_s`` before the end of its tick adds that many watt
    seconds; the sensor adds ``tick_s`` * the part of its look that saw the step.
    """
    seen = min(to_tick_end_s / (share * tick_s), 1.0)
    return seen * tick_s - to_tick_end_s


def part_time_term(
    ticks: Ticks, length_s: float, timing: Timing, steps: Steps, power_w: float
) -> tuple[float, BudgetLine | None]:
    """Give what to take off a figure for the sensor's looking part of the time, and the doubt.

    Returns:
        Joules to take off, 0 unless the share is known; and the line, ``None`` where the sensor
        counts every moment.
    """
    share, tick_s = timing.look_share, ticks.step_s
    if share >= 1:
        return 0.0, None
    rise = moved_s(_to_tick_end(ticks, timing.lag_s), tick_s, share)
    fall = moved_s(_to_tick_end(ticks, timing.lag_s + length_s), tick_s, share)
    moved_j = steps.rise_w * rise - steps.fall_w * fall
    unseen_s = UNSEEN_SHARE * (1 - share) * tick_s
    doubt = [unseen_s * steps.rise_w, unseen_s * steps.fall_w]
    doubt.append(_sampling_j(ticks, length_s, timing, power_w))
    if not timing.look_known:
        doubt.append(moved_j)
    line = BudgetLine(budget.PART_TIME, float(np.sqrt(sum(part**2 for part in doubt))))
    return (moved_j if timing.look_known else 0.0), line


def _to_tick_end(ticks: Ticks, at_s: float) -> float:
    after = min(int(np.searchsorted(ticks.time_s, at_s)), len(ticks) - 1)
    return float((ticks.time_s[after] - at_s) % ticks.step_s)


def _sampling_j(ticks: Ticks, length_s: float, timing: Timing, power_w: float) -> float:
    """Give s · T · √(n (1 - W/T)): n ticks of length T that differ by s, looked at for W each."""
    axis = start_axis(ticks, length_s, timing.lag_s)
    first = int(np.searchsorted(axis.time_s, axis.edge_s))
    last = int(np.searchsorted(axis.time_s, axis.far_s)) - 1
    level = level_between(axis, first, last) if last > first + 1 else None
    spread_w = UNSEEN_SPREAD * power_w if level is None else level.spread_w
    count = max(length_s / ticks.step_s, 1.0)
    return float(spread_w * ticks.step_s * np.sqrt(count * (1 - timing.look_share)))
