"""Energy of a window from the ticks of a counter, with its budget."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.band import (
    LOUD_SHARE,
    Axis,
    Edge,
    EdgeMethod,
    end_axis,
    quiet_edge,
    split_edge,
    start_axis,
)
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.part_time import Steps, part_time_term
from llenergymeasure.core.energy.estimation.prompt import PromptPower
from llenergymeasure.core.energy.estimation.sensor import Timing
from llenergymeasure.core.energy.estimation.tail import decayed_edge
from llenergymeasure.core.energy.estimation.ticks import Ticks


class Hints(NamedTuple):
    """What other readings tell of the same device.

    Attributes:
        before_w: Power before the window by another sensor, or ``None``.
        after_w: Power after it, or ``None``.
        quantum_j: The counter's unit.
        prompt: Power of moments, where calibration told that it is such.
    """

    before_w: float | None = None
    after_w: float | None = None
    quantum_j: float = 1e-3
    prompt: PromptPower | None = None


@dataclass(frozen=True, slots=True)
class Integral:
    """Energy of a window by one sensor.

    Attributes:
        energy_j: Joules.
        start: How the start was read.
        end: How the end was read.
        before_w: Power before the window, or ``None``.
        after_w: Power after it, or ``None``.
        lines: What is not known.
    """

    energy_j: float
    start: EdgeMethod
    end: EdgeMethod
    before_w: float | None
    after_w: float | None
    lines: tuple[BudgetLine, ...]


def integrate(ticks: Ticks, length_s: float, timing: Timing, hints: Hints) -> Integral:
    """Give the energy of the window from 0 to ``length_s`` on the ticks' clock."""
    start_at = start_axis(ticks, length_s, timing.lag_s)
    end_at = end_axis(ticks, length_s, timing.lag_s, timing.settle_s)
    rough_w = _rough_power(ticks, length_s, timing.lag_s)
    start = quiet_edge(start_at, rough_w, hints.before_w)
    end = quiet_edge(end_at, rough_w, hints.after_w)
    end = decayed_edge(end_at, end, timing, rough_w, hints.prompt)
    inside_w = (-end.energy_j - start.energy_j) / length_s
    start, end = _heard(start_at, start, inside_w), _heard(end_at, end, inside_w)
    return _account(ticks, length_s, timing, (start, end), hints.quantum_j)


def _rough_power(ticks: Ticks, length_s: float, lag_s: float) -> float:
    ends = np.interp([lag_s, length_s + lag_s], ticks.time_s, ticks.energy_j)
    return float(ends[1] - ends[0]) / length_s


def _heard(axis: Axis, quiet: Edge, inside_w: float) -> Edge:
    if quiet.outside_w is None or quiet.outside_w < LOUD_SHARE * inside_w:
        return quiet
    return split_edge(axis, quiet)


def _account(
    ticks: Ticks, length_s: float, timing: Timing, edges: tuple[Edge, Edge], quantum_j: float
) -> Integral:
    start, end = edges
    energy_j = -end.energy_j - start.energy_j
    inside_w = energy_j / length_s
    steps = Steps(_step(inside_w, start), _step(inside_w, end))
    tail_j, tail_line = _known_tail(steps.fall_w, timing) if end.method == "band" else (0.0, None)
    moved_j, part_time = part_time_term(ticks, length_s, timing, steps, abs(inside_w))
    lines = [
        *start.lines,
        *end.lines,
        BudgetLine(budget.EDGE_TIME, _edge_time_j(inside_w, start, end, timing), shared=True),
        BudgetLine(budget.QUANTUM, quantum_j / sqrt(6)),  # two readings, each even over a unit
    ]
    lines += [line for line in (part_time, tail_line) if line is not None]
    return Integral(
        energy_j - tail_j - moved_j,
        start.method,
        end.method,
        start.outside_w,
        end.outside_w,
        budget.merged(lines),
    )


def _known_tail(fall_w: float, timing: Timing) -> tuple[float, BudgetLine]:
    """Give the energy of a calibrated tail.

    Whether it grows with the step or is the same for all is not known: the figure lies between,
    alike in every window and on every device of a kind.
    """
    fall_w = max(fall_w, 0.0)
    found_w = fall_w if timing.tail_step_w is None else timing.tail_step_w
    doubt_j = timing.excess_s * abs(fall_w - found_w) / 2
    line = BudgetLine(budget.KNOWN_TAIL, doubt_j, shared=True)
    return timing.excess_s * (fall_w + found_w) / 2, line


def _step(inside_w: float, edge: Edge) -> float:
    return inside_w - (0.0 if edge.outside_w is None else edge.outside_w)


def _edge_time_j(inside_w: float, start: Edge, end: Edge, timing: Timing) -> float:
    """Give what an error in lag or tail makes of the figure.

    Whole ticks catch all energy however late it comes: a wrong lag then only trades outside power
    before for outside power after. What comes late and what is drawn late cannot be told apart,
    so that the step at the end counts whole.
    """
    traded_w = _used_power(inside_w, end) - _used_power(inside_w, start)
    return float(np.hypot(traded_w, _step(inside_w, end))) * timing.edge_time_s


def _used_power(inside_w: float, edge: Edge) -> float:
    outside_w = inside_w if edge.outside_w is None else edge.outside_w
    return outside_w if edge.method == "band" else (inside_w + outside_w) / 2
