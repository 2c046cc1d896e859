"""What a result says twice has to agree: headlines and details, rates and counts, verdict, reasons.

All of it holds of every result this package has made, by construction. So a line found here means
that somebody, or a failing disk, has changed a figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isclose
from typing import Any

from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.results import (
    Distribution,
    ExperimentResult,
    TrustVerdict,
    warning_codes,
)
from llenergymeasure.units import JOULES_PER_KWH

LARGEST, LARGEST_COUNT = 1e29, 1 << 63
"""Beyond what any figure can be: FLOPs of a window reach some 1e24, and counts fit 63 bits."""

HEADLINES = {
    "energy_total_j": "energy.total_j",
    "energy_per_output_token_j": "energy.per_output_token_j",
    "energy_adjusted_j": "energy.adjusted_j",
    "tokens_per_second": "throughput.output_tokens_per_second",
    "ttft_ms": "latency.ttft_ms.p50",
    "tpot_ms": "latency.tpot_ms.p50",
    "peak_memory_mb": "memory.peak_mb",
    "flops_total": "flops.useful_total",
}
"""Headline figures, and where each is from."""

_RATIOS = (
    ("throughput.output_tokens_per_second", "throughput.output_tokens", "throughput.window_s"),
    ("throughput.requests_per_second", "throughput.requests_completed", "throughput.window_s"),
)
_ENERGY_RATIOS = (
    ("energy.per_output_token_j", "energy.total_j", "throughput.output_tokens"),
    ("energy.per_request_j", "energy.total_j", "throughput.requests_completed"),
    ("energy.tokens_per_j", "throughput.output_tokens", "energy.total_j"),
    ("energy.mean_power_w", "energy.total_j", "throughput.window_s"),
)

_NEVER_NEGATIVE = re.compile(
    r"(throughput|latency|memory|flops|warmup|window|energy\.sampling)\..*|load\.seconds"
    r"|energy\.(total_j|interval95_j|stretch_s|components\..*\.(energy_j|interval95_j|tick_ms))"
    r"|baseline\.(.*_idle_w|.*interval95_w|duration_s)|resolved\.(model|dataset)\..*"
)
_ASKED = ("config", "resolved.backend", "resolved.dataset.provenance")
"""What users wrote, with numbers of any size."""


def contradictions(result: ExperimentResult) -> Iterator[str]:
    """Find what a result says in two ways that do not agree, as ``field: what is wrong``."""
    for name, source in HEADLINES.items():
        if (said := _at(result, name)) != (meant := _at(result, source)):
            yield f"{name}: {said}, and {source} is {meant}"
    yield from _of_the_work(result)
    yield from _of_the_energy(result)
    yield from _of_the_verdict(result)
    if (flops := result.flops) is not None:
        for kind in ("useful", "executed"):
            parts = [getattr(flops, f"{kind}_{phase}").total for phase in ("prefill", "decode")]
            yield from _apart(f"flops.{kind}_total", getattr(flops, f"{kind}_total"), sum(parts))


def doubts(data: Mapping[str, Any], result: ExperimentResult) -> Iterator[str]:
    """Find what cannot be as it was written, in a result whose checksum tells nothing.

    Args:
        data: What its file holds.
        result: What was made of that.
    """
    yield from _misread(data, result.model_dump(mode="json"), "")
    for place, value in _numbers(data, ""):
        limit = LARGEST_COUNT if isinstance(value, int) else LARGEST
        if abs(value) >= limit and not place.startswith(_ASKED):
            yield f"{place}: larger than any figure can be"
        elif value < 0 and _NEVER_NEGATIVE.fullmatch(place):
            yield f"{place}: {value:.3g} is negative"
    work = result.throughput
    asked = result.resolved.dataset.used * work.passes
    if (ended := work.requests_completed + work.requests_failed) != asked:
        yield f"throughput.requests_completed: {ended} requests ended, {asked} were given"


def _of_the_work(result: ExperimentResult) -> Iterator[str]:
    work, window = result.throughput, result.window
    for ratio in _RATIOS:
        yield from _no_ratio(result, *ratio)
    total = _over(work.input_tokens + work.output_tokens, work.window_s)
    yield from _apart("throughput.total_tokens_per_second", work.total_tokens_per_second, total)
    seconds = (window.t1_ns - window.t0_ns) / 1e9
    yield from _apart("throughput.window_s", work.window_s, seconds)
    if len(window.pass_seconds) != work.passes:
        yield f"throughput.passes: {work.passes}, and window.pass_seconds has other"
    if result.resolved.model.name != result.config.model:
        yield f"resolved.model.name: {result.resolved.model.name}, and config.model is another"
    for name, found in result.latency:
        if isinstance(found, Distribution):
            most = None if name == "itl_ms" else work.requests_completed
            yield from _disorder(f"latency.{name}", found, most)


def _disorder(name: str, found: Distribution, most: int | None) -> Iterator[str]:
    """Find percentiles out of order, and more samples than there are requests."""
    steps = (found.minimum, found.p50, found.p90, found.p95, found.p99, found.maximum)
    slack = 1e-9 * max(abs(steps[0]), abs(steps[-1]))  # interpolation rounds
    if any(higher < lower - slack for lower, higher in pairwise(steps)):
        yield f"{name}: its percentiles do not rise"
    if not steps[0] - slack <= found.mean <= steps[-1] + slack:
        yield f"{name}.mean: {found.mean:g} is not between its smallest and its largest"
    if found.count < 1 or (most is not None and found.count > most):
        yield f"{name}.count: {found.count} samples of {most} requests"


def _of_the_energy(result: ExperimentResult) -> Iterator[str]:
    energy = result.energy
    told = EnergyRecording(energy.source, energy.components)
    yield from _apart("energy.total_j", energy.total_j, told.total_j)
    if energy.kind != told.kind:
        yield f"energy.kind: {energy.kind}, and its components are {told.kind}"
    if energy.interval95_j is not None and energy.kind != "measured":
        yield f"energy.interval95_j: {energy.interval95_j:g}, and the energy is {energy.kind}"
    known = any(part.energy_j is not None for part in energy.components)
    if known and "none" in (energy.source, result.resolved.energy_source):
        yield "energy.components: there is energy in them, and no source was read"
    co2 = result.co2_estimate
    if co2.co2_grams is not None and co2.carbon_intensity_gco2_kwh is not None:
        grams_per_j = co2.datacenter_pue * co2.carbon_intensity_gco2_kwh / JOULES_PER_KWH
        grams = None if energy.total_j is None else energy.total_j * grams_per_j
        yield from _apart("co2_estimate.co2_grams", co2.co2_grams, grams)
    if energy.stretch_s is None:  # else nothing is related to it
        yield from _related(result)


def _related(result: ExperimentResult) -> Iterator[str]:
    """Find figures that do not follow from energy and work."""
    energy, work = result.energy, result.throughput
    for ratio in _ENERGY_RATIOS:
        yield from _no_ratio(result, *ratio)
    e2e_ms = result.latency.e2e_ms
    if energy.edp_js is not None and energy.per_request_j is not None and e2e_ms:
        product = energy.per_request_j * (e2e_ms.mean / 1e3)
        yield from _apart("energy.edp_js", energy.edp_js, product)
    idle_w, adjusted = result.baseline.loaded_idle_w, None
    if energy.total_j is not None and idle_w is not None:
        adjusted = energy.total_j - idle_w * work.window_s
    # What is left may be next to nothing, so it is held against what it was taken from.
    yield from _apart("energy.adjusted_j", energy.adjusted_j, adjusted, energy.total_j or 0.0)


def _of_the_verdict(result: ExperimentResult) -> Iterator[str]:
    trust = result.trust
    follows = TrustVerdict.of(trust.reasons, energy_asked=result.resolved.energy_source != "none")
    if trust.verdict != follows.verdict:
        yield f"trust.verdict: {trust.verdict}, and its reasons say {follows.verdict}"
    if trust.energy != follows.energy:
        yield f"trust.energy: {trust.energy}, where it must be {follows.energy}"
    if result.measurement_warnings != warning_codes(trust):
        yield "measurement_warnings: not those of trust.reasons"


def _no_ratio(result: ExperimentResult, name: str, above: str, below: str) -> Iterator[str]:
    yield from _apart(name, _at(result, name), _over(_at(result, above), _at(result, below)))


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _apart(
    name: str, said: float | None, follows: float | None, scale: float = 0.0
) -> Iterator[str]:
    """Tell a figure from what follows from others; the last digits may be rounded otherwise."""
    if said is None or follows is None:
        alike = said is None and follows is None
    else:
        alike = isclose(said, follows, rel_tol=1e-9, abs_tol=1e-9 * abs(scale))
    if not alike:
        yield f"{name}: {said}, and {follows} follows from the rest"


def _at(result: ExperimentResult, place: str) -> Any:
    found: Any = result
    for name in place.split("."):
        found = None if found is None else getattr(found, name)
    return found


def _misread(read: Any, made: Any, place: str) -> Iterator[str]:
    """Find where a model made something else of what was read, or knows no such field."""
    if isinstance(read, dict) and isinstance(made, dict):
        for name, value in read.items():
            where = f"{place}.{name}".lstrip(".")
            if name in made:
                yield from _misread(value, made[name], where)
            else:
                yield f"{where}: there is no such field"
    elif isinstance(read, list) and isinstance(made, list) and len(read) == len(made):
        for number, (one, other) in enumerate(zip(read, made, strict=True)):
            yield from _misread(one, other, f"{place}.{number}")
    elif _type(read) != _type(made):
        yield f"{place}: {_type(read)} where there must be {_type(made)}"
    elif read != made:
        yield f"{place}: cannot be what it says"


def _type(value: Any) -> str:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if numeric else type(value).__name__


def _numbers(data: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(data, dict | list):
        for name, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _numbers(value, f"{place}.{name}".lstrip("."))
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield place, data
