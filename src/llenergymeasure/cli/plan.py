"""``--dry-run``: the plan of an experiment, from its configuration alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psutil
import typer

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.core.memory_estimate import MemoryEstimate, estimate_memory
from llenergymeasure.core.models.sources import architecture_of, resolve
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.exceptions import PreFlightError, Problem
from llenergymeasure.orchestration import preflight
from llenergymeasure.orchestration.order import WorkOrder

MIB = 1 << 20


def show(order: WorkOrder, settings: EffectiveSettings, *, as_json: bool) -> None:
    """Print what would be done, and every problem that stops it here.

    What another interpreter or a container lacks is only seen when it runs there.

    Raises:
        PreFlightError: It could not be run here; printed after the plan.
    """
    problems = _problems(order)
    plan = _plan(order, settings)
    if as_json and not problems:
        typer.echo(json.dumps(plan, indent=2, ensure_ascii=False))
    elif not as_json:
        typer.echo("\n".join(_lines(plan)))
    if problems:
        raise PreFlightError(problems)


def _problems(order: WorkOrder) -> tuple[Problem, ...]:
    if order.runner != "local":
        return ()
    try:
        preflight.check(order, offline=True)
    except PreFlightError as error:
        return error.problems
    return ()


def _plan(order: WorkOrder, settings: EffectiveSettings) -> dict[str, Any]:
    config = order.config
    return {
        "experiment": config.model_dump(mode="json", exclude_none=True),
        "measurement_config_hash": config.fingerprint(),
        "memory": memory_plan(config, survey_gpus().gpus),
        "duration": _duration(config),
        "runner": order.runner,
        "energy_backend": order.energy_backend,
        "results_dir": str(settings.config.results_path()),
    }


def memory_plan(config: ExperimentConfig, gpus: tuple[GPUInfo, ...]) -> dict[str, Any]:
    """Hold the memory an experiment needs against what its device has, MiB."""
    architecture = architecture_of(resolve(config.model, config.revision))
    if architecture is None:
        return {"unknown": "the model's config.json is not on this machine yet"}
    estimate = estimate_memory(config, architecture)
    device, capacity_mb = _capacity(config, gpus)
    return {
        "weights_mb": round(estimate.weights_mb, 1),
        "kv_cache_mb": round(estimate.kv_cache_mb, 1),
        "activations_mb": round(estimate.activations_mb, 1),
        "total_mb": round(estimate.total_mb, 1),
        "rows": estimate.rows,
        "context_tokens": estimate.context_tokens,
        "device": device,
        "capacity_mb": capacity_mb,
        "fits": _fits(estimate, capacity_mb),
    }


def _capacity(config: ExperimentConfig, gpus: tuple[GPUInfo, ...]) -> tuple[str, float | None]:
    wants_cpu = getattr(config.section, "device", None) == "cpu" or config.backend == "scripted"
    if gpus and not wants_cpu:
        return gpus[0].name, gpus[0].memory_mb
    return "this machine's RAM", psutil.virtual_memory().total / MIB


def _fits(estimate: MemoryEstimate, capacity_mb: float | None) -> bool | None:
    return None if capacity_mb is None else estimate.per_device_mb <= capacity_mb


def _duration(config: ExperimentConfig) -> dict[str, float]:
    """Say how long the parts last that have a fixed length, in seconds."""
    baseline_s = config.baseline.duration_seconds if config.baseline.enabled else 0.0
    return {
        "baseline_s": 2 * baseline_s,
        "thermal_floor_s": config.warmup.thermal_floor_seconds,
        "window_at_least_s": config.window.min_duration_seconds,
    }


def _lines(plan: dict[str, Any]) -> Iterator[str]:
    config = plan["experiment"]
    dataset = config["dataset"]
    yield f"plan        {config['model']} on {config['backend']}, {config['precision']}"
    yield f"prompts     {config['n']} of {dataset if isinstance(dataset, str) else 'synthetic'}"
    yield from _memory_lines(plan["memory"])
    yield from _duration_lines(plan["duration"])
    yield f"energy      {plan['energy_backend']}"
    yield f"runner      {plan['runner']}"
    yield f"results in  {plan['results_dir']}"
    yield f"config hash {plan['measurement_config_hash']}"


def _memory_lines(memory: dict[str, Any]) -> Iterator[str]:
    if "unknown" in memory:
        yield f"memory      unknown: {memory['unknown']}"
        return
    yield (
        f"memory      {memory['total_mb']:,.0f} MiB estimated: weights "
        f"{memory['weights_mb']:,.0f}, KV cache {memory['kv_cache_mb']:,.0f}, "
        f"activations {memory['activations_mb']:,.0f}"
    )
    yield f"            for {memory['rows']} row(s) of up to {memory['context_tokens']} tokens"
    if memory["capacity_mb"] is not None:
        verdict = "fits" if memory["fits"] else "DOES NOT FIT"
        yield f"            {verdict}: {memory['device']} has {memory['capacity_mb']:,.0f} MiB"


def _duration_lines(duration: dict[str, float]) -> Iterator[str]:
    yield f"window      at least {duration['window_at_least_s']:g} s, and one whole pass"
    yield (
        f"            where energy is measured, also {duration['baseline_s']:g} s of baseline and "
        f"{duration['thermal_floor_s']:g} s of warm-up"
    )
