"""How long an experiment may take, by what of the machine its backend would use."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.core.models import catalogue
from llenergymeasure.study.estimate import ASSUMED_AT_MOST_S, CPU, Rates
from llenergymeasure.study.forecast import Machine, TimeLimits

GPU = "NVIDIA H100 80GB HBM3"


def limits(tmp_path: Path, machine: Machine, given_s: float | None = None, **flags: str):
    settings = load_settings(tmp_path / "absent.yaml", {}, flags)
    return TimeLimits(settings, given_s, lambda: machine)


def config(**fields: Any) -> ExperimentConfig:
    return ExperimentConfig(**{"model": "random:tiny-llama", **fields})


def on_cpu(rates: Rates) -> bool:
    return rates == CPU


def test_a_torch_without_cuda_is_given_the_time_of_a_cpu(tmp_path: Path) -> None:
    without = limits(tmp_path, Machine(GPU, torch_uses_gpus=False))
    having = limits(tmp_path, Machine(GPU))

    assert on_cpu(without.rates(config()))
    assert not on_cpu(having.rates(config()))
    assert without.of(config(model="random:llama-3.1-8b")) > having.of(
        config(model="random:llama-3.1-8b")
    )


@pytest.mark.parametrize(
    ("fields", "cpu"),
    [
        ({"pytorch": {"device": "cpu"}}, True),
        ({"pytorch": {"device": "cuda"}}, False),
        ({"backend": "vllm"}, False),
        ({"backend": "scripted"}, True),
    ],
)
def test_the_device_follows_from_the_configuration(tmp_path: Path, fields: Any, cpu: bool) -> None:
    told = limits(tmp_path, Machine(GPU, torch_uses_gpus=fields.get("backend") == "vllm"))
    assert on_cpu(told.rates(config(**fields))) is cpu


def test_the_torch_here_says_nothing_about_another_interpreter(tmp_path: Path) -> None:
    elsewhere = {"runners.pytorch": "python:/opt/cuda/bin/python"}
    told = limits(tmp_path, Machine(GPU, torch_uses_gpus=False), **elsewhere)
    assert not on_cpu(told.rates(config()))


def test_a_machine_without_a_gpu_computes_on_its_cpu(tmp_path: Path) -> None:
    assert on_cpu(limits(tmp_path, Machine(None)).rates(config()))


def test_a_model_of_unknown_shape_is_not_given_more_than_hours(tmp_path: Path) -> None:
    told = limits(tmp_path, Machine(None))
    unknown = config(model="org/absent", max_new_tokens=1000)

    assert told.shape(unknown) is None
    assert ASSUMED_AT_MOST_S < told.of(unknown) < 2 * ASSUMED_AT_MOST_S


def test_a_given_limit_holds_for_every_experiment(tmp_path: Path) -> None:
    assert limits(tmp_path, Machine(GPU), given_s=7.0).of(config(model="org/absent")) == 7.0


def test_the_limit_of_the_study_holds_for_all(tmp_path: Path) -> None:
    told = limits(tmp_path, Machine(None), 12.5)
    assert told.of(config(backend="scripted")) == told.of(config(n=9)) == 12.5


def test_without_a_given_limit_it_follows_the_work(tmp_path: Path) -> None:
    told = limits(tmp_path, Machine(None))
    short, long = told.of(config(n=10)), told.of(config(n=1000))
    assert 0 < short < long


def test_a_larger_model_gets_more_time(tmp_path: Path) -> None:
    told = limits(tmp_path, Machine(None))
    assert told.of(config(model="random:llama-3.1-8b")) > told.of(config())


def test_a_model_that_nobody_knows_has_a_limit_too(tmp_path: Path) -> None:
    assert limits(tmp_path, Machine(None)).of(config(model="no/such-model", backend="scripted")) > 0


def test_a_model_type_that_is_not_known_is_given_the_time_of_an_unknown_shape(
    tmp_path: Path,
) -> None:
    shape = {**catalogue.config("tiny-llama"), "model_type": "surprise"}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    told = limits(tmp_path, Machine(None))

    doubtful = told.of(config(model=f"random:{tmp_path}"))
    assert doubtful == told.of(config(model="org/absent")) > told.of(config())


def test_loading_has_half_an_hour_and_what_reading_the_weights_takes(tmp_path: Path) -> None:
    given, free = limits(tmp_path, Machine(GPU), 60.0), limits(tmp_path, Machine(GPU))
    small, large = config(), config(model="random:llama-3.1-8b")

    assert (
        1800
        < free.of_loading(small)
        < free.of_loading(large)
        < free.of_loading(config(model="o/n"))
    )
    assert given.of_loading(large) == math.inf, "execution.timeout_s says what there is"
