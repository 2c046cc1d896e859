"""The result as plain text: what a user sees when a run is over."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llenergymeasure.config.registry import backend_entry
from llenergymeasure.report import format as fmt
from llenergymeasure.report.energy import device_lines, energy_lines, idle_lines

if TYPE_CHECKING:
    from llenergymeasure.domain.environment import GPUInfo
    from llenergymeasure.domain.results import Distribution, ExperimentResult

_LABEL = 13
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


def render(result: ExperimentResult) -> str:
    """Render a result for a terminal of 80 columns: plain text, no colour, no final newline."""
    blocks = (_subject, _energy, _work, _latency, _trust)
    return "\n\n".join("\n".join(block(result)) for block in blocks)


def _subject(result: ExperimentResult) -> Iterator[str]:
    dataset, limit = result.resolved.dataset, result.config.max_input_tokens
    cut = result.throughput.prompts_truncated
    yield from _field("Model", result.resolved.model.name, _weights(result))
    yield from _field("Backend", ", ".join(_backend(result)))
    yield from _field("Machine", _machine(result))
    yield from _field(
        "Prompts",
        f"{dataset.name}, {dataset.used:,} of {dataset.size:,}"
        + (f"; {cut:,} cut" if cut else "")
        + (f" to at most {limit:,} tokens" if cut and limit else ""),
    )


def _weights(result: ExperimentResult) -> str:
    model = result.resolved.model
    size = f", {fmt.count(model.parameters, 'parameter')}" if model.parameters else ""
    return f"{'no' if model.weights == 'none' else model.weights} weights{size}"


def _backend(result: ExperimentResult) -> Iterator[str]:
    yield result.config.backend
    yield result.config.precision
    field = backend_entry(result.config.backend).batch_field
    if (batch := result.resolved.backend.get(field)) is not None:
        yield f"{field} {batch}"
    if (processes := result.resolved.backend.get("num_processes", 1)) > 1:
        yield fmt.count(processes, "process", "processes")
    if result.resolved.runner != "local":
        yield f"run by {result.resolved.runner}"


def _machine(result: ExperimentResult) -> str:
    environment = result.environment
    if gpus := _gpus(result):
        names = Counter(gpu.name for gpu in gpus)
        return ", ".join(f"{n} x {name}" if n > 1 else name for name, n in names.items())
    parts = [environment.cpu_model or "unknown CPU"]
    if environment.cpu_count_usable:
        parts.append(fmt.count(environment.cpu_count_usable, "logical CPU"))
    if environment.ram_mb:
        parts.append(fmt.memory(environment.ram_mb))
    return ", ".join(parts)


def _gpus(result: ExperimentResult) -> list[GPUInfo]:
    """Pick the GPUs that did the work, as far as the result tells."""
    named = {part.name for part in result.energy.components if part.in_scope}
    named.update(result.multi_gpu.devices if result.multi_gpu else ())
    every = result.environment.gpus
    used = [gpu for gpu in every if gpu.uuid in named]
    return used or [gpu for gpu in every if result.memory.kind == "device"]


def _energy(result: ExperimentResult) -> Iterator[str]:
    yield from _field("Energy", *energy_lines(result))
    yield from _field("Idle", *idle_lines(result.baseline))
    yield from _field("Device", *device_lines(result.device_state))
    yield from _field("CO2", *_co2(result))


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


def _work(result: ExperimentResult) -> Iterator[str]:
    yield from _field("Loading", *_loading(result))
    yield from _field("Work", *_amount(result))
    if rates := ", ".join(_rates(result)):
        yield from _field("Throughput", rates)
    yield from _field("Memory", *_memory(result))
    if (flops := result.flops) is not None:
        executed = fmt.quantity(flops.executed_total, "FLOP")
        shares = (("MFU", flops.mfu), ("MBU", flops.mbu))
        known = [f"{name} {fmt.percent(share)}" for name, share in shares if share is not None]
        peak = f" of the peak of {flops.peak_source}" if flops.peak_source else ""
        yield from _field(
            "Compute",
            f"{fmt.quantity(flops.useful_total, 'FLOP')} useful, {executed} executed (analytic)",
            *([f"{', '.join(known)}{peak}"] if known else []),
        )


def _loading(result: ExperimentResult) -> Iterator[str]:
    load = result.load
    if load is None:
        return
    known = load.energy_j is not None and load.kind != "unmeasurable"
    energy = fmt.with_interval(load.energy_j or 0.0, load.interval95_j, "J") if known else ""
    yield f"{fmt.seconds(load.seconds)}{f', {energy} ({load.kind})' if known else ''}; cold start"


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


def _rates(result: ExperimentResult) -> Iterator[str]:
    work = result.throughput
    for rate, unit in (
        (work.output_tokens_per_second, "output tokens/s"),
        (work.total_tokens_per_second, "tokens/s in all"),
        (work.requests_per_second, "requests/s"),
    ):
        if rate is not None:
            yield f"{fmt.significant(rate)} {unit}"


def _memory(result: ExperimentResult) -> Iterator[str]:
    memory = result.memory
    capacity = f" of {fmt.memory(memory.capacity_mb)}" if memory.capacity_mb is not None else ""
    if memory.peak_mb is None:
        yield "not known: the backend tells none"
    else:
        yield f"{fmt.memory(memory.peak_mb)} peak{capacity} ({_MEMORY[memory.kind]})"
    if memory.model_mb is not None:
        yield f"{fmt.memory(memory.model_mb)} after loading"


def _latency(result: ExperimentResult) -> Iterator[str]:
    if not result.throughput.requests_completed:
        yield from _field("Latency", "none: no request completed")
        return
    yield f"{'Latency':<26}{'p50':>11}{'p95':>11}{'p99':>11}{'samples':>11}"
    for field, label, absent in _LATENCIES:
        yield _row(label, getattr(result.latency, field), absent)


def _row(label: str, times_ms: Distribution | None, absent: str) -> str:
    if times_ms is None:
        return f"  {label:<24}   {absent}"
    shown = (fmt.milliseconds(value) for value in (times_ms.p50, times_ms.p95, times_ms.p99))
    return f"  {label:<24}{''.join(f'{time:>11}' for time in shown)}{times_ms.count:>11,}"


def _trust(result: ExperimentResult) -> Iterator[str]:
    trust = result.trust
    energy = {trust.verdict: "", "off": " (times only; no energy was read)"}
    of_energy = energy.get(trust.energy, f" (energy: {trust.energy})")
    clean = "" if trust.reasons else ": nothing speaks against these figures"
    yield from _field("Trust", f"{trust.verdict}{of_energy}{clean}")
    for reason in trust.reasons:
        yield from _field(
            f"  {reason.level}", f"{reason.code}: {reason.detail}", f"-> {reason.remedy}"
        )
    told = {reason.code for reason in trust.reasons}
    if others := [code for code in result.measurement_warnings if code not in told]:
        yield from _field("Warnings", ", ".join(others))


def _field(label: str, *lines: str) -> Iterator[str]:
    """Lay lines out beside a label, each wrapped within the width."""
    for position, line in enumerate(lines):
        yield from textwrap.wrap(
            "".join(letter if letter.isprintable() else " " for letter in line),
            fmt.WIDTH,
            initial_indent=(label if position == 0 else "").ljust(_LABEL),
            subsequent_indent=" " * _LABEL,
            break_on_hyphens=False,
        )
