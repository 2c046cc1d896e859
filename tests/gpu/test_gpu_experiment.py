"""Whole experiments on a real GPU, with energy, and times of CUDA events against a stopwatch."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from llenergymeasure import ExperimentResult, run_experiment
from llenergymeasure.core.backends.protocol import Request
from tests.support.models import load_engine

pytestmark = pytest.mark.gpu

MODEL = "random:tiny-llama"


def experiment(precision: str = "bf16", **fields) -> ExperimentResult:
    values = {
        "model": MODEL,
        "precision": precision,
        "n": 8,
        "max_new_tokens": 32,
        "energy_backend": "nvml",
        "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
        "baseline": {"duration_seconds": 2.0},
        "window": {"min_duration_seconds": 5.0},
        "pytorch": {"batch_size": 4},
    }
    return run_experiment(**{**values, **fields})


@pytest.fixture(scope="module")
def result() -> ExperimentResult:
    return experiment()


def test_energy_is_measured_with_an_interval_and_a_source(result: ExperimentResult) -> None:
    energy = result.energy

    assert (energy.source, energy.kind) == ("nvml", "measured")
    assert energy.total_j is not None
    assert energy.interval95_j is not None
    assert 0 < energy.interval95_j < 0.2 * energy.total_j


def test_idle_power_lies_below_that_of_the_work(result: ExperimentResult) -> None:
    baseline = result.baseline

    assert baseline.loaded_idle_w is not None
    assert result.energy.mean_power_w is not None
    assert 0 < baseline.loaded_idle_w < result.energy.mean_power_w


def test_times_of_requests_fit_into_the_window(result: ExperimentResult) -> None:
    latency, throughput = result.latency, result.throughput
    assert latency.ttft_ms is not None
    assert latency.itl_ms is not None
    assert latency.e2e_ms is not None

    batches = throughput.requests_completed / 4
    busy_s = latency.e2e_ms.mean / 1e3 * batches
    assert 0 < latency.ttft_ms.p50 < latency.e2e_ms.p50
    assert latency.itl_ms.minimum > 0
    assert busy_s <= 1.01 * throughput.window_s
    assert busy_s > 0.5 * throughput.window_s  # the rest is the host between batches


def test_longer_work_takes_more_energy_and_a_longer_window(result: ExperimentResult) -> None:
    longer = experiment(window={"min_duration_seconds": 15.0})

    assert longer.energy_total_j is not None
    assert result.energy_total_j is not None
    assert longer.energy_total_j > 1.5 * result.energy_total_j


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_other_precisions_run_with_energy(precision: str) -> None:
    found = experiment(precision, window={"min_duration_seconds": 2.0})

    assert found.energy_total_j is not None
    assert found.tokens_per_second is not None
    assert found.tokens_per_second > 0


def test_events_tell_what_a_stopwatch_tells(tmp_path: Path) -> None:
    engine = load_engine(tmp_path, model=MODEL, precision="bf16")
    try:
        batch = (Request(0, tuple(range(5, 105)), 64),)
        engine.run((batch,), -1, lambda _: None)
        began_ns = time.monotonic_ns()
        trace = engine.run((batch,), 0, lambda _: None)
        wall_ns = time.monotonic_ns() - began_ns
        (sample,) = trace.samples()
    finally:
        engine.close()
    ttft_ns = sample.first_token_ns - sample.scheduled_ns
    decode_ns = sample.last_token_ns - sample.first_token_ns

    assert sum(sample.gaps_ns) == pytest.approx(decode_ns, rel=1e-3)
    assert 0.5 * wall_ns < ttft_ns + decode_ns <= wall_ns


@pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None, reason="the package flash_attn is not installed"
)
def test_flash_attention_runs() -> None:
    section = {"batch_size": 4, "attn_implementation": "flash_attention_2"}
    found = experiment(energy_backend="none", pytorch=section, window={"min_duration_seconds": 1.0})

    assert found.throughput.requests_failed == 0
