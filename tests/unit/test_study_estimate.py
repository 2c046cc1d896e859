from __future__ import annotations

from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.study.estimate import (
    ASSUMED_AT_MOST_S,
    CPU,
    Duration,
    Rates,
    duration,
    first_look_s,
    rates_of,
    timeout_s,
)
from llenergymeasure.study.forecast import ConfigurationForecast, Forecast
from tests.support.scripted_run import scripted_config
from tests.support.study_on_disk import make_execution, make_plan

TINY = ModelArchitecture.from_config(catalogue.config("tiny-llama"))
LARGE = ModelArchitecture.from_config(catalogue.config("llama-3.1-8b"))


def tiny(**fields: Any) -> ExperimentConfig:
    return ExperimentConfig(**{"model": "random:tiny-llama", "n": 8, **fields})


def parts(config: ExperimentConfig, *, measured: bool = False, **more: Any) -> Duration:
    found = duration(config, TINY, CPU, measured=measured, **more)
    assert found is not None
    return found


def test_more_work_takes_longer():
    base = parts(tiny()).work_s

    assert parts(tiny(n=16)).work_s > base
    assert parts(tiny(max_new_tokens=256)).work_s > base
    assert parts(tiny(pytorch={"batch_size": 8})).work_s < base
    assert parts(tiny(window={"phases": "differential"})).work_s > base
    large = duration(tiny(), LARGE, CPU, measured=False)
    assert large is not None
    assert large.work_s > base
    assert large.load_s > parts(tiny()).load_s


def test_time_is_estimated_for_the_prompt_that_memory_is_estimated_for():
    def work_s(**fields: Any) -> float:
        return parts(tiny(max_new_tokens=1, **fields)).work_s

    synthetic = {"synthetic": {"input_len": 1024, "output_len": 1}}
    exact = work_s(max_input_tokens=None, dataset=synthetic)
    assert work_s(max_input_tokens=None) == exact
    assert work_s(max_input_tokens=512) < exact


def test_the_first_experiment_takes_longer_by_what_a_look_at_the_idle_device_saves():
    assert first_look_s(tiny(), measured=True) == 30.0 - 5.0
    assert first_look_s(tiny(baseline={"duration_seconds": 8.0}), measured=True) == 0.0
    assert first_look_s(tiny(baseline={"enabled": False}), measured=True) == 0.0
    assert first_look_s(tiny(), measured=False) == 0.0


def test_a_faster_device_takes_less():
    on_cpu = duration(tiny(), LARGE, CPU, measured=False)
    on_gpu = duration(tiny(), LARGE, rates_of(tiny(), "NVIDIA H200"), measured=False)

    assert on_cpu is not None
    assert on_gpu is not None
    assert on_gpu.work_s < on_cpu.work_s / 10
    assert rates_of(tiny(), None) == CPU
    assert CPU.bytes_s < rates_of(tiny(), "Some GPU").bytes_s


def test_decoding_one_row_is_bound_by_reading_the_weights():
    config = tiny(n=1, max_new_tokens=1001, warmup={"n_warmup": 0})
    slow = duration(config, LARGE, Rates(1e15, 1e11), measured=False)
    fast = duration(config, LARGE, Rates(1e15, 2e11), measured=False)

    # 15 GB of bf16 weights, output embeddings included, for each of a thousand passes
    assert slow is not None
    assert fast is not None
    assert slow.work_s - fast.work_s == pytest.approx(1000 * 15.0e9 / 2e11, rel=0.05)


def test_what_runs_by_the_clock_is_there_only_where_energy_is_measured():
    assert parts(tiny()).clock_s == 0
    measured = parts(tiny(), measured=True)
    assert measured.clock_s + measured.work_s >= 120
    assert parts(tiny(baseline={"enabled": False}), measured=True).clock_s < 60
    cold = parts(tiny(), measured=True, cold_start=True)
    assert cold.clock_s == pytest.approx(60)


def test_a_window_is_made_of_whole_passes():
    one_pass = parts(tiny(warmup={"n_warmup": 0})).work_s
    config = tiny(warmup={"n_warmup": 0}, window={"min_duration_seconds": 1.5 * one_pass})

    assert parts(config).total_s - parts(config).load_s == pytest.approx(2 * one_pass)


def test_a_scripted_experiment_takes_what_its_script_says():
    config = scripted_config(
        n=6, max_new_tokens=11, scripted={"ttft_ms": 100, "itl_ms": 10, "batch_size": 2}
    )
    found = duration(config, None, CPU, measured=False)

    assert found is not None
    assert found.work_s == pytest.approx((1 + 3) * 0.2)


def test_a_model_of_unknown_shape_has_no_estimate_but_a_time_out():
    config = ExperimentConfig(model="org/unknown")

    assert duration(config, None, CPU, measured=False) is None
    h100 = rates_of(config, "NVIDIA H100 80GB HBM3")
    assert timeout_s(config, None, h100) > timeout_s(config, LARGE, h100)
    assert timeout_s(config, None, CPU) == pytest.approx(ASSUMED_AT_MOST_S, rel=0.02)


def test_a_time_out_is_several_times_what_is_expected():
    for fields in ({}, {"window": {"min_duration_seconds": 3600}}, {"n": 1000}):
        config = tiny(**fields)
        expected = parts(config, measured=True).total_s
        assert timeout_s(config, TINY, CPU) > 2 * expected
        assert timeout_s(config, TINY, CPU) >= 300


def test_a_study_is_its_experiments_and_its_gaps():
    execution = make_execution(n_cycles=2, config_gap_seconds=10.0, cycle_gap_seconds=100.0)
    plan = make_plan([tiny()] * 3, execution=execution)
    known = ConfigurationForecast("", tiny(), {}, Duration(1, 2, 3), measured=False, timeout_s=1.0)
    whole = Forecast(plan, (), (known,) * 3, None, "", ())

    assert (whole.experiments_s, whole.gaps_s, whole.total_s) == (36, 140, 176)
    in_part = whole._replace(rows=(known, known._replace(duration=None), known))
    assert (in_part.experiments_s, in_part.total_s) == (None, None)
