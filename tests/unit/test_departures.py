"""Whatever the engine: prompts that it cut and answers that ended early are counted and told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.workload import AskedTokens, asked_of, departures
from llenergymeasure.orchestration.assemble import ResultCollector
from tests.support.make_result import make_environment, make_failed_sample, make_sample
from tests.support.scripted_run import run_scripted, scripted_config

ASKED = (AskedTokens(10, 3), AskedTokens(10, 4))


def test_what_is_asked_is_counted_in_the_order_of_the_dataset() -> None:
    requests = (Request(0, (1, 2), 5), Request(1, (1,), 6))
    assert asked_of(requests) == (AskedTokens(2, 5), AskedTokens(1, 6))


def test_an_engine_that_did_as_asked_needs_no_word() -> None:
    samples = [make_sample(0), make_sample(1, output_tokens=4), make_sample(0, pass_index=1)]
    assert list(departures(samples, ASKED, ignores_eos=True)) == []


def test_prompts_with_another_number_of_tokens_are_told() -> None:
    samples = [make_sample(0, input_tokens=8), make_sample(1, output_tokens=4)]
    (said,) = departures(samples, ASKED, ignores_eos=True)
    assert said.startswith("the engine had 1 of 2 prompts with another number of tokens")


def test_answers_that_the_engine_ended_early_are_told() -> None:
    samples = [make_sample(0), make_sample(1, output_tokens=3, finish="stop")]
    (said,) = departures(samples, ASKED, ignores_eos=True)
    assert said.startswith("the engine ended 1 of 2 answers before the tokens asked for")


def test_an_end_of_sequence_may_end_an_answer_and_is_told_as_such() -> None:
    stopped = make_sample(0, output_tokens=2, finish="stop")
    cut = make_sample(1, output_tokens=2)
    engine, model = departures([stopped, cut], ASKED, ignores_eos=False)
    assert engine.startswith("the engine ended 1 of 2 answers")
    assert "(1 of 2 did so early)" in model


def test_requests_that_failed_are_counted_elsewhere() -> None:
    samples = [make_failed_sample(0), make_sample(1, output_tokens=4)]
    assert list(departures(samples, ASKED, ignores_eos=True)) == []


def test_a_whole_experiment_tells_answers_that_were_too_short(tmp_path: Path) -> None:
    short = scripted_config(
        decoder={"ignore_eos": True}, scripted={"output_tokens": 2, "ttft_ms": 1.0, "itl_ms": 1.0}
    )
    notes = run_scripted(tmp_path, short).result.reproducibility_notes
    assert any("ended 4 of 4 answers before the tokens asked for" in note for note in notes)


def test_an_experiment_whose_engine_computes_in_another_type_says_so(tmp_path: Path) -> None:
    first = run_scripted(tmp_path, scripted_config()).measurement
    other = replace(first, report=replace(first.report, resolved={"compute_dtype": "float16"}))
    notes = ResultCollector(other, make_environment())([other.raw]).reproducibility_notes
    assert "precision: bf16 means to compute in bfloat16, and the engine has float16" in notes
