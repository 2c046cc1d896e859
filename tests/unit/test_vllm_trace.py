"""From what vLLM says about requests to samples; no engine needed."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.engines import Finished, ServedTrace
from llenergymeasure.core.backends.vllm.library import Step, told, with_gaps

REQUEST = Request(7, (1, 2, 3), 4)
EACH = ((1.5, 1), (1.75, 0), (2.0, 1), (2.125, 1), (2.25, 1))


def finished(**fields) -> Finished:
    values = {
        "prompt_tokens": 3,
        "token_ids": (5, 6, 7, 8),
        "reason": "length",
        "issued_ns": 500_000_000,
        "delivered_ns": 9_000_000_000,
        "cached_tokens": 0,
        "scheduled_ns": 1_000_000_000,
        "first_token_ns": 1_500_000_000,
        "last_token_ns": 2_250_000_000,
        "key": "a",
    }
    return Finished(**{**values, **fields})


def steps(*arrivals: tuple[float, int]) -> list[Step]:
    """Make steps that brought tokens to our request, and to another beside it."""
    return [Step(at_s, [("b", 1), ("a", tokens)]) for at_s, tokens in arrivals]


def sample(made=EACH, **fields):
    read = partial(with_gaps, steps(*made))
    asked = [(REQUEST, 400_000_000)]
    return ServedTrace("vLLM", 2, asked, [finished(**fields)], read).samples()[0]


def test_statistics_of_vllm_become_nanoseconds_and_zero_is_no_time():
    answer = SimpleNamespace(token_ids=[5], finish_reason="stop")
    stats = SimpleNamespace(scheduled_ts=1.0, first_token_ts=1.5, last_token_ts=0.0)
    output = SimpleNamespace(
        outputs=[answer], metrics=stats, prompt_token_ids=[1, 2], num_cached_tokens=1
    )

    made = told("a", output, 3, 9)

    assert made == Finished(2, (5,), "stop", 3, 9, 1, 1_000_000_000, 1_500_000_000, None, "a")


def test_drafts_of_a_request_are_those_that_vllm_counted():
    drafts = SimpleNamespace(histogram=[4, 2, 0, 1], num_draft_tokens=35)
    answer = SimpleNamespace(token_ids=[5], finish_reason="stop", spec_decode_metrics=drafts)
    output = SimpleNamespace(
        outputs=[answer], metrics=None, prompt_token_ids=[1, 2], num_cached_tokens=1
    )
    done = told("a", output, 3, 9)
    made = ServedTrace("vLLM", 0, [(REQUEST, 1)], [done]).samples()[0]

    assert (made.drafted_tokens, made.accepted_tokens) == (35, 0 * 4 + 1 * 2 + 3 * 1)
    assert sample().drafted_tokens is None, "nothing was drafted"


def test_a_sample_has_the_times_of_its_request_and_of_the_steps():
    made = sample()

    assert (made.request, made.pass_index, made.batch_index) == (7, 2, None)
    assert (made.due_ns, made.issued_ns) == (400_000_000, 500_000_000)
    assert made.scheduled_ns == 1_000_000_000
    assert made.first_token_ns == 1_500_000_000
    assert made.last_token_ns == 2_250_000_000
    assert made.delivered_ns == 9_000_000_000
    assert made.gaps_ns == (500_000_000, 125_000_000, 125_000_000)
    assert made.gap_tokens is None


def test_a_step_that_brings_several_tokens_is_one_gap_of_that_many():
    made = sample(((1.5, 2), (2.25, 2)))

    assert (made.gaps_ns, made.gap_tokens) == ((750_000_000,), (2,))


@pytest.mark.parametrize("arrivals", [(), ((1.5, 1), (2.25, 1))])
def test_gaps_are_unknown_unless_every_token_is_accounted_for(arrivals):
    made = sample(arrivals)

    assert (made.gaps_ns, made.gap_tokens) == (None, None)


def test_a_request_without_statistics_has_no_token_times():
    made = sample((), scheduled_ns=None, first_token_ns=None, last_token_ns=None)

    assert made.scheduled_ns == 500_000_000, "when it was handed over"
    assert (made.first_token_ns, made.last_token_ns) == (None, None)


@pytest.mark.parametrize(
    ("reason", "finish"), [("length", "length"), ("stop", "stop"), ("abort", "failed")]
)
def test_reasons_of_vllm_are_put_into_ours(reason, finish):
    made = sample(reason=reason)

    assert made.finish == finish
    assert (made.error is not None) == (finish == "failed")


def test_counts_are_those_of_the_engine():
    made = sample(prompt_tokens=2, token_ids=(5, 6), cached_tokens=1)

    assert (made.input_tokens, made.computed_input_tokens, made.cached_input_tokens) == (2, 2, 1)
    assert (made.output_tokens, made.computed_output_tokens) == (2, 2)
