"""A sensor: its readings, on one clock and without what cannot be true, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.domain.energy import PowerMode
from llenergymeasure.domain.samples import Window

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

EDGE_TIME_CALIBRATED_S = 0.002  # at most, of 0.3 to 2 ms that fits to sixty bursts leave
EDGE_TIME_UNKNOWN_S = 0.05  # sensors rise within 21 to 120 ms (arXiv 2312.02741)
SETTLE_UNKNOWN_S = 0.15
LEAST_LOOK_SHARE = 0.25  # A100 and H100 look at 25 ms of every 100 ms (arXiv 2312.02741)


@dataclass(frozen=True, slots=True, eq=False)
class CounterReadings:
    """Readings of a cumulative energy counter, in the order they were taken.

    Attributes:
        before_ns: Monotonic clock just before each read, shape (n,).
        after_ns: Monotonic clock just after it, shape (n,).
        value: What the counter said, whole units, shape (n,).
        unit_j: Joules in a unit: 1e-3 for a counter in mJ, 1e-6 for one in µJ.
    """

    before_ns: Ints
    after_ns: Ints
    value: Ints
    unit_j: float = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class PowerReadings:
    """Readings of a power sensor, in the order they were taken.

    Attributes:
        before_ns: Monotonic clock just before each read, shape (n,).
        after_ns: Monotonic clock just after it, shape (n,).
        power_w: What the sensor said, W, shape (n,).
    """

    before_ns: Ints
    after_ns: Ints
    power_w: Floats


@dataclass(frozen=True, slots=True, eq=False)
class DeviceReadings:
    """What was read of one device, guard time included.

    Attributes:
        counter: Its energy counter.
        power: Its instantaneous power.
        average_power: Its power as means over a second.
    """

    counter: CounterReadings | None = None
    power: PowerReadings | None = None
    average_power: PowerReadings | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Readings in seconds from the start of the window.

    Attributes:
        before_s: Just before each read, shape (n,).
        after_s: Just after it, shape (n,).
        value: Joules since the first reading, or watts, shape (n,).
    """

    before_s: Floats
    after_s: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.value)

    @property
    def at_s(self) -> Floats:
        """The middle of each read."""
        return (self.before_s + self.after_s) / 2

    def part(self, start: int, stop: int) -> Series:
        """The readings from one position up to another."""
        cut = slice(start, stop)
        return Series(self.before_s[cut], self.after_s[cut], self.value[cut])


def counter_series(readings: CounterReadings, window: Window) -> Series:
    """Put counter readings on the window's clock; a zero after a count is no reading."""
    positive = readings.value > 0
    kept = positive | (~np.maximum.accumulate(positive) & positive.any())
    value = readings.value[kept]
    joules = (value - value[0]) * readings.unit_j if len(value) else value.astype(np.float64)
    return _series(readings.before_ns[kept], readings.after_ns[kept], joules, window)


def power_series(readings: PowerReadings, window: Window) -> Series:
    """Put power readings on the window's clock; zero or less is no reading."""
    kept = np.isfinite(readings.power_w) & (readings.power_w > 0)
    watts = readings.power_w[kept]
    return _series(readings.before_ns[kept], readings.after_ns[kept], watts, window)


def _series(before_ns: Ints, after_ns: Ints, value: Floats, window: Window) -> Series:
    origin = window.t0_ns
    before_s, after_s = (before_ns - origin) / 1e9, (after_ns - origin) / 1e9
    return Series(before_s, after_s, np.asarray(value, dtype=np.float64))


def without_reset(series: Series, length_s: float) -> tuple[Series, bool, bool]:
    """Keep the stretch of a counter that rises throughout and holds the window.

    Returns:
        The stretch, whether a reset fell inside the window, and whether one fell anywhere.
    """
    falls = np.flatnonzero(np.diff(series.value) < 0) + 1
    if not len(falls):
        return series, False, False
    # A reset happened between the read before and the read that shows it.
    inside = (series.after_s[falls] >= 0) & (series.before_s[falls - 1] <= length_s)
    first = int(max((f for f in falls if series.after_s[f] < 0), default=0))
    last = int(min((f for f in falls if series.before_s[f - 1] > length_s), default=len(series)))
    return series.part(first, last), bool(inside.any()), True


def unwrap(values: Ints, max_range: int) -> Ints:
    """Undo the wraps of a counter that starts again at zero, in exact integers.

    Args:
        values: Readings in order, each from 0 to ``max_range``, shape (n,).
        max_range: By how much a wrap falls (``max_energy_range_uj`` of powercap, the range that
            the kernel documents for the counter).

    Returns:
        Readings that never fall, shape (n,). Exact under that convention, as long as fewer than
        one range passes between two readings. Where the range is that of 2^32 - 1 counts, as
        Intel's 262,143,328,850 µJ of 61.035 µJ each, and the hardware has 2^32 of them, a wrap
        loses one count.

    Raises:
        ValueError: A value lies outside the range.
    """
    values = np.asarray(values, dtype=np.int64)
    if len(values) and (values.min() < 0 or values.max() > max_range):
        raise ValueError(f"a reading lies outside 0 to {max_range}")
    wraps = np.concatenate(([0], np.cumsum(np.diff(values) < 0))) if len(values) else values
    unwrapped: Ints = values + wraps.astype(np.int64) * np.int64(max_range)
    return unwrapped


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
        doubt_s: Standard uncertainty of ``excess_s``.
    """

    excess_s: float = 0.0
    settle_s: float = 0.0
    step_w: float | None = None
    rise_s: float | None = None
    doubt_s: float = EDGE_TIME_CALIBRATED_S


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
        rest_from_ns: From when on readings before the window are those of a device at rest: work
            that came before it shows in earlier ones. 0 where all are.
        ends_ns: When warm-up batches of the same work ended that half a second of rest
            followed, ascending; readings reach back to before the first.
        power_mode: What its power readings are, where that is known; ``None`` to tell it from the
            readings, ``"untold"`` where they cannot tell.
        calibrated_at: When the calibrations were made, ISO 8601; ``None`` without any.
    """

    counter: Calibration | None = None
    power: Calibration | None = None
    step_times_ns: Sequence[int] | Ints = ()
    rest_from_ns: int = 0
    ends_ns: Sequence[int] | Ints = ()
    calibrated_at: str | None = None
    power_mode: PowerMode | None = None


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
        tail_doubt_s: See :class:`Tail`.
    """

    lag_s: float = 0.0
    settle_s: float = SETTLE_UNKNOWN_S
    excess_s: float = 0.0
    tail_step_w: float | None = None
    edge_time_s: float = EDGE_TIME_UNKNOWN_S
    look_share: float = LEAST_LOOK_SHARE
    look_known: bool = False
    rise_s: float | None = None
    tail_doubt_s: float = EDGE_TIME_UNKNOWN_S

    @property
    def slow_s(self) -> float:
        """How much of the lag is a slow rise."""
        return min(self.rise_s or 0.0, self.lag_s)


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
        tail_doubt_s=calibration.tail.doubt_s,
    )
