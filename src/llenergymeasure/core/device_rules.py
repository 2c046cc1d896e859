"""Findings about the state of the devices over the window: heat, limits, and company.

Each rule is a function from :class:`Evidence` to a finding or ``None``; a finding names every
device that it holds of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llenergymeasure.core.evidence import Evidence, Found
from llenergymeasure.domain.environment import DeviceState

START_TOLERANCE_C = 3.0
LIMIT_TOLERANCE_W = 0.5  # limits are set in whole watts and read back in milliwatts


def hardware_thermal_slowdown(evidence: Evidence) -> Found | None:
    """Find that the hardware slowed a device down because of its heat."""
    return _event("hardware_thermal_slowdown", "hardware_thermal", evidence)


def power_brake(evidence: Evidence) -> Found | None:
    """Find that a device was slowed down from outside, by its power supply."""
    return _event("power_brake", "power_brake", evidence)


def hardware_slowdown(evidence: Evidence) -> Found | None:
    """Find a hardware slowdown that lasted; a single sample is no more than a blip."""
    return _event("hardware_slowdown", "hardware_slowdown", evidence, least=2)


def software_thermal_slowdown(evidence: Evidence) -> Found | None:
    """Find that the driver slowed a device down because of its heat."""
    return _event("software_thermal_slowdown", "software_thermal", evidence)


def power_limit_reached(evidence: Evidence) -> Found | None:
    """Find that devices ran into their limit, where that is the one they came with."""
    uncapped = [one for one in evidence.devices if not _lowered(one)]
    return _found("power_limit_reached", "power_cap", uncapped, least=1)


def power_limit_lowered(evidence: Evidence) -> Found | None:
    """Find power limits below the default ones."""
    lowered = [one for one in evidence.devices if _lowered(one)]
    if not lowered:
        return None
    said = (
        f"{one.device} is limited to {one.power_limit_w:g} W, by default "
        f"{one.power_limit_default_w:g} W"
        for one in lowered
    )
    return Found("power_limit_lowered", "; ".join(said))


def foreign_process(evidence: Evidence) -> Found | None:
    """Find other processes that computed on the devices."""
    said = [
        f"{one.device}: process {', '.join(map(str, one.foreign_pids))}"
        for one in evidence.devices
        if one.foreign_pids
    ]
    return Found("foreign_process", "; ".join(said)) if said else None


def processes_unknown(evidence: Evidence) -> Found | None:
    """Find that nobody could say whether other processes computed on the devices."""
    seen = {one.device for one in evidence.devices if one.foreign_pids is not None}
    at_work = evidence.gpu_uuids or tuple(one.device for one in evidence.devices)
    unseen = [uuid for uuid in at_work if uuid not in seen]
    if evidence.on_gpu and not at_work:
        unseen = ["the GPU"]
    if not unseen:
        return None
    return Found("processes_unknown", f"processes of {', '.join(unseen)} cannot be seen")


def persistence_off(evidence: Evidence) -> Found | None:
    """Find that the driver unloads when nobody uses it."""
    off = [one.device for one in evidence.devices if one.persistence_mode is False]
    return Found("persistence_off", f"persistence mode is off on {', '.join(off)}") if off else None


def start_temperature(evidence: Evidence) -> Found | None:
    """Find devices that started hotter or colder than they should; only where that is known."""
    said = [
        f"{one.device} started at {one.start_c:g} °C, its reference is {wanted_c:g} °C"
        for one in evidence.devices
        if one.start_c is not None
        and (wanted_c := evidence.reference_c.get(one.device)) is not None
        and abs(one.start_c - wanted_c) > START_TOLERANCE_C
    ]
    return Found("start_temperature", "; ".join(said)) if said else None


def _event(code: str, event: str, evidence: Evidence, least: int = 1) -> Found | None:
    return _found(code, event, evidence.devices, least)


def _found(code: str, event: str, devices: Iterable[DeviceState], least: int) -> Found | None:
    said = [
        f"{one.device}: in {count} of {max(one.state_samples, count)} samples"
        for one in devices
        if (count := one.clock_events.get(event, 0)) >= least
    ]
    return Found(code, "; ".join(said)) if said else None


def _lowered(device: DeviceState) -> bool:
    limit_w, default_w = device.power_limit_w, device.power_limit_default_w
    return limit_w is not None and default_w is not None and limit_w < default_w - LIMIT_TOLERANCE_W


RULES: tuple[Callable[[Evidence], Found | None], ...] = (
    hardware_thermal_slowdown,
    power_brake,
    hardware_slowdown,
    foreign_process,
    software_thermal_slowdown,
    power_limit_lowered,
    processes_unknown,
    start_temperature,
    persistence_off,
    power_limit_reached,
)
