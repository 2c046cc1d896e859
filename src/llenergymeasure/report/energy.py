"""What a result says of energy, idle power and devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llenergymeasure.config.energy_sources import energy_sources
from llenergymeasure.report import format as fmt
from llenergymeasure.report.section import Fact, fact

if TYPE_CHECKING:
    from llenergymeasure.domain.energy import EnergyComponent
    from llenergymeasure.domain.environment import DeviceState
    from llenergymeasure.domain.results import BaselineResult, EnergyResult, ExperimentResult


def facts(result: ExperimentResult) -> Iterator[Fact]:
    """Say how much energy it took or why that is not known, and what the devices did."""
    yield from fact("Energy", _energy(result))
    yield from fact("Idle", _idle(result.baseline))
    yield from fact("Device", _devices(result.device_state))


def _energy(result: ExperimentResult) -> Iterator[str]:
    energy = result.energy
    if energy.total_j is not None and energy.kind != "unmeasurable":
        yield _total(energy, energy.total_j)
        facts = energy_sources().get(energy.source)
        title = facts.title if facts is not None and facts.title else energy.source
        yield f"{energy.kind} by {title}: {energy.scope}"
        yield from _shares(result)
        yield from _beside(energy)
        return
    why = energy.selection_reason
    if result.config.energy_backend == "none":
        why = "switched off with energy_backend: none"
    elif energy.source != "none":  # the notes of `none` are about the state of the devices
        why = "; ".join(energy.notes) or why
    yield f"not measured: {why}"
    yield "-> llem config shows what this machine can measure, and how"


def _idle(baseline: BaselineResult) -> Iterator[str]:
    device_w, loaded_w = baseline.device_idle_w, baseline.loaded_idle_w
    if device_w is not None:
        shown = fmt.with_interval(device_w, baseline.device_idle_interval95_w, "W")
        age, age_s = "", baseline.device_idle_age_s
        if age_s is not None:
            ago = f"{age_s / 60:.0f} min" if age_s < 3600 else f"{age_s / 3600:.1f} h"
            age = f" (of {ago} ago, confirmed by a short look)"
        yield f"{shown} before the model was loaded{age}"
    if loaded_w is not None:
        shown = fmt.with_interval(loaded_w, baseline.loaded_idle_interval95_w, "W")
        yield f"{shown} with the model resident"


def _devices(devices: Sequence[DeviceState]) -> Iterator[str]:
    """Say how hot devices were, how fast they ran, and what held them back."""
    for device in devices:
        told = []
        if device.start_c is not None and device.end_c is not None:
            told.append(f"{device.start_c:.0f} to {device.end_c:.0f} °C")
        if device.clock_sm_mhz is not None:
            told.append(f"SM clock {device.clock_sm_mhz:.0f} MHz on average")
        if device.power_limit_w is not None:
            told.append(f"power limit {device.power_limit_w:g} W")
        for event, count in device.clock_events.items():
            told.append(f"{event.replace('_', ' ')} in {count} of {device.state_samples} samples")
        if told:
            yield f"{device.device}: " * (len(devices) > 1) + ", ".join(told)


def _total(energy: EnergyResult, total_j: float) -> str:
    """Give the total with its interval, what was read for it and how often that changes."""
    shown = fmt.with_interval(total_j, energy.interval95_j, "J")
    if energy.interval95_j is None:
        return f"{shown}, no interval; absolute accuracy {energy.absolute_accuracy}"
    told = [f"{shown} (95 %, sensor scale; absolute accuracy {energy.absolute_accuracy})"]
    parts = [part for part in energy.components if part.in_scope]
    if read := {"counter" if "counter" in part.method else "power" for part in parts}:
        told.append(f"{energy.source} {' and '.join(sorted(read))}")
    ticks_ms = sorted({round(part.tick_ms) for part in parts if part.tick_ms and part.tick_ms >= 1})
    if len(ticks_ms) == 1:
        told.append(f"tick {ticks_ms[0]} ms")
    elif ticks_ms:
        told.append(f"ticks {ticks_ms[0]} to {ticks_ms[-1]} ms")
    return ", ".join(told)


def _shares(result: ExperimentResult) -> Iterator[str]:
    energy, work = result.energy, result.throughput
    for share, count, noun in (
        (energy.per_output_token_j, work.output_tokens, "output token"),
        (energy.per_request_j, work.requests_completed, "request"),
    ):
        if share is not None:
            half = energy.interval95_j / count if energy.interval95_j and count else None
            yield f"{fmt.with_interval(share, half, 'J')} per {noun}"
    if energy.mean_power_w is not None:
        yield f"{fmt.quantity(energy.mean_power_w, 'W')} on average"
    if energy.adjusted_j is not None:
        shown = fmt.with_interval(energy.adjusted_j, energy.adjusted_interval95_j, "J")
        yield f"{shown} above loaded idle"


def _beside(energy: EnergyResult) -> Iterator[str]:
    if (phases := energy.phases) is not None:
        parts = ((phases.prefill_j, "prefill"), (phases.decode_j, "decode"))
        told = [f"{fmt.quantity(value, 'J')} {name}" for value, name in parts if value is not None]
        if told:
            yield f"of one pass: {', '.join(told)}"
    if (halves := energy.comparison) is not None:
        apart = fmt.quantity(abs(halves.second_j - halves.first_j), "J")
        passes = fmt.count(halves.passes_each, "pass", "passes")
        allowed = fmt.quantity(halves.allowed_j, "J")
        yield f"halves of {passes} differ by {apart}; {allowed} is allowed"
    inside = [part for part in energy.components if part.in_scope]
    outside = [part for part in energy.components if not part.in_scope]
    if len(inside) > 1 or any(part.kind == "modelled" for part in inside):
        yield f"of which {', '.join(map(_component, inside))}"
    if outside:
        yield f"not in the total: {', '.join(map(_component, outside))}"
    # "no interval" stands beside the total already
    said = energy.interval95_j is None
    yield from (f"note: {note}" for note in energy.notes if not (said and "no interval" in note))


def _component(part: EnergyComponent) -> str:
    if part.energy_j is None:
        return f"{part.name} unknown ({part.kind})"
    shown = fmt.with_interval(part.energy_j, part.interval95_j, "J")
    # what a modelled figure was made from, such as an assumed rated power
    model = f": {part.method.rpartition(': ')[2]}" if part.kind == "modelled" else ""
    return f"{part.name} {shown} ({part.kind}{model})"
