"""How the power sensors of known devices behave, as far as that is published.

Update period and averaging window: Yang, Adamek and Armour, arXiv 2312.02741, and its artifact
data. Which power a call gives: the notes on NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT
and nvmlDeviceGetPowerUsage in nvml.h. Counter periods of A100, H100 and V100 as measured there;
for the others the power sensor's period is assumed. Idle and limit are typical board figures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """A device and its sensor.

    Attributes:
        name: Product name.
        architecture: NVML's number for it (pynvml.NVML_DEVICE_ARCH_*).
        idle_w: Power without any load.
        limit_w: Default power limit.
        counter_supported: Whether there is an energy counter.
        counter_period_s: Time between two ticks of the counter.
        counter_phase_s: Ticks are at phase + k * period, for whole k, before jitter.
        part_time: Share of each tick, at its end, that the counter looks at; it takes the rest to
            be alike. 1 integrates fully.
        power_period_s: Time between two updates of power.
        power_phase_s: Their phase.
        averaging_window_s: What instantaneous power averages over.
        one_second_average: Whether nvmlDeviceGetPowerUsage gives a mean over 1 s.
        instant_supported: Whether field 186 answers.
        average_supported: Whether field 185 answers.
        tick_jitter_s: Each tick is early or late by up to this much, uniformly. At equal period
            and phase, counter and power share their ticks. Less than half of either period.
        lag_s: The sensor shows power this much later than it was.
        rise_s: Time constant with which the sensor follows power; 0 follows at once.
        noise_w: Standard deviation of each power value; the counter has none.
        gain: What the sensor makes of a watt, in power and counter.
        offset_w: What it adds, in power and counter.
        counter_gain: A further factor of the counter alone.
        grace_hopper: Whether a CPU shares the module.
    """

    name: str
    architecture: int
    idle_w: float = 60.0
    limit_w: float = 400.0
    counter_supported: bool = True
    counter_period_s: float = 0.1
    counter_phase_s: float = 0.0
    part_time: float = 1.0
    power_period_s: float = 0.1
    power_phase_s: float = 0.0
    averaging_window_s: float = 0.025
    one_second_average: bool = False
    instant_supported: bool = True
    average_supported: bool = False
    tick_jitter_s: float = 0.0
    lag_s: float = 0.0
    rise_s: float = 0.0
    noise_w: float = 0.0
    gain: float = 1.0
    offset_w: float = 0.0
    counter_gain: float = 1.0
    grace_hopper: bool = False

    def __post_init__(self) -> None:
        periods_s = (self.counter_period_s, self.power_period_s)
        if self.tick_jitter_s >= min(periods_s) / 2.0:
            raise ValueError("ticks would overtake each other: tick_jitter_s is too large")
        if not 0.0 < self.part_time <= 1.0:
            raise ValueError("part_time is a share of each tick, above 0 and at most 1")


VOLTA, PASCAL, AMPERE, ADA, HOPPER = 5, 4, 7, 8, 9

A100 = DeviceProfile("NVIDIA A100-SXM4-80GB", AMPERE, idle_w=60.0, limit_w=400.0)
A100_40GB = replace(A100, name="NVIDIA A100-PCIE-40GB", limit_w=250.0, averaging_window_s=0.018)
H100 = DeviceProfile(
    "NVIDIA H100 80GB HBM3",
    HOPPER,
    idle_w=75.0,
    limit_w=700.0,
    one_second_average=True,
    average_supported=True,
)
RTX_4090 = DeviceProfile(
    "NVIDIA GeForce RTX 4090",
    ADA,
    idle_w=25.0,
    limit_w=450.0,
    averaging_window_s=0.11,
    one_second_average=True,
    average_supported=True,
)
RTX_3090 = replace(
    RTX_4090,
    name="NVIDIA GeForce RTX 3090",
    architecture=AMPERE,
    limit_w=350.0,
    averaging_window_s=0.1,
)
V100 = DeviceProfile(
    "Tesla V100-SXM2-16GB",
    VOLTA,
    idle_w=40.0,
    limit_w=300.0,
    counter_period_s=0.02,
    power_period_s=0.02,
    averaging_window_s=0.01,
)
A10 = DeviceProfile(  # with a driver from before field 186
    "NVIDIA A10",
    AMPERE,
    idle_w=20.0,
    limit_w=150.0,
    one_second_average=True,
    instant_supported=False,
)
GH200 = DeviceProfile(
    "NVIDIA GH200 480GB",
    HOPPER,
    idle_w=90.0,
    limit_w=900.0,
    averaging_window_s=0.02,
    one_second_average=True,
    average_supported=True,
    grace_hopper=True,
)
PASCAL_P100 = DeviceProfile(
    "Tesla P100-PCIE-16GB",
    PASCAL,
    idle_w=30.0,
    limit_w=250.0,
    counter_supported=False,
    power_period_s=0.02,
    averaging_window_s=0.01,
)
A100_PART_TIME = replace(A100, part_time=0.25)
H100_PART_TIME = replace(H100, part_time=0.25)

PROFILES = {
    "a100": A100,
    "a100-40gb": A100_40GB,
    "h100": H100,
    "rtx3090": RTX_3090,
    "rtx4090": RTX_4090,
    "v100": V100,
    "a10": A10,
    "gh200": GH200,
    "p100": PASCAL_P100,
    "a100-part-time": A100_PART_TIME,
    "h100-part-time": H100_PART_TIME,
}


def vary(profile: DeviceProfile, **changes: Any) -> DeviceProfile:
    """Change some numbers of a profile."""
    return replace(profile, **changes)


def with_random_phase(profile: DeviceProfile, rng: np.random.Generator) -> DeviceProfile:
    """Put the ticks anywhere; counter and power of one period keep to the same ticks."""
    counter_phase_s = float(rng.uniform(0.0, profile.counter_period_s))
    alike = profile.counter_period_s == profile.power_period_s
    power_phase_s = counter_phase_s if alike else float(rng.uniform(0.0, profile.power_period_s))
    return replace(profile, counter_phase_s=counter_phase_s, power_phase_s=power_phase_s)
