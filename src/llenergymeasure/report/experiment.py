"""What the result of an experiment says: what a user sees when a run is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llenergymeasure.config.registry import backend_entry
from llenergymeasure.report import energy
from llenergymeasure.report import format as fmt
from llenergymeasure.report.section import Fact, Section, Table, fact

if TYPE_CHECKING:
    from llenergymeasure.domain.results import Distribution, ExperimentResult, MemoryResult

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
    yield Section("energy", (*energy.facts(result), *fact("CO2", _co2(result))))
    yield Section("work", tuple(_work(result)))
    yield Section("latency", (_latency(result),))
    yield Section("trust", tuple(_trust(result)))


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
    yield Fact("Prompts", (f"{dataset.name}, {dataset.used:,} of {dataset.size:,}{shortened}",))


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
    if environment.ram_mb:
        parts.append(fmt.memory(environment.ram_mb))
    return ", ".join(parts)


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
            rows.append((label, absent))
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
