"""How often the sensors of a GPU are updated, and what they average over."""

from __future__ import annotations

import random
from typing import Any

from gpu_check import readings
from gpu_check.device import chosen_uuid, load_of, record
from gpu_check.plan import Outcome, Plan
from llenergymeasure.core.energy.calibration import Device, LoadGenerator, calibrate, make_script
from llenergymeasure.core.energy.estimation.sensor import Calibration
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.nvml_reader import COUNTER, POWER
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.domain.environment import DeviceTarget

QUICK = SamplingRates(counter_poll_ms=1.0, power_poll_ms=1.0)
AGREE_SHARE = 0.2  # by which two ways to find a tick may differ


def check(plan: Plan) -> Outcome:
    """Watch the sensors' values change under load, then calibrate them."""
    uuid = chosen_uuid(plan)
    with load_of(plan, uuid) as load:
        seen = watched(plan, uuid, load)
        found = calibrated(plan, uuid, load)
    apart = [name for name in ("counter", "power") if disagree(seen[name], found[name])]
    figures = {"watched": seen, "calibrated": found}
    if not apart:
        return Outcome("ok", "", figures)
    what = f"watching and calibration differ about the tick of: {', '.join(apart)}"
    return Outcome("failed", what, figures)


def watched(plan: Plan, uuid: str, load: LoadGenerator) -> dict[str, Any]:
    """Poll every millisecond, or as often as reads allow; give the times between changes, ms."""
    _, recording = record(uuid, lambda: load.burst(plan.quick_s), QUICK)
    return {
        "counter": readings.periods_ms(readings.of(recording, COUNTER)),
        "power": readings.periods_ms(readings.of(recording, POWER)),
        "read_ms": readings.read_ms(recording),
    }


def calibrated(plan: Plan, uuid: str, load: LoadGenerator) -> dict[str, Any]:
    """Calibrate as ``llem config --calibrate`` does, and keep nothing."""
    device = Device(uuid, survey_gpus().driver_version or "unknown")
    source = NVMLSource(DeviceTarget("gpu", (uuid,)), SamplingRates())
    script = make_script(random.Random(), plan.short_bursts, plan.long_bursts)
    learned = calibrate(device, source, load, script)
    return {
        "counter": told(learned.stored.counter),
        "power": told(learned.stored.power),
        "notes": list(learned.notes),
    }


def told(sensor: Calibration | None) -> dict[str, Any] | None:
    """Give what a calibration learned about one sensor."""
    if sensor is None:
        return None
    return {
        "tick_ms": _ms(sensor.tick_s),
        "jitter_ms": _ms(sensor.jitter_s),
        "lag_ms": _ms(sensor.lag_s),
        "averaging_window_ms": _ms(averaging_window_s(sensor)),
        "fully_integrating": sensor.fully_integrating,
        "look_share": sensor.look_share,
        "tail_j_per_w": sensor.tail.excess_s,
    }


def averaging_window_s(sensor: Calibration) -> float | None:
    """Give the stretch before each update that its value is the mean of; ``None`` if not known."""
    share = 1.0 if sensor.fully_integrating else sensor.look_share
    return None if share is None or sensor.tick_s is None else share * sensor.tick_s


def disagree(watched: dict[str, float] | None, calibrated: dict[str, Any] | None) -> bool:
    """Tell whether two ways to find a tick differ; one that found none says nothing."""
    tick_ms = None if calibrated is None else calibrated["tick_ms"]
    if watched is None or tick_ms is None:
        return False
    return bool(abs(watched["median"] - tick_ms) > AGREE_SHARE * tick_ms)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
