"""What a device was doing besides the work: heat, clocks, limits, and who else was there."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from llenergymeasure.domain.base import Record

# NVML's clock-event reasons (nvml.h, nvmlClocksEventReason*); idle and the like are left out.
CLOCK_EVENTS: dict[int, str] = {
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}


class DeviceState(Record):
    """State of one device over the window; null where it could not be read."""

    device: str = Field(description="The device by UUID.")
    start_c: float | None = Field(None, description="Temperature at t0, degrees Celsius.")
    end_c: float | None = Field(None, description="Temperature at t1, degrees Celsius.")
    clock_sm_mhz: float | None = Field(None, description="Mean SM clock over the window, MHz.")
    state_samples: int = Field(0, description="Samples of clock-event reasons in the window.")
    clock_events: dict[str, int] = Field(
        {},
        description="Samples in the window in which each clock-event reason was set: power_cap, "
        "hardware_slowdown, software_thermal, hardware_thermal, power_brake.",
    )
    power_limit_w: float | None = Field(None, description="Enforced power limit, W.")
    power_limit_default_w: float | None = Field(None, description="Default power limit, W.")
    persistence_mode: bool | None = Field(None, description="Whether the driver stays loaded.")
    foreign_pids: tuple[int, ...] | None = Field(
        None,
        description="Other processes that computed on it in the window; null where processes "
        "cannot be seen.",
    )


def count_events(bits: Iterable[int]) -> dict[str, int]:
    """Count in how many samples of clock-event reasons each of :data:`CLOCK_EVENTS` was set."""
    samples = list(bits)
    counts = {name: sum(bool(seen & bit) for seen in samples) for bit, name in CLOCK_EVENTS.items()}
    return {name: count for name, count in counts.items() if count}
