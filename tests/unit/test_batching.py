"""How requests become batches."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.engines import dynamic_batches, static_batches


def make(lengths: list[tuple[int, int]]) -> list[Request]:
    return [Request(index, (0,) * prompt, answer) for index, (prompt, answer) in enumerate(lengths)]


def total(request: Request) -> int:
    return len(request.token_ids) + request.max_new_tokens


workloads = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), max_size=40).map(make)
batch_sizes = st.integers(1, 9)


def test_static_batches_keep_the_order_and_the_last_may_be_smaller():
    requests = make([(n, 1) for n in (5, 1, 4, 2, 3)])

    assert [[len(r.token_ids) for r in batch] for batch in static_batches(requests, 2)] == [
        [5, 1],
        [4, 2],
        [3],
    ]


def test_dynamic_batches_put_short_requests_together_up_to_the_budget():
    requests = make([(1, 1), (9, 1), (4, 1), (1, 1), (1, 1), (4, 1)])

    # the budget is 2 x 10 tokens: 2 of 10 and 5 (padded to 10), then 20 // 5 = 4 of at most 5
    assert [[total(r) for r in batch] for batch in dynamic_batches(requests, 2)] == [
        [10, 5],
        [5, 2, 2, 2],
    ]


def test_no_requests_make_no_batches():
    assert static_batches([], 4) == dynamic_batches([], 4) == ()


@given(workloads, batch_sizes)
def test_every_request_is_in_exactly_one_batch(requests, batch_size):
    for group in (static_batches, dynamic_batches):
        batches = group(requests, batch_size)
        assert Counter(r.index for batch in batches for r in batch) == Counter(
            r.index for r in requests
        )
        assert all(batches)


@given(workloads, batch_sizes)
def test_static_batches_are_full_but_for_the_last(requests, batch_size):
    batches = static_batches(requests, batch_size)

    assert [r for batch in batches for r in batch] == requests
    assert all(len(batch) == batch_size for batch in batches[:-1])


@given(workloads.filter(len), batch_sizes)
def test_no_dynamic_batch_needs_more_than_a_static_one_of_the_longest(requests, batch_size):
    budget = batch_size * max(map(total, requests))
    batches = dynamic_batches(requests, batch_size)

    assert all(len(batch) * max(map(total, batch)) <= budget for batch in batches)
    # and none could have taken the first of the next one as well
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * max(map(total, [*batch, following[0]])) > budget


@given(workloads, batch_sizes)
def test_dynamic_batches_go_from_long_to_short_and_equal_ones_keep_their_order(
    requests, batch_size
):
    flat = [r for batch in dynamic_batches(requests, batch_size) for r in batch]

    assert flat == sorted(requests, key=lambda r: (-total(r), r.index))
