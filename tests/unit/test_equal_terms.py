"""Configurations that ask for the same prompts are told when they did not do the same work."""

from __future__ import annotations

from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.study.equal_terms import unequal_work
from tests.support.make_result import make_result, make_throughput


def result(input_tokens: int = 100, output_tokens: int = 64, **fields: Any) -> ExperimentResult:
    config = ExperimentConfig(**{"model": "m", **fields})
    did = make_throughput(input_tokens=input_tokens, output_tokens=output_tokens, passes=1)
    return make_result(config=config, throughput=did)


def test_equal_work_needs_no_word() -> None:
    assert list(unequal_work([(1, result()), (2, result(precision="fp16"))])) == []


def test_an_engine_that_got_other_prompts_is_told() -> None:
    (said,) = unequal_work([(1, result()), (2, result(input_tokens=90, precision="fp16"))])
    assert said == "the engines did not get the same prompts: #1 100, #2 90 tokens a pass"


def test_answers_that_ended_early_are_told_with_the_remedy() -> None:
    (said,) = unequal_work([(1, result()), (3, result(output_tokens=60))])
    assert "#1 64, #3 60 tokens a pass" in said
    assert "decoder.ignore_eos" in said


def test_work_that_was_meant_to_differ_is_not_compared() -> None:
    assert list(unequal_work([(1, result()), (2, result(input_tokens=50, n=50))])) == []


def test_passes_are_not_counted_twice() -> None:
    twice = make_throughput(input_tokens=200, output_tokens=128, passes=2)
    other = result().model_copy(update={"throughput": twice})
    assert list(unequal_work([(1, result()), (2, other)])) == []
