"""Findings about the state of the devices over the window: heat, limits, and company.

A finding names every device that it holds of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llenergymeasure.core.evidence import Evidence, Found
from llenergymeasure.domain.environment import DeviceState

START_TOLERANCE_C = 3.0
LIMIT_TOLERANCE_W = 0.5  # limits are set in whole watts and read back in milliwatts

EVENTS = {
    "hardware_thermal_slowdown": ("hardware_thermal", 1),
    "power_brake": ("power_brake", 1),
    "hardware_slowdown": ("hardware_slowdown", 2),  # a single sample is no more than a blip
    "software_thermal_slowdown": ("software_thermal", 1),
}
"""Finding, and the clock event that shows it in so many samples at least."""


def findings(evidence: Evidence) -> Iterator[Found]:
    """Find what the devices themselves, their driver and their other users did to the window."""
    devices = evidence.devices
    for code, (event, least) in EVENTS.items():
        yield from _where(code, _seen(event, devices, least))
    # Into the limit they came with; one below it is a finding of its own.
    lowered = [
        one
        for one in devices
        if one.power_limit_w is not None
        and one.power_limit_default_w is not None
        and one.power_limit_w < one.power_limit_default_w - LIMIT_TOLERANCE_W
    ]
    uncapped = [one for one in devices if one not in lowered]
    yield from _where("power_limit_reached", _seen("power_cap", uncapped))
    yield from _where(
        "power_limit_lowered",
        (
            f"{one.device} is limited to {one.power_limit_w:g} W, by default "
            f"{one.power_limit_default_w:g} W"
            for one in lowered
        ),
    )
    yield from _where(
        "start_temperature",
        (
            f"{one.device} started at {one.start_c:g} °C, its reference is {wanted_c:g} °C"
            for one in devices
            if one.start_c is not None
            and (wanted_c := evidence.reference_c.get(one.device)) is not None
            and abs(one.start_c - wanted_c) > START_TOLERANCE_C
        ),
    )
    if off := [one.device for one in devices if one.persistence_mode is False]:
        yield Found("persistence_off", f"persistence mode is off on {', '.join(off)}")
    yield from _company(evidence)


def _company(evidence: Evidence) -> Iterator[Found]:
    """Find other processes that computed on the devices, or that nobody could say."""
    devices = evidence.devices
    yield from _where(
        "foreign_process",
        (
            f"{one.device}: process {', '.join(map(str, one.foreign_pids))}"
            for one in devices
            if one.foreign_pids
        ),
    )
    seen = {one.device for one in devices if one.foreign_pids is not None}
    at_work = evidence.gpu_uuids or tuple(one.device for one in devices)
    unseen = [uuid for uuid in at_work if uuid not in seen]
    if evidence.on_gpu and not at_work:
        unseen = ["the GPU"]
    if unseen:
        yield Found("processes_unknown", f"processes of {', '.join(unseen)} cannot be seen")


def _where(code: str, said: Iterable[str]) -> Iterator[Found]:
    if text := "; ".join(said):
        yield Found(code, text)


def _seen(event: str, devices: Iterable[DeviceState], least: int = 1) -> Iterator[str]:
    for one in devices:
        count = one.clock_events.get(event, 0)
        if count >= least:
            yield f"{one.device}: in {count} of {max(one.state_samples, count)} samples"
