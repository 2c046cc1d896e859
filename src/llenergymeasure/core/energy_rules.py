"""Findings about the energy figure: its readings, how its halves compare, and its baseline.

Each rule is a function from :class:`Evidence` to findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llenergymeasure.core.evidence import Evidence, Found
from llenergymeasure.domain.warnings import FINDINGS

DRIFT_SHARE = 0.01  # of power or clock, between halves that did the same work


def readings(evidence: Evidence) -> Iterator[Found]:
    """Pass on what the readings show."""
    for flag in dict.fromkeys(evidence.energy_flags):
        if flag in FINDINGS and FINDINGS[flag].shows:
            yield Found(flag, FINDINGS[flag].shows)


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
