"""The plan of an experiment or of a study, as ``--dry-run`` shows it: as data and as text."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.settings_words import described
from llenergymeasure.report import format as written
from llenergymeasure.report.text import wrapped
from llenergymeasure.study.forecast import Forecast

ORDER_SHOWN = 40
SKIPS_SHOWN = 3
_UNORDERED = ("sequential", "interleaved")
_GUESSED = "estimated from an unknown model type"


def study_data(forecast: Forecast) -> dict[str, Any]:
    """Give the plan of a study as JSON has it."""
    plan = forecast.plan
    return {
        "name": plan.name,
        "study_design_hash": plan.study_design_hash,
        "generated": plan.generated,
        "configurations": [
            {
                "label": row.label,
                "experiment": row.config.model_dump(mode="json", exclude_none=True),
                "measurement_config_hash": row.config.fingerprint(),
                "memory": row.memory,
                "duration_s": None if row.duration is None else row.duration.total_s,
                "timeout_s": row.timeout_s,
            }
            for row in forecast.rows
        ],
        "merged": plan.merged,
        "skipped": [skip.model_dump(mode="json") for skip in plan.skipped],
        "execution": plan.execution.model_dump(mode="json"),
        "cold_start": plan.cold_start,
        "order": [[slot.configuration, slot.cycle] for slot in plan.slots],
        "duration": {
            "experiments_s": forecast.experiments_s,
            "gaps_s": forecast.gaps_s,
            "total_s": forecast.total_s,
        },
        "results_dir": forecast.results_dir,
    }


def experiment_data(forecast: Forecast) -> dict[str, Any]:
    """Give the plan of a single experiment as JSON has it."""
    (row,), (order,), source = forecast.rows, forecast.orders, forecast.source
    config = row.config
    baseline_s = config.baseline.duration_seconds if config.baseline.enabled else 0.0
    return {
        "experiment": config.model_dump(mode="json", exclude_none=True),
        "measurement_config_hash": row.config.fingerprint(),
        "memory": row.memory,
        "duration": {
            "total_s": forecast.total_s,
            "baseline_s": 2 * baseline_s if row.measured else 0.0,
            "thermal_floor_s": config.warmup.thermal_floor_seconds if row.measured else 0.0,
            "window_at_least_s": config.window.min_duration_seconds,
        },
        "runner": order.runner,
        "energy_backend": order.energy_backend,
        "energy_source": source and {"name": source.name, "reason": source.reason},
        "results_dir": forecast.results_dir,
    }


# A single experiment ------------------------------------------------------------------------------


def experiment_lines(forecast: Forecast) -> Iterator[str]:
    """Write the plan of a single experiment."""
    plan = experiment_data(forecast)
    config, source = plan["experiment"], plan["energy_source"]
    dataset = config["dataset"]
    yield f"plan        {config['model']} on {config['backend']}, {config['precision']}"
    name = dataset if isinstance(dataset, str) else dataset.get("path", "synthetic")
    yield f"prompts     {config.get('n', f'all, {MOST_PROMPTS} at most,')} of {name}"
    yield from _memory_lines(plan["memory"])
    yield from _experiment_duration(plan["duration"])
    if source is None:
        yield f"energy      {plan['energy_backend']}"
    else:
        yield from wrapped(f"{source['name']} ({source['reason']})", "energy".ljust(12), " " * 12)
    yield f"runner      {plan['runner']}"
    yield f"results in  {plan['results_dir']}"
    yield f"config hash {plan['measurement_config_hash']}"


def _memory_lines(memory: Mapping[str, Any]) -> Iterator[str]:
    if "unknown" in memory:
        yield from wrapped(f"unknown: {memory['unknown']}", "memory".ljust(12), " " * 12)
        return
    copies = memory["copies"]
    each = f"{copies} copies, each with " if copies > 1 else ""
    engine = f", the engine itself {memory['engine_mb']:,.0f}" if memory["engine_mb"] else ""
    yield (
        f"memory      {memory['total_mb']:,.0f} MiB estimated: {each}weights "
        f"{memory['weights_mb']:,.0f}, KV cache {memory['kv_cache_mb']:,.0f}, "
        f"activations {memory['activations_mb']:,.0f}{engine}"
    )
    yield f"            for {memory['rows']} row(s) of up to {memory['context_tokens']} tokens"
    if memory["capacity_mb"] is not None:
        verdict = "fits" if memory["fits"] else "DOES NOT FIT"
        yield f"            {verdict}: {memory['device']} has {memory['capacity_mb']:,.0f} MiB"
    if memory["doubt"] is not None:
        yield from wrapped(f"{_GUESSED}: {memory['doubt']}", " " * 12, " " * 12)


def _experiment_duration(duration: Mapping[str, float | None]) -> Iterator[str]:
    total_s, least_s = duration["total_s"], duration["window_at_least_s"]
    about = "unknown" if total_s is None else f"about {written.span(total_s)}, a rough estimate"
    yield f"duration    {about}"
    yield f"window      one whole pass{f', and at least {least_s:g} s' if least_s else ''}"
    if duration["baseline_s"] or duration["thermal_floor_s"]:
        yield (
            f"            before it {duration['baseline_s']:g} s of baseline and at least "
            f"{duration['thermal_floor_s']:g} s of warm-up"
        )


# A study ------------------------------------------------------------------------------------------


def study_lines(forecast: Forecast) -> Iterator[str]:
    """Write the plan of a study."""
    plan, total_s = forecast.plan, forecast.total_s
    configurations = written.count(len(plan.experiments), "configuration")
    yield written.cut(f"study       {plan.name or 'without a name'}")
    yield (
        f"runs        {written.count(len(plan.slots), 'experiment')}: {configurations} x "
        f"{written.count(plan.execution.n_cycles, 'cycle')}"
    )
    yield (
        f"design      {written.count(plan.generated, 'combination')}, "
        f"{plan.merged:,} merged, {len(plan.skipped):,} skipped"
    )
    if plan.cold_start:
        yield "cold start  no warm-up; loading is measured"
    yield from _order_lines(forecast)
    gaps = f"{written.span(forecast.gaps_s)} of gaps"
    gaps += " (--no-gaps leaves them out)" if forecast.gaps_s else ""
    if total_s is None:
        yield f"duration    unknown: the shape of a model is not known here; {gaps}"
    else:
        yield f"duration    about {written.span(total_s)}, with {gaps}"
    yield written.cut(f"results in  {forecast.results_dir}")
    yield f"design hash {plan.study_design_hash}"
    yield ""
    yield from _table(forecast)
    yield from _skip_lines(forecast)


def _order_lines(forecast: Forecast) -> Iterator[str]:
    plan, execution = forecast.plan, forecast.plan.execution
    seed = "" if execution.cycle_order in _UNORDERED else f", seed {execution.seed}"
    yield f"order       {execution.cycle_order}{seed}"
    if len(plan.experiments) > 1 and len(plan.slots) <= ORDER_SHOWN:
        cycles: dict[int, list[str]] = {}
        for slot in plan.slots:
            block = 0 if execution.cycle_order == "sequential" else slot.cycle
            cycles.setdefault(block, []).append(str(slot.configuration + 1))
        for cycle in cycles.values():
            yield written.cut(f"            {' '.join(cycle)}")


def _table(forecast: Forecast) -> Iterator[str]:
    rows = forecast.rows
    digits = len(str(len(rows)))
    wide = min(max(len(row.label) for row in rows), written.WIDTH - digits - 38)
    wide = max(wide, len("configuration"))
    yield f"{'#':>{digits}}  {'configuration':{wide}}  {'memory':>9} of {'device':9} {'each':>9}"
    for number, row in enumerate(rows, start=1):
        first, *rest = textwrap.wrap(row.label, wide)
        each = "?" if row.duration is None else written.span(row.duration.total_s)
        yield written.cut(f"{number:>{digits}}  {first:{wide}}  {_memory(row.memory)} {each:>9}")
        yield from (f"{'':{digits}}    {line}" for line in rest)
    if misfits := sum(row.memory.get("fits") is False for row in rows):
        needs = "needs" if misfits == 1 else "need"
        yield f"{written.count(misfits, 'configuration')} (marked >) {needs} more than there is"
    doubts = Counter(row.memory["doubt"] for row in rows if row.memory.get("doubt"))
    for doubt, count in doubts.items():
        yield from wrapped(
            f"memory and time of {written.count(count, 'configuration')} are {_GUESSED}: {doubt}",
            rest="  ",
        )


def _memory(memory: Mapping[str, Any]) -> str:
    if "unknown" in memory:
        return f"{'unknown':>9}    {'':9}"
    total, capacity = written.memory(memory["total_mb"]), memory["capacity_mb"]
    if capacity is None:
        return f"{total:>9}    {'':9}"
    return f"{total:>9} {'> ' if memory['fits'] is False else 'of'} {written.memory(capacity):9}"


def _skip_lines(forecast: Forecast) -> Iterator[str]:
    skipped = forecast.plan.skipped
    if not skipped:
        return
    yield ""
    yield f"skipped     {len(skipped):,}"
    for reason, count in Counter(skip.reason for skip in skipped).most_common():
        yield from wrapped(f"{count:,} x {reason}", "  ", "      ")
        alike = [skip for skip in skipped if skip.reason == reason]
        for skip in alike[:SKIPS_SHOWN]:
            yield written.cut(f"      {described(skip.config)}")
        if count > SKIPS_SHOWN:
            yield f"      and {count - SKIPS_SHOWN:,} more; --json lists all"
