"""What parts of a window tell: whether equal work took equal energy, and how steady power was."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import hypot, sqrt
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.sensor import Floats
from llenergymeasure.core.energy.protocol import DivisibleSource, EnergyBackend
from llenergymeasure.domain.energy import EnergyRecording, Idle
from llenergymeasure.domain.results import PassComparison
from llenergymeasure.domain.samples import Window

AGREE_SHARE = 0.01  # by which halves that did the same work may differ beyond their intervals
IDLE_PARTS = 20  # in pairs: ten blocks, whose spread is that of the mean (Student, 9 degrees)
LEAST_PARTS = 4
LEAST_PART_S = 0.5  # of idle time; a shorter part is all edges
BLOCKS = 10
STEADY_SHARE = 0.02  # of the mean: by how much the halves may differ, beyond their noise
# Student's t, two-sided 95 %, for 1 to 9 degrees of freedom (ISO 16269-4, table of fractiles).
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


class Half(NamedTuple):
    """One half of a window, and what it took."""

    window: Window
    recording: EnergyRecording


def compare_halves(source: EnergyBackend, passes: Sequence[Window]) -> PassComparison | None:
    """Compare the first passes of the window that ``source`` closed last with the last ones.

    As many on either side; of an odd number the middle one is left out. ``None`` where the source
    cannot tell the halves apart with an interval.

    Args:
        source: Where the window was recorded.
        passes: Two at least.
    """
    each = len(passes) // 2
    if not isinstance(source, DivisibleSource):
        return None
    halves = []
    for part in (passes[:each], passes[-each:]):
        window = Window(part[0].t0_ns, part[-1].t1_ns)
        recording = source.part(window)
        if recording is None:
            return None
        halves.append(Half(window, recording))
    return compared(each, *halves)


def compared(each: int, first: Half, second: Half) -> PassComparison | None:
    """Compare two halves that did the same work; ``None`` where one has no interval.

    They may differ by √(U₁² + U₂²) + 1 % of their mean.
    """
    one, two = first.recording.energy, second.recording.energy
    if not one.total_j or not two.total_j or one.half_j is None or two.half_j is None:
        return None
    apart_j = abs(two.total_j - one.total_j)
    mean_j = (one.total_j + two.total_j) / 2
    allowed_j = hypot(one.half_j, two.half_j) + AGREE_SHARE * abs(mean_j)
    change = (two.total_j / second.window.seconds) / (one.total_j / first.window.seconds) - 1
    return PassComparison(
        passes_each=each,
        first_j=one.total_j,
        second_j=two.total_j,
        allowed_j=allowed_j,
        closes=apart_j <= allowed_j,
        power_change=change,
        power_change_interval95=hypot(one.half_j / one.total_j, two.half_j / two.total_j),
        clock_change=_clock_change(first.recording, second.recording),
    )


def _clock_change(first: EnergyRecording, second: EnergyRecording) -> float | None:
    before = {one.device: one.clock_sm_mhz for one in first.device_state}
    changes = [
        one.clock_sm_mhz / mhz - 1
        for one in second.device_state
        if one.clock_sm_mhz is not None and (mhz := before.get(one.device))
    ]
    return max(changes, key=abs, default=None)


def idle_power(source: EnergyBackend, window: Window, whole: EnergyRecording) -> Idle | None:
    """Tell idle power from the window that ``source`` closed last; ``None`` without a figure.

    Its interval is that of the mean of ten blocks, drift included, and that of the whole window.

    Args:
        source: Where the window was recorded.
        window: A stretch without work.
        whole: What was recorded over it.
    """
    total_j = whole.energy.total_j
    if total_j is None:
        return None
    mean_w = total_j / window.seconds
    known_w = None if whole.interval_j is None else whole.interval_j / window.seconds
    part_w = _part_powers_w(source, window)
    if part_w is None:
        return Idle(mean_w, known_w)
    return Idle(mean_w, hypot(interval95_of_mean_w(part_w), known_w or 0.0), is_steady(part_w))


def _part_powers_w(source: EnergyBackend, window: Window) -> Floats | None:
    """Give mean power of equal parts, shape (n,); ``None`` unless all of at least four are told."""
    count = min(IDLE_PARTS, int(window.seconds / LEAST_PART_S))
    if not isinstance(source, DivisibleSource) or count < LEAST_PARTS:
        return None
    edges_ns = np.linspace(window.t0_ns, window.t1_ns, count + 1).astype(np.int64)
    parts = [Window(int(a), int(b)) for a, b in pairwise(edges_ns)]
    totals = [None if found is None else found.total_j for found in map(source.part, parts)]
    watts = [j / part.seconds for j, part in zip(totals, parts, strict=True) if j is not None]
    return np.array(watts) if len(watts) == count else None


def interval95_of_mean_w(part_w: Floats) -> float:
    """Give the half-width of the 95 % interval of a mean power, drift between halves included.

    Neighbouring parts are not independent, so blocks of them are judged.

    Args:
        part_w: Mean power of at least four equal parts in order, shape (n,).
    """
    blocks = min(BLOCKS, len(part_w) // 2)
    block_w = np.array([part.mean() for part in np.array_split(part_w, blocks)])
    noise_w = STUDENT[blocks - 2] * float(block_w.std(ddof=1)) / sqrt(blocks)
    half = blocks // 2
    drift_w = float(block_w[blocks - half :].mean() - block_w[:half].mean())
    return hypot(noise_w, drift_w / 2)


def is_steady(part_w: Floats) -> bool:
    """Tell whether the halves of a stretch agree within 2 % and their noise.

    Noise is what is left around a straight line, so that a steady slope does not pass for noise.

    Args:
        part_w: Mean power of equal parts in order, shape (n,).
    """
    count = len(part_w)
    half, at = count // 2, np.arange(count)
    rest_w = part_w - np.polyval(np.polyfit(at, part_w, 1), at)
    noise_w = float(rest_w.std(ddof=2)) * sqrt(4 / count)
    drift_w = abs(float(part_w[count - half :].mean() - part_w[:half].mean()))
    return drift_w <= STEADY_SHARE * float(part_w.mean()) + 2 * noise_w
