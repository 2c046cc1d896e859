"""When the steps of a load began."""

from __future__ import annotations

from dataclasses import replace

from llenergymeasure.core.energy.estimation.aliasing import step_times_ns
from llenergymeasure.domain.samples import RequestSample

MS = 1_000_000
SAMPLE = RequestSample(
    request=0,
    pass_index=0,
    batch_index=0,
    input_tokens=4,
    padded_input_tokens=4,
    output_tokens=3,
    executed_output_tokens=3,
    issued_ns=0,
    scheduled_ns=100 * MS,
    first_token_ns=150 * MS,
    last_token_ns=190 * MS,
    delivered_ns=190 * MS,
    gaps_ns=(20 * MS, 20 * MS),
)


def test_steps_are_the_start_and_every_token() -> None:
    assert step_times_ns([SAMPLE]) == (100 * MS, 150 * MS, 170 * MS, 190 * MS)


def test_requests_of_one_batch_share_their_steps() -> None:
    later = replace(SAMPLE, request=1, first_token_ns=150 * MS + 400_000)
    assert step_times_ns([SAMPLE, later]) == step_times_ns([SAMPLE])


def test_steps_of_several_batches_are_in_order() -> None:
    second = replace(SAMPLE, scheduled_ns=200 * MS, first_token_ns=230 * MS, gaps_ns=None)
    steps = step_times_ns([second, SAMPLE])
    assert steps == (100 * MS, 150 * MS, 170 * MS, 190 * MS, 200 * MS, 230 * MS)


def test_a_failed_request_has_its_start_alone_and_no_request_no_step() -> None:
    failed = replace(SAMPLE, first_token_ns=None, last_token_ns=None, gaps_ns=None)
    assert step_times_ns([failed]) == (100 * MS,)
    assert step_times_ns([]) == ()
