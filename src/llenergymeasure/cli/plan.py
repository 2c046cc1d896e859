"""``--dry-run``: the plan of an experiment, from its configuration alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import typer

from llenergymeasure.cli.estimates import may_be_measured, memory_plan
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.energy import Selection
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.exceptions import PreFlightError
from llenergymeasure.orchestration import preflight
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.report import format as written
from llenergymeasure.study.estimate import duration
from llenergymeasure.study.limits import TimeLimits


def show(order: WorkOrder, settings: EffectiveSettings, *, as_json: bool) -> None:
    """Print what would be done, and every problem that stops it here.

    What another interpreter or a container lacks is only seen when it runs there.

    Raises:
        PreFlightError: It could not be run here; printed after the plan.
    """
    problems = preflight.problems_for_plan([order])
    plan = _plan(order, settings)
    if as_json and not problems:
        typer.echo(json.dumps(plan, indent=2, ensure_ascii=False))
    elif not as_json:
        typer.echo("\n".join(_lines(plan)))
    if problems:
        raise PreFlightError(problems)


def _plan(order: WorkOrder, settings: EffectiveSettings) -> dict[str, Any]:
    config, limits = order.config, TimeLimits(settings, None)
    source = preflight.expected_source(order)
    gpus = survey_gpus().gpus if limits.gpu_name(config) is not None else ()
    return {
        "experiment": config.model_dump(mode="json", exclude_none=True),
        "measurement_config_hash": config.fingerprint(),
        "memory": memory_plan(config, limits.shape(config), gpus),
        "duration": _duration(config, settings, limits, source),
        "runner": order.runner,
        "energy_backend": order.energy_backend,
        "energy_source": source and {"name": source.name, "reason": source.reason},
        "results_dir": str(settings.config.results_path()),
    }


def _duration(
    config: ExperimentConfig,
    settings: EffectiveSettings,
    limits: TimeLimits,
    source: Selection | None,
) -> dict[str, float | None]:
    """Estimate how long it takes, s: roughly for what is computed, exactly for fixed lengths."""
    if source is None:
        measured = may_be_measured(config, settings, limits)
    else:
        measured = source.coverage.kind == "measured"
    shape, rates = limits.shape(config), limits.rates(config)
    expected = duration(config, shape, rates, measured=measured)
    baseline_s = config.baseline.duration_seconds if config.baseline.enabled else 0.0
    return {
        "total_s": None if expected is None else expected.total_s,
        "baseline_s": 2 * baseline_s if measured else 0.0,
        "thermal_floor_s": config.warmup.thermal_floor_seconds if measured else 0.0,
        "window_at_least_s": config.window.min_duration_seconds,
    }


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    config = plan["experiment"]
    dataset = config["dataset"]
    yield f"plan        {config['model']} on {config['backend']}, {config['precision']}"
    yield f"prompts     {config['n']} of {dataset if isinstance(dataset, str) else 'synthetic'}"
    yield from _memory_lines(plan["memory"])
    yield from _duration_lines(plan["duration"])
    yield from _energy_lines(plan)
    yield f"runner      {plan['runner']}"
    yield f"results in  {plan['results_dir']}"
    yield f"config hash {plan['measurement_config_hash']}"


def _memory_lines(memory: dict[str, Any]) -> Iterator[str]:
    if "unknown" in memory:
        yield from _wrapped("memory", f"unknown: {memory['unknown']}")
        return
    copies = memory["copies"]
    each = f"{copies} copies, each with " if copies > 1 else ""
    yield (
        f"memory      {memory['total_mb']:,.0f} MiB estimated: {each}weights "
        f"{memory['weights_mb']:,.0f}, KV cache {memory['kv_cache_mb']:,.0f}, "
        f"activations {memory['activations_mb']:,.0f}"
    )
    yield f"            for {memory['rows']} row(s) of up to {memory['context_tokens']} tokens"
    if memory["capacity_mb"] is not None:
        verdict = "fits" if memory["fits"] else "DOES NOT FIT"
        yield f"            {verdict}: {memory['device']} has {memory['capacity_mb']:,.0f} MiB"


def _duration_lines(duration: dict[str, float | None]) -> Iterator[str]:
    total_s, least_s = duration["total_s"], duration["window_at_least_s"]
    about = "unknown" if total_s is None else f"about {written.span(total_s)}, a rough estimate"
    yield f"duration    {about}"
    yield f"window      one whole pass{f', and at least {least_s:g} s' if least_s else ''}"
    if duration["baseline_s"] or duration["thermal_floor_s"]:
        yield (
            f"            before it {duration['baseline_s']:g} s of baseline and at least "
            f"{duration['thermal_floor_s']:g} s of warm-up"
        )


def _energy_lines(plan: dict[str, Any]) -> Iterator[str]:
    source = plan["energy_source"]
    if source is None:
        yield f"energy      {plan['energy_backend']}"
    else:
        yield from _wrapped("energy", f"{source['name']} ({source['reason']})")


def _wrapped(label: str, text: str) -> list[str]:
    first, rest = label.ljust(12), " " * 12
    return textwrap.wrap(text, written.WIDTH, initial_indent=first, subsequent_indent=rest)
