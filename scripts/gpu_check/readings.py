"""What readings say by themselves, without the estimator that is being checked."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from llenergymeasure.core.energy.nvml_reader import COUNTER, POWER
from llenergymeasure.domain.energy import EnergyRecording, Reading
from llenergymeasure.domain.samples import Window

MJ = 1e-3
LEAST_CHANGES = 20  # fewer may be the edges of the load, and a value that stands still between


def of(recording: EnergyRecording, channel: str) -> list[Reading]:
    """Give the readings of one channel, in order."""
    return [reading for reading in recording.readings if reading.channel == channel]


def changes_s(readings: Sequence[Reading]) -> list[float]:
    """Give the times at which a value was first seen, seconds."""
    return [b.after_ns / 1e9 for a, b in pairwise(readings) if a.value != b.value]


def periods_ms(readings: Sequence[Reading]) -> dict[str, float] | None:
    """Give how far apart changes of a value are, ms; ``None`` where it hardly changed."""
    apart = np.diff(changes_s(readings)) * 1e3
    if len(apart) < LEAST_CHANGES:
        return None
    p5, p50, p95 = (float(value) for value in np.percentile(apart, [5, 50, 95]))
    return {"p5": p5, "median": p50, "p95": p95, "changes": float(len(apart) + 1)}


def read_ms(recording: EnergyRecording) -> dict[str, float | None]:
    """Give what reading cost."""
    cost = recording.cost
    if cost is None:
        return {}
    return {"mean": cost.mean_read_ms, "p99": cost.p99_read_ms, "cpu_seconds": cost.cpu_seconds}


def counter_w(recording: EnergyRecording, window: Window) -> float | None:
    """Give mean power by the counter's changes within a window: plain difference over whole ticks.

    ``None`` with fewer than two changes.
    """
    inside = _inside(of(recording, COUNTER), window)
    seen = [(b.after_ns, b.value) for a, b in pairwise(inside) if a.value != b.value]
    if len(seen) < 2:
        return None
    (first_ns, first_mj), (last_ns, last_mj) = seen[0], seen[-1]
    return (last_mj - first_mj) * MJ / ((last_ns - first_ns) / 1e9)


def power_w(recording: EnergyRecording, window: Window) -> float | None:
    """Give mean instantaneous power within a window by the trapezoid rule; ``None`` if too few."""
    inside = _inside(of(recording, POWER), window)
    if len(inside) < 2:
        return None
    at_s = np.array([(one.before_ns + one.after_ns) / 2e9 for one in inside])
    watts = np.array([one.value for one in inside])
    return float(np.trapezoid(watts, at_s) / (at_s[-1] - at_s[0]))


def counter_falls(recording: EnergyRecording) -> int:
    """Count how often the counter fell."""
    return sum(b.value < a.value for a, b in pairwise(of(recording, COUNTER)))


def summary(recording: EnergyRecording, window: Window) -> dict[str, Any]:
    """Give what a recording says, by the estimator and without it."""
    (part,) = recording.components
    return {
        "window_s": window.seconds,
        "energy_j": recording.total_j,
        "interval95_j": recording.interval_j,
        "method": part.method,
        "tick_ms": part.tick_ms,
        "jitter_ms": part.jitter_ms,
        "counter_over_power": part.counter_over_power,
        "counter_w": counter_w(recording, window),
        "power_w": power_w(recording, window),
        "counter_falls": counter_falls(recording),
        "read_ms": read_ms(recording),
        "flags": list(recording.flags),
        "notes": list(recording.notes),
        "device_state": [_state(one.model_dump(mode="json")) for one in recording.device_state],
    }


def _state(state: dict[str, Any]) -> dict[str, Any]:
    """Count foreign processes instead of naming them."""
    pids = state.pop("foreign_pids")
    return {**state, "foreign_processes": None if pids is None else len(pids)}


def _inside(readings: Sequence[Reading], window: Window) -> list[Reading]:
    return [r for r in readings if r.before_ns >= window.t0_ns and r.after_ns <= window.t1_ns]
