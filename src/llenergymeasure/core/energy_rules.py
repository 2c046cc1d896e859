"""Findings about the energy figure: its readings, how its halves compare, and its baseline.

Each rule is a function from :class:`Evidence` to findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llenergymeasure.core.evidence import Evidence, Found

DRIFT_SHARE = 0.01  # of power or clock, between halves that did the same work

# What the readings of a source show, by the codes it gives.
FLAGS: dict[str, str] = {
    "counter_reset": "the energy counter started again inside the window",
    "counter_reset_outside": "the energy counter started again next to the window",
    "counter_unusable": "the energy counter did not move, so power readings were integrated",
    "counter_power_disagree": "counter and integrated power differ by more than 5 %, and by more "
    "than their intervals",
    "sensor_uncalibrated": "nothing is known of the sensor's lag and of how it looks",
    "aliasing_risk": "the load repeats in step with the sensor's ticks",
    "integrated_power": "there is no energy counter; power readings were integrated",
    "one_second_average": "there are only power readings that are means over a second",
    "no_guard": "too little was read just before or after the window",
    "unknown_tail": "power died away after the window as its calibration never saw it",
    "sampling_gap": "nothing was read for several ticks",
    "stalled_reads": "a read of the sensor took longer than 0.1 s",
    "part_time": "the sensor looks at a share of each tick only",
}


def readings(evidence: Evidence) -> Iterator[Found]:
    """Pass on what the readings show."""
    for flag in dict.fromkeys(evidence.energy_flags):
        if flag in FLAGS:
            yield Found(flag, FLAGS[flag])


def closure_failed(evidence: Evidence) -> Iterator[Found]:
    """Find that halves which did the same work did not take the same energy."""
    halves = evidence.comparison
    if halves is not None and halves.closes is False:
        yield Found(
            "closure_failed",
            f"{halves.first_j:.4g} J, then {halves.second_j:.4g} J for the same "
            f"{halves.passes_each} passes; {halves.allowed_j:.2g} J apart is allowed",
        )


def power_drift(evidence: Evidence) -> Iterator[Found]:
    """Find that power moved from one half to the next by more than 1 %, as far as that shows."""
    halves = evidence.comparison
    if halves is None or halves.power_change is None:
        return
    if abs(halves.power_change) > max(DRIFT_SHARE, halves.power_change_interval95 or 0.0):
        yield Found("power_drift", f"power changed by {halves.power_change:+.1%}")


def clock_drift(evidence: Evidence) -> Iterator[Found]:
    """Find that a clock moved from one half to the next by more than 1 %."""
    halves = evidence.comparison
    if halves is not None and abs(halves.clock_change or 0.0) > DRIFT_SHARE:
        yield Found("clock_drift", f"the SM clock changed by {halves.clock_change:+.1%}")


def baseline_unsteady(evidence: Evidence) -> Iterator[Found]:
    """Find idle power that was on its way up or down while it was measured."""
    baseline = evidence.baseline
    if baseline is None:
        return
    for name, steady in (
        ("before the model was loaded", baseline.device_idle_steady),
        ("with the model resident", baseline.loaded_idle_steady),
    ):
        if steady is False:
            yield Found("baseline_unsteady", f"idle power drifted {name}")
            return


def prefix_cache_hits(evidence: Evidence) -> Iterator[Found]:
    """Find prompts that the engine did not have to work on."""
    if evidence.prefix_cache_hits:
        yield Found("prefix_cache_hits", f"{evidence.prefix_cache_hits:,} prompts were cached")


RULES: tuple[Callable[[Evidence], Iterator[Found]], ...] = (
    readings,
    closure_failed,
    power_drift,
    clock_drift,
    baseline_unsteady,
    prefix_cache_hits,
)
