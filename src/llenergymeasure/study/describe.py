"""What the results of a study say of it as a whole: its subject, and every finding with its count.

Everything here is a function from results to data, whatever version they are of.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.trust import EVENTS
from llenergymeasure.domain.results import (
    EnergyOrigin,
    ExperimentResult,
    StudySubject,
    TrustCount,
    TrustReason,
    TrustVerdict,
)
from llenergymeasure.domain.study_result import figure_at
from llenergymeasure.domain.warnings import FINDINGS, LEVELS
from llenergymeasure.study.blocks import devices_of
from llenergymeasure.study.likeness import inputs_of

_MIB_IN_GIB = 1024
_RANKS = {code: number for number, code in enumerate(FINDINGS)}
Value = TypeVar("Value", str, int)


def subject_of(results: Sequence[ExperimentResult]) -> StudySubject | None:
    """Say what was measured, on what and when; ``None`` without a result."""
    if not results:
        return None
    energy = Counter((one.energy.source, one.energy.kind) for one in results)
    begun = sorted((one.window.started_at for one in results), key=_instant_s)
    return StudySubject(
        models=_distinct(one.resolved.model.name for one in results),
        datasets=_distinct(one.resolved.dataset.name for one in results),
        n=_distinct(one.resolved.dataset.used for one in results),
        machines=_distinct(_machine(one) for one in results),
        boards=_distinct(name for one in results for name in _boards(one)),
        energy=tuple(
            EnergyOrigin(source=source, kind=kind, count=count)
            for (source, kind), count in energy.most_common()
        ),
        versions=merged(_versions(one) for one in results),
        inputs=merged(inputs_of(one).items() for one in results),
        first=begun[0],
        last=begun[-1],
    )


def _instant_s(text: str) -> float:
    """Read a time of day; one that nobody can read comes first."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _distinct(found: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(found))


def merged(found: Iterable[Iterable[tuple[str, str | None]]]) -> dict[str, tuple[str, ...]]:
    """Give every value under each name, in the order in which they came."""
    values: dict[str, dict[str, None]] = defaultdict(dict)
    for one in found:
        for name, value in one:
            if value is not None:
                values[name][value] = None
    return {name: tuple(each) for name, each in values.items()}


def _machine(result: ExperimentResult) -> str:
    environment = result.environment
    parts = [environment.cpu_model or "unknown CPU"]
    if count := environment.cpu_count_usable or environment.cpu_count:
        parts.append(f"{count} logical CPU{'' if count == 1 else 's'}")
    if memory_mb := environment.memory_limit_mb or environment.ram_mb:
        parts.append(f"{memory_mb / _MIB_IN_GIB:.3g} GiB")
    return ", ".join(parts)


def _boards(result: ExperimentResult) -> Iterator[str]:
    names = {gpu.uuid: gpu.name for gpu in result.environment.gpus}
    yield from (f"{names[uuid]} ({uuid})" for uuid in devices_of(result) if uuid in names)


def _versions(result: ExperimentResult) -> Iterator[tuple[str, str | None]]:
    environment = result.environment
    yield "llenergymeasure", environment.llenergymeasure_version
    yield "python", environment.python_version
    for name in backend_entry(result.config.backend).distributions:
        yield name, environment.engine_versions.get(name)
    if result.memory.kind != "resident_set":
        yield "driver", environment.driver_version
    yield "image", environment.container_image


# Findings -----------------------------------------------------------------------------------------


class _Measure(NamedTuple):
    """What number goes with a finding.

    Attributes:
        unit: Its unit, and what it is of.
        of: Gives it, once a device or part that it is known of.
    """

    unit: str
    of: Callable[[ExperimentResult], Iterable[float | None]]


def _at(path: str, unit: str, scale: float = 1.0) -> _Measure:
    def of(result: ExperimentResult) -> Iterator[float | None]:
        value = figure_at(result, path)
        yield None if value is None else scale * value

    return _Measure(unit, of)


def _samples(event: str) -> _Measure:
    return _Measure(
        "% of samples",
        lambda result: (
            100 * one.clock_events[event] / one.state_samples
            for one in result.device_state
            if one.state_samples and event in one.clock_events
        ),
    )


_MEASURES: Mapping[str, _Measure] = {
    "cpu_shared": _at("cpu_load.other_share", "% of the CPU time", 100),
    "cpu_throttled": _at("cpu_throttling.throttled_s", "s held back"),
    "window_short": _at("throughput.window_s", "s"),
    "stalled": _at("throughput.stalled_s", "s without work"),
    "stalled_briefly": _at("throughput.stalled_s", "s without work"),
    "failed_requests": _at("throughput.requests_failed", "of the requests"),
    "prompts_truncated": _at("throughput.prompts_truncated", "of the prompts"),
    "power_drift": _at("energy.comparison.power_change", "% of the power", 100),
    "clock_drift": _at("energy.comparison.clock_change", "% of the clock", 100),
    "power_limit_reached": _samples("power_cap"),
    **{code: _samples(event) for code, (event, _) in EVENTS.items()},
    "power_limit_lowered": _Measure(
        "W", lambda result: (one.power_limit_w for one in result.device_state)
    ),
    "start_temperature": _Measure(
        "°C at the start", lambda result: (one.start_c for one in result.device_state)
    ),
    "counter_power_disagree": _Measure(
        "% apart",
        lambda result: (
            100 * (ratio - 1)
            for part in result.energy.components
            if (ratio := part.counter_over_power) is not None
        ),
    ),
}
"""Of the codes that have one; each is stored beside the finding."""


def trust_counts(results: Iterable[tuple[int, ExperimentResult]]) -> tuple[TrustCount, ...]:
    """Count every finding, worst first, then most frequent.

    Args:
        results: Results, each with the number of its configuration.
    """
    total, found = 0, defaultdict[str, list[tuple[int, ExperimentResult, TrustReason]]](list)
    for number, result in results:
        total += 1
        for reason in {one.code: one for one in result.trust.reasons}.values():
            found[reason.code].append((number, result, reason))
    counted = (_counted(code, rows, total) for code, rows in found.items())
    return tuple(
        sorted(counted, key=lambda one: (LEVELS.index(one.level), -one.count, _rank(one.code)))
    )


def _rank(code: str) -> int:
    return _RANKS.get(code, len(_RANKS))


def _counted(
    code: str, rows: Sequence[tuple[int, ExperimentResult, TrustReason]], total: int
) -> TrustCount:
    times = Counter(number for number, _, _ in rows)
    measure = _MEASURES.get(code, _Measure("", lambda _: ()))
    values = [v for _, result, _ in rows for v in measure.of(result) if v is not None]
    return TrustCount(
        code=code,
        level=rows[0][2].level,
        count=len(rows),
        of=total,
        configurations=tuple(sorted(times)),
        counts=tuple(times[number] for number in sorted(times)),
        lowest=min(values, default=None),
        highest=max(values, default=None),
        unit=measure.unit if values else "",
        remedy=rows[0][2].remedy,
    )


def cautions(verdicts: Iterable[TrustVerdict]) -> tuple[str, ...]:
    """Give the codes of everything that is more than information, in the order of findings."""
    codes = {one.code for verdict in verdicts for one in verdict.reasons if one.level != "info"}
    return tuple(sorted(codes, key=_rank))
