"""The simulated device on a virtual clock: what a sensor publishes, as functions of time.

``simnvml.c`` does the same sums in the same order on the real clock; change both together.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.support.simulated_device.loads import FloatArray, Load
from tests.support.simulated_device.profiles import DeviceProfile

IntArray: TypeAlias = NDArray[np.int64]
Quantity: TypeAlias = Literal["counter", "instant", "average", "usage"]

START_MJ = 123_456_789  # a counter seldom starts at 0
_ONE_SECOND = 1.0
_JITTER, _NOISE = 1, 2  # streams of random numbers


class NotSupported(Exception):  # noqa: N818 - named after NVML's own error
    """The device does not publish this quantity."""


class Polls(NamedTuple):
    """What a sampler has read.

    Attributes:
        before_s: Clock before each read. (polls,)
        after_s: Clock after it. (polls,)
        value: Millijoules of the counter or milliwatts. (polls,)
    """

    before_s: FloatArray
    after_s: FloatArray
    value: IntArray


class VirtualDevice:
    """A device with a sensor and a load.

    Args:
        profile: The device and its sensor.
        load: Its true power.
        seed: Chooses jitter and noise.
        epoch_s: When the counter starts to count; by default 10 s before the load's first piece.
        start_mj: Where it starts.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        load: Load,
        seed: int = 0,
        epoch_s: float | None = None,
        start_mj: int = START_MJ,
    ) -> None:
        self.profile, self.load, self.seed, self.start_mj = profile, load, seed, start_mj
        self.epoch_s = float(load.start_s[0]) - 10.0 if epoch_s is None else epoch_s

    def true_energy_j(self, t0_s: float, t1_s: float) -> float:
        """Give the exact energy of the load, which no sensor sees."""
        return self.load.energy_j(t0_s, t1_s)

    def counter_mj(self, t_s: ArrayLike) -> IntArray:
        """Give what the energy counter shows at each time, in mJ.

        Raises:
            NotSupported: The device has no counter.
        """
        p = self.profile
        if not p.counter_supported:
            raise NotSupported("total energy consumption")
        tick = self._tick_at(t_s, p.counter_period_s, p.counter_phase_s)
        first = int(self._tick_at(self.epoch_s, p.counter_period_s, p.counter_phase_s))
        joules = self._counted_j(np.maximum(tick, first), first)
        return self.start_mj + np.rint(1000.0 * (p.counter_gain * joules)).astype(np.int64)

    def power_mw(self, t_s: ArrayLike) -> IntArray:
        """Give instantaneous power (field 186) at each time, in mW.

        Raises:
            NotSupported: The device has only an average.
        """
        if not self.profile.instant_supported:
            raise NotSupported("field 186")
        return self._mean_mw(t_s, self.profile.averaging_window_s)

    def average_power_mw(self, t_s: ArrayLike) -> IntArray:
        """Give power averaged over 1 s (field 185) at each time, in mW.

        Raises:
            NotSupported: The device has only instantaneous power.
        """
        if not self.profile.average_supported:
            raise NotSupported("field 185")
        return self._mean_mw(t_s, _ONE_SECOND)

    def power_usage_mw(self, t_s: ArrayLike) -> IntArray:
        """Give what nvmlDeviceGetPowerUsage shows at each time, in mW; every device has it."""
        p = self.profile
        return self._mean_mw(t_s, _ONE_SECOND if p.one_second_average else p.averaging_window_s)

    def counter_ticks_s(self, t0_s: float, t1_s: float) -> FloatArray:
        """List when the counter ticks between two times."""
        p = self.profile
        first, last = self._tick_at([t0_s, t1_s], p.counter_period_s, p.counter_phase_s)
        ticks = np.arange(first + 1, last + 1)
        return self._tick_s(ticks, p.counter_period_s, p.counter_phase_s)

    def power_ticks_s(self, t0_s: float, t1_s: float) -> FloatArray:
        """List when power is updated between two times."""
        p = self.profile
        first, last = self._tick_at([t0_s, t1_s], p.power_period_s, p.power_phase_s)
        return self._tick_s(np.arange(first + 1, last + 1), p.power_period_s, p.power_phase_s)

    def poll(
        self,
        t_start_s: float,
        t_end_s: float,
        period_s: float,
        late_share: float,
        rng: np.random.Generator,
        *,
        quantity: Quantity = "counter",
        late_s: tuple[float, float] = (0.01, 0.05),
        read_s: float = 50e-6,
    ) -> Polls:
        """Read a quantity as a sampling process does.

        A read wakes up to 0.1 ms late and takes about ``read_s``. A share of them is later by
        ``late_s``: half of those before the read starts, half within it. Reads that were due
        meanwhile are left out.
        """
        due_s = np.arange(t_start_s, t_end_s, period_s)
        count = len(due_s)
        late = np.where(rng.random(count) < late_share, rng.uniform(*late_s, count), 0.0)
        within = rng.random(count) < 0.5
        before_s = due_s + rng.uniform(0.0, 1e-4, count) + np.where(within, 0.0, late)
        after_s = before_s + read_s * rng.uniform(0.5, 1.5, count) + np.where(within, late, 0.0)
        busy_until_s = np.concatenate(([-np.inf], np.maximum.accumulate(after_s)[:-1]))
        kept = before_s > busy_until_s
        before_s, after_s = before_s[kept], after_s[kept]
        looked_s = before_s + (after_s - before_s) * rng.random(len(before_s))
        return Polls(before_s, after_s, self.shown(quantity, looked_s))

    def shown(self, quantity: Quantity, t_s: FloatArray) -> IntArray:
        """Give what a quantity reads at each time, in NVML's units, shape (n,)."""
        shows = {
            "counter": self.counter_mj,
            "instant": self.power_mw,
            "average": self.average_power_mw,
            "usage": self.power_usage_mw,
        }
        return shows[quantity](t_s)

    def _tick_s(self, tick: IntArray, period_s: float, phase_s: float) -> FloatArray:
        jitter = 2.0 * _uniform(self.seed, _JITTER, tick) - 1.0
        off_s = self.profile.tick_jitter_s * jitter
        return np.asarray(phase_s + tick * period_s + off_s, dtype=np.float64)

    def _tick_at(self, t_s: ArrayLike, period_s: float, phase_s: float) -> IntArray:
        """Number the last tick at or before each time."""
        t_s = np.asarray(t_s, dtype=np.float64)
        nominal = np.floor((t_s - phase_s) / period_s).astype(np.int64)
        early = self._tick_s(nominal + 1, period_s, phase_s) <= t_s
        late = self._tick_s(nominal, period_s, phase_s) > t_s
        return nominal + early - late

    def _counted_j(self, tick: IntArray, first: int) -> FloatArray:
        """Give what the counter has taken in from its first tick to others."""
        p = self.profile
        if p.part_time == 1.0:
            ends_s = self._tick_s(np.append(first, tick), p.counter_period_s, p.counter_phase_s)
            sensed_j = self._sensed_j(ends_s - p.lag_s)
            elapsed_s = ends_s[1:] - ends_s[0]
            joules = p.gain * (sensed_j[1:] - sensed_j[0]) + p.offset_w * elapsed_s
            return np.asarray(joules.reshape(tick.shape), dtype=np.float64)
        every = np.arange(first, tick.max(initial=first) + 1)
        ends_s = self._tick_s(every, p.counter_period_s, p.counter_phase_s)
        width_s = np.diff(ends_s)
        looked_s = p.part_time * width_s
        seen_s = ends_s[1:] - p.lag_s
        seen_j = self._sensed_j(seen_s) - self._sensed_j(seen_s - looked_s)
        joules = (p.gain * (seen_j / looked_s) + p.offset_w) * width_s
        total_j = np.concatenate(([0.0], np.cumsum(joules)))
        return np.asarray(total_j[tick - first], dtype=np.float64)

    def _mean_mw(self, t_s: ArrayLike, window_s: float) -> IntArray:
        p = self.profile
        tick = self._tick_at(t_s, p.power_period_s, p.power_phase_s)
        seen_s = self._tick_s(tick, p.power_period_s, p.power_phase_s) - p.lag_s
        mean_w = (self._sensed_j(seen_s) - self._sensed_j(seen_s - window_s)) / window_s
        noise_w = p.noise_w * _normal(self.seed, tick)
        shown_w = np.maximum(p.gain * mean_w + p.offset_w + noise_w, 0.0)
        return np.rint(1000.0 * shown_w).astype(np.int64)

    def _sensed_j(self, t_s: FloatArray) -> FloatArray:
        """Integrate what the sensor follows: the load, or its first-order response to it."""
        joules = self.load.integral_j(t_s)
        if self.profile.rise_s == 0.0:
            return joules
        # s' = (p - s) / r integrates to: integral of s = integral of p - r (s - s0).
        behind_w = self._followed_w(t_s) - float(self.load.level_w[0])
        return joules - self.profile.rise_s * behind_w

    def _followed_w(self, t_s: FloatArray) -> FloatArray:
        i = self.load.piece_at(t_s)
        since_s = np.maximum(t_s - self.load.start_s[i], 0.0)
        rise_s = self.profile.rise_s
        behind_w = self.load.level_w[i] - self.load.slope_w_per_s[i] * rise_s
        forgotten = np.exp(-since_s / rise_s)
        return (
            behind_w
            + self.load.slope_w_per_s[i] * since_s
            + (self._followed_at_start_w[i] - behind_w) * forgotten
        )

    @cached_property
    def _followed_at_start_w(self) -> FloatArray:
        load, rise_s = self.load, self.profile.rise_s
        width_s = np.diff(load.start_s)
        behind_w = load.level_w - load.slope_w_per_s * rise_s
        end_w = behind_w[:-1] + load.slope_w_per_s[:-1] * width_s
        forgotten = np.exp(-width_s / rise_s)
        followed = [float(load.level_w[0])]
        for k, share in enumerate(forgotten):
            followed.append(end_w[k] + (followed[-1] - behind_w[k]) * share)
        return np.array(followed)


def _uniform(seed: int, stream: int, index: ArrayLike) -> FloatArray:
    """Draw from [0, 1) by hashing: the same index gives the same number (splitmix64's finish)."""
    with np.errstate(over="ignore"):
        x = np.asarray(index, dtype=np.int64).astype(np.uint64)
        x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64((seed * 16 + stream) % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(seed: int, index: IntArray) -> FloatArray:
    """Draw with mean 0 and deviation 1: the sum of four uniforms, so never beyond 3.5."""
    four = [_uniform(seed, _NOISE, 4 * index + part) for part in range(4)]
    total = ((four[0] + four[1]) + four[2]) + four[3]
    return np.asarray((total - 2.0) * np.sqrt(3.0), dtype=np.float64)
