"""What is known about a sensor's timing, by calibration or by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.core.energy.estimation.readings import Floats, Ints

EDGE_TIME_CALIBRATED_S = 0.005
EDGE_TIME_UNKNOWN_S = 0.05  # sensors rise within 21 to 120 ms (arXiv 2312.02741)
SETTLE_UNKNOWN_S = 0.15
LEAST_LOOK_SHARE = 0.25  # A100 and H100 look at 25 ms of every 100 ms (arXiv 2312.02741)


@dataclass(frozen=True, slots=True)
class Tail:
    """Power that a device goes on drawing when its work is done.

    Attributes:
        excess_s: Its energy per watt of the step down, seconds: a tail of 10 J after a step of
            400 W has 0.025.
        step_w: The step it was found at, or ``None``: whether a tail grows with the step is not
            known.
        settle_s: How long after the work until both tail and lag have passed through the sensor.
        rise_s: How much of the sensor's lag is a slow rise, the rest being a delay; ``None`` where
            a tail hides it: ``excess_s`` is then no noise.
    """

    excess_s: float = 0.0
    settle_s: float = 0.0
    step_w: float | None = None
    rise_s: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What calibration learned about a sensor.

    Attributes:
        tick_s: Time between two values; ``None`` where it outruns the polls.
        jitter_s: Standard deviation of ticks about a steady comb.
        lag_s: How much later than the device the sensor is.
        tail: What the device draws after the work.
        fully_integrating: Whether every moment is counted, not only a share of each tick.
        look_share: Share of each tick that is looked at, at its end; ``None`` when not known.
        edge_time_s: Standard uncertainty of ``lag_s`` and of the tail together.
    """

    tick_s: float | None = None
    jitter_s: float | None = None
    lag_s: float = 0.0
    tail: Tail = Tail()
    fully_integrating: bool = False
    look_share: float | None = None
    edge_time_s: float = EDGE_TIME_CALIBRATED_S


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of one device beyond its readings.

    Attributes:
        counter: Calibration of its counter.
        power: Calibration of its power sensor.
        step_times_ns: When each step of the load began (tokens, batches), monotonic clock.
    """

    counter: Calibration | None = None
    power: Calibration | None = None
    step_times_ns: Sequence[int] | Ints = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """The same with every gap filled by its default.

    Attributes:
        lag_s: See :class:`Calibration`.
        settle_s: How long after the window its energy may still come in.
        excess_s: See :class:`Tail`.
        tail_step_w: See :class:`Tail`.
        edge_time_s: See :class:`Calibration`.
        look_share: Share of each tick taken to be looked at; 1 counts every moment.
        look_known: Whether that share is known, so that its effect is taken off.
        rise_s: See :class:`Tail`; 0 where a tail hides it, and ``None`` where the sensor does not
            look all the time.
        tail_known: Whether calibration saw a tail.
    """

    lag_s: float = 0.0
    settle_s: float = SETTLE_UNKNOWN_S
    excess_s: float = 0.0
    tail_step_w: float | None = None
    edge_time_s: float = EDGE_TIME_UNKNOWN_S
    look_share: float = LEAST_LOOK_SHARE
    look_known: bool = False
    rise_s: float | None = None
    tail_known: bool = False


def to_come_s(delay_s: Floats, lag_s: float, rise_s: float) -> Floats:
    """Tell what a sensor has still to count after a step down, per watt of it.

    A delay and a first-order rise after it: their sum is the lag.
    """
    since_s = delay_s - (lag_s - rise_s)
    rising: Floats = rise_s * np.exp(-np.maximum(since_s, 0.0) / max(rise_s, 1e-9))
    return np.where(since_s < 0, rise_s - since_s, rising)


def timing(calibration: Calibration | None) -> Timing:
    """Fill what a calibration does not tell with defaults."""
    if calibration is None:
        return Timing()
    share = 1.0 if calibration.fully_integrating else calibration.look_share
    return Timing(
        lag_s=calibration.lag_s,
        settle_s=max(calibration.tail.settle_s, calibration.lag_s),
        excess_s=calibration.tail.excess_s,
        tail_step_w=calibration.tail.step_w,
        edge_time_s=calibration.edge_time_s,
        look_share=LEAST_LOOK_SHARE if share is None else share,
        look_known=share is not None,
        rise_s=(calibration.tail.rise_s or 0.0) if calibration.fully_integrating else None,
        tail_known=calibration.tail.rise_s is None,
    )
