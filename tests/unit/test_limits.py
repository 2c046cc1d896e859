"""The time limit of an experiment."""

from __future__ import annotations

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import EffectiveSettings, UserConfig
from llenergymeasure.study.limits import TimeLimits
from tests.support.scripted_run import scripted_config

SETTINGS = EffectiveSettings(UserConfig(), {})


def on_cpu(**fields: object) -> ExperimentConfig:
    values = {"model": "random:tiny-llama", "pytorch": {"device": "cpu"}, **fields}
    return ExperimentConfig.model_validate(values)


def test_the_limit_of_the_study_holds_for_all() -> None:
    limits = TimeLimits(SETTINGS, 12.5)
    assert limits.of(scripted_config()) == limits.of(on_cpu(n=9)) == 12.5


def test_without_one_it_follows_the_work() -> None:
    limits = TimeLimits(SETTINGS, None)
    short, long = limits.of(on_cpu(n=10)), limits.of(on_cpu(n=1000))
    assert 0 < short < long


def test_a_larger_model_gets_more_time() -> None:
    limits = TimeLimits(SETTINGS, None)
    assert limits.of(on_cpu(model="random:llama-3.1-8b")) > limits.of(on_cpu())


def test_a_model_that_nobody_knows_has_a_limit_too() -> None:
    assert TimeLimits(SETTINGS, None).of(scripted_config(model="no/such-model")) > 0
