"""What parts of a window tell: whether equal work took equal energy, and how steady power was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.baseline import idle_from_power, is_steady
from llenergymeasure.core.energy.estimation.closure import Figure, closure
from llenergymeasure.core.energy.estimation.readings import Floats, Series
from llenergymeasure.core.energy.protocol import DivisibleSource, EnergyBackend
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.results import PassComparison
from llenergymeasure.domain.samples import Window

IDLE_PARTS = 20  # in pairs: ten blocks, whose spread is that of the mean (Student, 9 degrees)
LEAST_PART_S = 0.5  # of idle time; a shorter part is all edges


class Half(NamedTuple):
    """One half of a window, and what it took."""

    window: Window
    recording: EnergyRecording


@dataclass(frozen=True, slots=True)
class Idle:
    """Idle power as far as it is known.

    Attributes:
        power_w: Mean.
        interval95_w: Half-width of its 95 % interval, or ``None`` where nothing tells its spread.
        steady: Whether it kept still, or ``None`` where nothing tells.
    """

    power_w: float
    interval95_w: float | None = None
    steady: bool | None = None


def compare_halves(source: EnergyBackend, passes: Sequence[Window]) -> PassComparison | None:
    """Compare the first passes of the window that ``source`` closed last with the last ones.

    As many on either side; of an odd number the middle one is left out. ``None`` for a single
    pass, and where the source cannot tell the halves apart with an interval.
    """
    each = len(passes) // 2
    if each == 0 or not isinstance(source, DivisibleSource):
        return None
    first = _half(source, passes[:each])
    second = _half(source, passes[-each:])
    return compared(each, first, second) if first and second else None


def compared(each: int, first: Half, second: Half) -> PassComparison | None:
    """Compare two halves that did the same work; ``None`` where one has no interval."""
    figures = _figure(first.recording), _figure(second.recording)
    if figures[0] is None or figures[1] is None:
        return None
    found = closure(figures[0], figures[1])
    change = _power_w(figures[1], second.window) / _power_w(figures[0], first.window) - 1
    return PassComparison(
        passes_each=each,
        first_j=figures[0].energy_j,
        second_j=figures[1].energy_j,
        allowed_j=found.allowed_j,
        closes=found.closes,
        power_change=change,
        power_change_interval95=hypot(
            *(figure.interval95_j / figure.energy_j for figure in figures if figure)
        ),
        clock_change=_clock_change(first.recording, second.recording),
    )


def idle_power(source: EnergyBackend, window: Window, whole: EnergyRecording) -> Idle | None:
    """Tell idle power from the window that ``source`` closed last; ``None`` without a figure.

    Its interval is that of the mean of ten blocks, drift included, and that of the whole window.

    Args:
        source: Where the window was recorded.
        window: A stretch without work.
        whole: What was recorded over it.
    """
    if whole.total_j is None:
        return None
    mean_w = whole.total_j / window.seconds
    known_w = None if whole.interval_j is None else whole.interval_j / window.seconds
    part_w = _part_powers_w(source, window)
    spread = None if part_w is None else idle_from_power(Series(part_w, part_w, part_w))
    if part_w is None or spread is None:
        return Idle(mean_w, known_w)
    return Idle(mean_w, hypot(spread.interval95_w, known_w or 0.0), is_steady(part_w))


def _half(source: DivisibleSource, passes: Sequence[Window]) -> Half | None:
    window = Window(passes[0].t0_ns, passes[-1].t1_ns)
    recording = source.part(window)
    return None if recording is None else Half(window, recording)


def _figure(recording: EnergyRecording) -> Figure | None:
    if recording.kind != "measured" or not recording.total_j or recording.interval_j is None:
        return None
    return Figure(recording.total_j, recording.interval_j)


def _power_w(figure: Figure, window: Window) -> float:
    return figure.energy_j / window.seconds


def _clock_change(first: EnergyRecording, second: EnergyRecording) -> float | None:
    before = {one.device: one.clock_sm_mhz for one in first.device_state}
    changes = [
        one.clock_sm_mhz / mhz - 1
        for one in second.device_state
        if one.clock_sm_mhz is not None and (mhz := before.get(one.device))
    ]
    return max(changes, key=abs, default=None)


def _part_powers_w(source: EnergyBackend, window: Window) -> Floats | None:
    """Give mean power of equal parts, shape (n,); ``None`` unless all of at least four are told."""
    count = min(IDLE_PARTS, int(window.seconds / LEAST_PART_S))
    if not isinstance(source, DivisibleSource) or count < 4:
        return None
    edges_ns = np.linspace(window.t0_ns, window.t1_ns, count + 1).astype(np.int64)
    parts = [Window(int(a), int(b)) for a, b in pairwise(edges_ns)]
    totals = [None if found is None else found.total_j for found in map(source.part, parts)]
    watts = [j / part.seconds for j, part in zip(totals, parts, strict=True) if j is not None]
    return np.array(watts) if len(watts) == count else None
