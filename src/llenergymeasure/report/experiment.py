"""What the result of an experiment says: what a user sees when a run is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llenergymeasure.config.energy_sources import energy_sources
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.report import format as fmt
from llenergymeasure.report.section import Fact, Section, Table, fact

if TYPE_CHECKING:
    from llenergymeasure.domain.energy import EnergyComponent
    from llenergymeasure.domain.environment import DeviceState
    from llenergymeasure.domain.results import (
        BaselineResult,
        Distribution,
        EnergyResult,
        ExperimentResult,
        MemoryResult,
    )

MUCH_PADDING = 0.2
_LATENCIES = (
    ("ttft_ms", "TTFT, first token", "no request has a first token"),
    ("tpot_ms", "TPOT, per output token", "no request has two tokens"),
    ("itl_ms", "ITL, between tokens", "the engine tells no token times"),
    ("e2e_ms", "E2E, whole request", "no request has a last token"),
)
_MEMORY = {
    "device": "device memory",
    "resident_set": "resident memory of the process",
    "none": "of unknown kind",
}


def sections(result: ExperimentResult) -> Iterator[Section]:
    """Say what a result says."""
    yield Section("subject", tuple(_subject(result)))
    facts = (
        *fact("Energy", _energy(result)),
        *fact("Idle", _idle(result.baseline)),
        *fact("Device", _devices(result.device_state)),
        *fact("CO2", _co2(result)),
    )
    yield Section("energy", facts)
    yield Section("work", tuple(_work(result)))
    yield Section("latency", (_latency(result),))
    yield Section("trust", tuple(_trust(result)))
    yield Section("earlier", tuple(fact("Old rules", result.earlier_rules)))


def _subject(result: ExperimentResult) -> Iterator[Fact]:
    model, dataset = result.resolved.model, result.resolved.dataset
    weights = f"{'no' if model.weights == 'none' else model.weights} weights"
    size = f", {fmt.count(model.parameters, 'parameter')}" if model.parameters else ""
    yield Fact("Model", (model.name, weights + size))
    in_force, field = result.resolved.backend, backend_entry(result.config.backend).batch_field
    backend = [result.config.backend, result.config.precision]
    if (batch := in_force.get(field)) is not None:
        backend.append(f"{field} {batch}")
    if (processes := in_force.get("num_processes", 1)) > 1:
        backend.append(fmt.count(processes, "process", "processes"))
    if result.resolved.runner != "local":
        backend.append(f"run by {result.resolved.runner}")
    yield Fact("Backend", (", ".join(backend),))
    yield Fact("Machine", (_machine(result),))
    limit, cut = result.config.max_input_tokens, result.throughput.prompts_truncated
    shortened = f"; {cut:,} cut" if cut else ""
    if cut and limit:
        shortened += f" to at most {limit:,} tokens"
    counts = f"{dataset.name}, {dataset.used:,} of {dataset.size:,}{shortened}"
    yield Fact("Prompts", (counts, *dataset.notes()))


def _machine(result: ExperimentResult) -> str:
    """Name the GPUs that did the work, as far as the result tells, or the CPU."""
    environment = result.environment
    named = {part.name for part in result.energy.components if part.in_scope}
    named.update(result.multi_gpu.devices if result.multi_gpu else ())
    used = [gpu for gpu in environment.gpus if gpu.uuid in named]
    if used or (environment.gpus and result.memory.kind == "device"):
        names = Counter(gpu.name for gpu in used or environment.gpus)
        return ", ".join(f"{n} x {name}" if n > 1 else name for name, n in names.items())
    parts = [environment.cpu_model or "unknown CPU"]
    if environment.cpu_count_usable:
        parts.append(fmt.count(environment.cpu_count_usable, "logical CPU"))
    if environment.cpu_quota is not None:
        parts.append(f"a quota of {environment.cpu_quota:g} CPUs")
    if memory_mb := environment.memory_limit_mb or environment.ram_mb:
        parts.append(fmt.memory(memory_mb))
    return ", ".join(parts)


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
    if read := {part.sensor for part in parts if part.sensor}:
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
        (energy.per_accepted_token_j, work.accepted_tokens, "accepted token"),
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
    model = f": {part.model}" if part.model else ""
    return f"{part.name} {shown} ({part.kind}{model})"


def _co2(result: ExperimentResult) -> Iterator[str]:
    co2 = result.co2_estimate
    if co2.co2_grams is None:
        return
    yield f"{fmt.quantity(co2.co2_grams, 'g')} CO2e"
    yield (
        f"at {co2.carbon_intensity_gco2_kwh:g} g/kWh "
        f"({co2.carbon_intensity_source or 'of unknown source'}) and "
        f"PUE {co2.datacenter_pue:g} ({co2.datacenter_pue_source})"
    )


def _work(result: ExperimentResult) -> Iterator[Fact]:
    if (load := result.load) is not None:
        energy = ""
        if load.energy_j is not None and load.kind != "unmeasurable":
            shown = fmt.with_interval(load.energy_j, load.interval95_j, "J")
            energy = f", {shown} ({load.kind})"
        yield Fact("Loading", (f"{fmt.seconds(load.seconds)}{energy}; cold start",))
    yield Fact("Work", tuple(_amount(result)))
    work = result.throughput
    rates = (
        (work.output_tokens_per_second, "output tokens/s"),
        (work.total_tokens_per_second, "tokens/s in all"),
        (work.requests_per_second, "requests/s"),
    )
    if known := [f"{fmt.significant(rate)} {unit}" for rate, unit in rates if rate is not None]:
        yield Fact("Throughput", (", ".join(known),))
    yield Fact("Memory", tuple(_memory(result.memory)))
    if (flops := result.flops) is not None:
        executed = fmt.quantity(flops.executed_total, "FLOP")
        did = f"{fmt.quantity(flops.useful_total, 'FLOP')} useful, {executed} executed (analytic)"
        shares = (("MFU", flops.mfu), ("MBU", flops.mbu))
        used = ", ".join(f"{name} {fmt.percent(one)}" for name, one in shares if one is not None)
        peak = f" of the peak of {flops.peak_source}" if flops.peak_source else ""
        yield Fact("Compute", (did, f"{used}{peak}") if used else (did,))
    elif (doubt := result.resolved.model.doubt) is not None:
        yield Fact("Compute", (f"FLOPs are not known: {doubt}",))


def _amount(result: ExperimentResult) -> Iterator[str]:
    work = result.throughput
    passes = fmt.count(work.passes, "pass", "passes")
    done = fmt.count(work.requests_completed, "request")
    failed = f"; {work.requests_failed:,} failed" if work.requests_failed else ""
    yield f"{done} in {passes}, window of {fmt.seconds(work.window_s)}{failed}"
    yield (
        f"{fmt.count(work.input_tokens, 'input token')}, "
        f"{fmt.count(work.output_tokens, 'output token')}"
    )
    if work.drafted_tokens is not None:
        rate = work.acceptance_rate
        share = "" if rate is None else f" ({fmt.percent(rate)})"
        yield f"{work.accepted_tokens:,} of {work.drafted_tokens:,} drafted tokens accepted{share}"
    if work.padding_waste:
        yield f"{fmt.percent(work.padding_waste)} of computed positions were padding"
        backend, in_force = result.config.backend, result.resolved.backend
        field, value = backend_entry(backend).less_padding or ("", None)
        if work.padding_waste > MUCH_PADDING and in_force.get(field) != value:
            yield f"-> {backend}.{field}: {value} sorts prompts by length and pads less"


def _memory(memory: MemoryResult) -> Iterator[str]:
    capacity = f" of {fmt.memory(memory.capacity_mb)}" if memory.capacity_mb is not None else ""
    if memory.peak_mb is None:
        yield "not known: the backend tells none"
    else:
        yield f"{fmt.memory(memory.peak_mb)} peak{capacity} ({_MEMORY[memory.kind]})"
    if memory.model_mb is not None:
        yield f"{fmt.memory(memory.model_mb)} after loading"


def _latency(result: ExperimentResult) -> Fact | Table:
    if not result.throughput.requests_completed:
        return Fact("Latency", ("none: no request completed",))
    title = "Latency, from due" if result.latency.counted_from == "due" else "Latency"
    rows: list[tuple[str, ...]] = []
    for field, label, absent in _LATENCIES:
        times_ms: Distribution | None = getattr(result.latency, field)
        if times_ms is None:
            searched = field != "e2e_ms" and result.config.decoder.decoding_strategy == "beam"
            rows.append((label, "no token is final before a search ends" if searched else absent))
        else:
            quantiles = (times_ms.p50, times_ms.p95, times_ms.p99)
            rows.append((label, *map(fmt.milliseconds, quantiles), f"{times_ms.count:,}"))
    return Table("latency", (title, "p50", "p95", "p99", "samples"), tuple(rows))


def _trust(result: ExperimentResult) -> Iterator[Fact]:
    trust = result.trust
    energy = {trust.verdict: "", "off": " (times only; no energy was read)"}
    of_energy = energy.get(trust.energy, f" (energy: {trust.energy})")
    clean = "" if trust.reasons else ": nothing speaks against these figures"
    yield Fact("Trust", (f"{trust.verdict}{of_energy}{clean}",))
    for reason in trust.reasons:
        yield Fact(reason.level, (f"{reason.code}: {reason.detail}", f"-> {reason.remedy}"), 1)
    told = {reason.code for reason in trust.reasons}
    if others := [code for code in result.measurement_warnings if code not in told]:
        yield Fact("Warnings", (", ".join(others),))
