"""A figure with everything that is known about it, and sums of figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.band import EdgeMethod
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.domain.energy import EnergyKind


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """Energy of one window.

    Attributes:
        energy_j: Joules, or ``None`` where the readings tell nothing. Never 0 for not known.
        interval95_j: Half-width of the 95 % interval on the sensor's own scale, or ``None``.
        kind: ``measured``; ``unmeasurable`` without a figure or with an interval over 20 % of it.
        source: ``counter``, ``power``, ``average_power`` or ``none``.
        tick_s: Time between two values of the sensor, or ``None``.
        jitter_s: Standard deviation of its ticks about a steady comb, or ``None``.
        start: How the start of the window was read.
        end: How its end was read.
        before_w: Power before the window, or ``None``.
        after_w: Power after it, or ``None``.
        shortest_window_s: How long a window would have to be to be measurable, where it is not.
        counter_over_power: Counter ÷ integrated power, or ``None`` where one of them is missing.
        budget: What is not known, line by line.
        flags: Findings by their stable codes.
    """

    energy_j: float | None
    interval95_j: float | None
    kind: EnergyKind
    source: str
    tick_s: float | None = None
    jitter_s: float | None = None
    start: EdgeMethod = "none"
    end: EdgeMethod = "none"
    before_w: float | None = None
    after_w: float | None = None
    shortest_window_s: float | None = None
    counter_over_power: float | None = None
    budget: tuple[BudgetLine, ...] = ()
    flags: tuple[str, ...] = ()


def sum_devices(estimates: Sequence[EnergyEstimate]) -> EnergyEstimate:
    """Add up devices that worked together.

    What a reading or a tick brings is each device's own and adds in squares; lines that come from
    what is assumed of the sensor (marked ``shared``) are alike for all and add as they are.

    Returns:
        The sum; without a figure as soon as one device has none.

    Raises:
        ValueError: There is no device.
    """
    if not estimates:
        raise ValueError("no device to add up")
    if len(estimates) == 1:
        return estimates[0]
    flags = tuple(dict.fromkeys(flag for one in estimates for flag in one.flags))
    known = [one.energy_j for one in estimates if one.energy_j is not None]
    sources = "+".join(sorted({one.source for one in estimates}))
    if len(known) < len(estimates):
        return EnergyEstimate(None, None, "unmeasurable", sources, flags=flags)
    lines = budget.merged(line for one in estimates for line in one.budget)
    half_j, energy_j = budget.interval95_j(lines), sum(known)
    measured = half_j <= budget.MAX_SHARE * energy_j
    return EnergyEstimate(
        energy_j=energy_j,
        interval95_j=half_j,
        kind="measured" if measured else "unmeasurable",
        source=sources,
        start=_common([one.start for one in estimates]),
        end=_common([one.end for one in estimates]),
        budget=lines,
        flags=flags,
    )


def _common(methods: Sequence[EdgeMethod]) -> EdgeMethod:
    return methods[0] if len(set(methods)) == 1 else "none"
