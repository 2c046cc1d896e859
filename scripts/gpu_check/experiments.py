"""Whole experiments through the library."""

from __future__ import annotations

from typing import Any

from gpu_check.plan import Outcome, Plan
from llenergymeasure import ExperimentResult, run_experiment

LEAST_REQUESTS = 4


def check(plan: Plan, batch_size: int) -> Outcome:
    """Run an experiment at one batch size."""
    return judged(run_experiment(**fields(plan, batch_size)))


def fields(plan: Plan, batch_size: int) -> dict[str, Any]:
    """Give the configuration: at least one full batch, and some requests in any case."""
    backend = plan.experiment["backend"]
    section = {**plan.experiment.get(backend, {}), "batch_size": batch_size}
    n = max(LEAST_REQUESTS, batch_size)
    return {**plan.experiment, "n": n, backend: section}


def judged(result: ExperimentResult) -> Outcome:
    """Sum a result up, and say what it lacks."""
    reasons = [one.code for one in result.trust.reasons if one.level == "invalid"]
    wrong = [f"the result is invalid: {', '.join(reasons)}"] if reasons else []
    if result.energy.kind != "measured":
        wrong.append(f"energy is {result.energy.kind}")
    if result.throughput.requests_failed:
        wrong.append(f"{result.throughput.requests_failed} requests failed")
    return Outcome("failed" if wrong else "ok", "; ".join(wrong), summed_up(result))


def summed_up(result: ExperimentResult) -> dict[str, Any]:
    """Give the figures of a result that a reader of the report looks for."""
    latency, energy, state = result.latency, result.energy, result.device_state
    return {
        "window_s": result.throughput.window_s,
        "passes": result.throughput.passes,
        "output_tokens": result.throughput.output_tokens,
        "tokens_per_second": result.tokens_per_second,
        "ttft_ms": latency.ttft_ms and latency.ttft_ms.model_dump(),
        "itl_ms": latency.itl_ms and latency.itl_ms.model_dump(),
        "energy_j": energy.total_j,
        "interval95_j": energy.interval95_j,
        "adjusted_j": energy.adjusted_j,
        "per_output_token_j": energy.per_output_token_j,
        "mean_power_w": energy.mean_power_w,
        "tick_ms": [part.tick_ms for part in energy.components],
        "closure": energy.comparison and energy.comparison.model_dump(),
        "baseline": result.baseline.model_dump(),
        "memory": result.memory.model_dump(),
        "mfu": result.flops and result.flops.mfu,
        "mbu": result.flops and result.flops.mbu,
        "clock_events": [one.clock_events for one in state],
        "verdict": result.trust.verdict,
        "warnings": list(result.measurement_warnings),
    }
