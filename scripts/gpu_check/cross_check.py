"""The energy counter against integrated instantaneous power, idle and under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gpu_check import readings
from gpu_check.device import SETTLE_S, chosen_uuid, idle, load_of, record
from gpu_check.plan import Outcome, Plan

AGREE_SHARE = 0.05  # the share from which on a result is flagged counter_power_disagree


def check(plan: Plan) -> Outcome:
    """Compare both over a stretch of idling and one of load."""
    uuid = chosen_uuid(plan)
    with load_of(plan, uuid) as load:
        time.sleep(SETTLE_S)
        resting = record(uuid, lambda: idle(plan.hold_s))
        working = record(uuid, lambda: load.burst(plan.hold_s))
    figures = {
        "idle": readings.summary(resting[1], resting[0]),
        "load": readings.summary(working[1], working[0]),
    }
    return judged(figures)


def judged(figures: dict[str, dict[str, Any]]) -> Outcome:
    """Say what does not fit together."""
    wrong = [what for name, one in figures.items() for what in _wrong(name, one)]
    idle_w, load_w = (figures[name]["power_w"] for name in ("idle", "load"))
    if idle_w is not None and load_w is not None and idle_w >= load_w:
        wrong.append(f"idling draws {idle_w:.0f} W and load {load_w:.0f} W")
    return Outcome("failed" if wrong else "ok", "; ".join(wrong), figures)


def _wrong(name: str, one: dict[str, Any]) -> Iterator[str]:
    counter_w, power_w = one["counter_w"], one["power_w"]
    if one["counter_falls"]:
        yield f"{name}: the counter fell {one['counter_falls']} times"
    if counter_w is None or power_w is None:
        missing = "counter" if counter_w is None else "instantaneous power"
        yield f"{name}: there is nothing to compare, for want of the {missing}"
        return
    by_hand = counter_w / power_w
    if abs(by_hand - 1) > AGREE_SHARE:
        yield f"{name}: counter / power is {by_hand:.3f}"
    if one["energy_j"] is None:
        yield f"{name}: the estimator gives no energy ({', '.join(one['flags'])})"
    elif abs(one["energy_j"] / one["window_s"] / counter_w - 1) > AGREE_SHARE:
        yield f"{name}: the estimator gives {one['energy_j']:.1f} J, the counter {counter_w:.1f} W"
