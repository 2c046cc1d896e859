"""A tail that calibration never saw: power that goes on after the work and dies away.

It is not the window's energy. Whole ticks that cover the end hold its first part, between the end
and the first tick behind it; the ticks after that show the rest. What is hidden is told from what
is seen, as of something that falls by the same share in the same time.

Where nothing stands out of the noise a tail may still hide in it. What that could hold is a line
of the budget: by the counter alone if it falls no faster than :data:`UNSEEN_RATE_PER_S`, by power
of a moment (:mod:`.prompt`) if no faster than :data:`FASTEST_PER_S`.
"""

from __future__ import annotations

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.band import Axis, Edge, with_line
from llenergymeasure.core.energy.estimation.behind import RISE_DOUBT, Above, Behind, look_behind
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.prompt import PromptPower, Shown, shown_behind
from llenergymeasure.core.energy.estimation.sensor import Timing

CERTAIN = 2.5  # standard deviations from which on it is no noise
FASTEST_PER_S = 30.0  # of decay: a tail that is over in a tenth of a second
UNSEEN_RATE_PER_S = 20.0  # an assumption: a tail that nothing shows has a time constant of 50 ms
SLOWEST_PER_S = 3.0  # of decay, where power of a moment tells it
DOUBT_SHARE = 0.5  # of the hidden part: the decay need not be exponential


def decayed_edge(
    axis: Axis,
    quiet: Edge,
    timing: Timing,
    inside_w: float,
    prompt: PromptPower | None = None,
) -> Edge:
    """Take the hidden part of a tail off the end of a window.

    Args:
        axis: The end's axis, which runs backwards.
        quiet: The end as read without a tail.
        timing: What calibration told of the sensor.
        inside_w: Power inside.
        prompt: Power of moments, by another sensor.

    Returns:
        The end without the tail's hidden part, with its doubt; ``quiet`` with the doubt of what
        nothing shows where no tail stands out of the noise, or where calibration has one of its
        own. ``quiet`` as it is where the sensor does not look all the time.
    """
    if quiet.method != "band" or timing.rise_s is None:
        return quiet
    behind = look_behind(axis, timing, inside_w)
    if behind is None:
        return quiet
    shown = None if prompt is None or timing.tail_known else shown_behind(prompt, behind)
    hidden = None if timing.tail_known else _hidden(behind, shown)
    if hidden is not None:
        return _without_tail(behind, hidden)
    unseen_j = _unseen_j(behind) if shown is None else _unseen_by_power_j(behind, shown)
    return with_line(quiet, BudgetLine(budget.UNSEEN_TAIL, unseen_j, shared=True))


def _hidden(behind: Behind, shown: Shown | None) -> Above | None:
    """Give what a tail holds between the end and the first tick; ``None`` where none shows."""
    if shown is not None and shown.stands_out:
        seconds = shown.until_s(behind.overhang_s, _rate_by_power(behind, shown))
        return Above(seconds * shown.power_w, seconds * shown.sigma_w)
    if not stands_out(behind):
        return None
    seen, growth = max(behind.first, behind.all), _growth(behind, _rate_per_s(behind))
    return Above(growth * seen.energy_j, growth * seen.sigma_j)


def stands_out(behind: Behind) -> bool:
    """Tell whether a tail shows, in the first tick behind the end or in all until rest."""
    return any(seen.energy_j > CERTAIN * seen.sigma_j for seen in (behind.first, behind.all))


def _unseen_j(behind: Behind) -> float:
    """Give what a tail may hold between the end and the first tick, by what that tick holds."""
    timing, first = behind.timing, behind.first
    # Of a tail that calibration saw, the tick may hold as much as there is, and that is no news.
    step_w = max(behind.step_w, timing.tail_step_w or 0.0)
    known_j = timing.excess_s * step_w if timing.tail_known else 0.0
    seen_j = float(np.hypot(max(first.energy_j - known_j, 0.0), first.sigma_j))
    share = -float(np.expm1(-UNSEEN_RATE_PER_S * behind.tick_s))  # of what is left that it holds
    return _growth(behind, UNSEEN_RATE_PER_S) / share * seen_j


def _unseen_by_power_j(behind: Behind, shown: Shown) -> float:
    """Give the same by the power that is shown, of a tail as quick as any."""
    power_w = float(np.hypot(max(shown.power_w, 0.0), shown.sigma_w))
    return power_w * shown.until_s(behind.overhang_s, FASTEST_PER_S)


def _growth(behind: Behind, rate_per_s: float) -> float:
    """Give how many times what comes after the first tick came before it."""
    return float(np.expm1(rate_per_s * behind.overhang_s))


def _rate_per_s(behind: Behind) -> float:
    """Tell how fast it falls, from what is left at a tick further on."""
    axis, at, later = behind.axis, behind.at, behind.later
    seen_j = max(behind.first, behind.all).energy_j
    apart_s = float(axis.time_s[at.last] - axis.time_s[at.near])
    rate_per_s = np.log(seen_j / max(later.energy_j, later.sigma_j)) / apart_s
    return float(np.clip(rate_per_s, 0.0, FASTEST_PER_S))


def _rate_by_power(behind: Behind, shown: Shown) -> float:
    """Tell the same from power at one moment and the energy that comes after it."""
    after_j = max(behind.all.energy_j, behind.all.sigma_j)
    return float(np.clip(shown.power_w / after_j, SLOWEST_PER_S, FASTEST_PER_S))


def _without_tail(behind: Behind, hidden: Above) -> Edge:
    """Read the end from rest power and the tail's hidden part."""
    axis, rest, last = behind.axis, behind.rest, behind.at.last
    overhang_s, late_j = behind.overhang_s, behind.late_j(last)
    noise_j = rest.spread_w * np.sqrt(overhang_s * axis.tick_s + overhang_s**2 / rest.ticks)
    doubts_j = (DOUBT_SHARE * hidden.energy_j, hidden.sigma_j, RISE_DOUBT * late_j)
    lines = (
        BudgetLine(budget.OUTSIDE_LEVEL, float(noise_j)),
        BudgetLine(budget.OUTSIDE_TIME, rest.power_w * float(axis.sigma_s[last])),
        BudgetLine(budget.UNKNOWN_TAIL, float(np.linalg.norm(doubts_j))),
    )
    energy_j = float(axis.energy_j[last]) + rest.power_w * overhang_s
    return Edge(energy_j + hidden.energy_j - late_j, "band", rest.power_w, lines)
