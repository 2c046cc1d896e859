"""Readings as arrays, on one clock, without what cannot be true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.domain.samples import Window

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
