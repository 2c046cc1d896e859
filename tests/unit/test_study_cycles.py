from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.study.blocks import Observation, fit
from llenergymeasure.study.cycles import slots
from llenergymeasure.study.manifest import Slot
from study_simulation import widening
from tests.support.study_on_disk import make_execution

ORDERS = ["balanced", "interleaved", "shuffled", "sequential"]


def cycles(count: int, n_cycles: int, order: str = "balanced", seed: int = 42) -> list[list[int]]:
    execution = make_execution(n_cycles=n_cycles, cycle_order=order, seed=seed)
    laid_out: dict[int, list[int]] = {}
    for slot in slots(count, execution):
        laid_out.setdefault(slot.cycle, []).append(slot.configuration)
    return list(laid_out.values())


def successions(rows: list[list[int]]) -> Counter[tuple[int, int]]:
    return Counter(pair for row in rows for pair in pairwise(row))


def sequence(count: int, n_cycles: int, order: str) -> str:
    execution = make_execution(n_cycles=n_cycles, cycle_order=order)
    return "".join("ABC"[slot.configuration] for slot in slots(count, execution))


def test_sequential_repeats_each_configuration_and_interleaved_the_whole_round():
    assert sequence(2, 3, "sequential") == "AAABBB"
    assert sequence(2, 3, "interleaved") == "ABABAB"


@pytest.mark.parametrize("order", ORDERS)
@given(count=st.integers(1, 30), n_cycles=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_configuration_runs_once_a_cycle(order, count, n_cycles, seed):
    execution = make_execution(n_cycles=n_cycles, cycle_order=order, seed=seed)
    laid_out = slots(count, execution)

    assert [slot.number for slot in laid_out] == list(range(1, count * n_cycles + 1))
    runs = {(slot.configuration, slot.cycle) for slot in laid_out}
    assert runs == {(c, n) for c in range(count) for n in range(1, n_cycles + 1)}
    assert len(runs) == len(laid_out)
    assert laid_out == slots(count, execution)


def test_shuffled_draws_a_new_order_each_cycle_from_its_seed():
    rows = cycles(8, 4, "shuffled")

    assert len({tuple(row) for row in rows}) == 4
    assert rows != cycles(8, 4, "shuffled", seed=7)


@given(count=st.integers(2, 15), designs=st.integers(1, 3), seed=st.integers(0, 999))
def test_in_a_whole_balanced_design_each_follows_each_and_stands_everywhere_equally_often(
    count, designs, seed
):
    rows = cycles(count, designs * count * (1 + count % 2), seed=seed)

    assert set(successions(rows).values()) == {designs * (1 + count % 2)}
    assert len(successions(rows)) == count * (count - 1)
    positions = Counter((place, c) for row in rows for place, c in enumerate(row))
    assert set(positions.values()) == {designs * (1 + count % 2)}


@given(count=st.integers(2, 40), n_cycles=st.integers(1, 40), seed=st.integers(0, 999))
def test_with_few_cycles_starts_differ_and_no_succession_is_seen_too_often(count, n_cycles, seed):
    n_cycles = min(n_cycles, count)
    rows = cycles(count, n_cycles, seed=seed)

    assert len({row[0] for row in rows}) == n_cycles
    assert max(successions(rows).values()) <= 1 + count % 2


@given(count=st.sampled_from([3, 5, 7, 9, 11, 21]), seed=st.integers(0, 999))
def test_two_cycles_of_an_odd_number_share_no_succession(count, seed):
    assert max(successions(cycles(count, 2, seed=seed)).values()) == 1


def places(rows: list[list[int]]) -> np.ndarray:
    """Give where each configuration stands, (cycles, configurations), about the middle."""
    return np.array([[row.index(one) for one in range(len(row))] for row in rows]) - (
        (len(rows[0]) - 1) / 2
    )


@given(count=st.integers(2, 64), seed=st.integers(0, 999))
def test_who_ran_early_in_the_first_of_two_cycles_runs_late_in_the_second(count, seed):
    first, second = places(cycles(count, 2, seed=seed))
    assert np.corrcoef(first, second)[0, 1] < (-0.55 if count > 6 else -0.25)


@given(count=st.integers(2, 4), seed=st.integers(0, 999))
def test_the_second_of_two_short_cycles_is_the_first_one_backwards(count, seed):
    first, second = cycles(count, 2, seed=seed)
    assert second == first[::-1]


@pytest.mark.parametrize("n_cycles", [2, 3, 4, 5])
@pytest.mark.parametrize(("order", "widest"), [("balanced", 1.15), ("shuffled", 1.25)])
def test_these_orders_tell_drift_at_every_size(order, widest, n_cycles):
    wide = {
        count: widening(np.array(cycles(count, n_cycles, order))).max() for count in range(2, 65)
    }
    assert {count: times for count, times in wide.items() if times > widest} == {}


@pytest.mark.parametrize("order", ["balanced", "shuffled"])
@given(count=st.integers(2, 12), n_cycles=st.integers(2, 10), seed=st.integers(0, 9_999))
def test_no_seed_gives_an_order_that_hardly_tells_drift(order, count, n_cycles, seed):
    assert widening(np.array(cycles(count, n_cycles, order, seed))).max() < 1.26


@pytest.mark.parametrize("count", [2, 7, 33, 64])
@pytest.mark.parametrize("order", ["interleaved", "sequential"])
def test_a_fixed_order_tells_no_drift_at_all_and_none_is_taken_out(order, count):
    execution = make_execution(n_cycles=7, cycle_order=order)
    runs = [
        Observation(slot.configuration, slot.cycle, 1.0 + slot.number % 3, slot.number)
        for slot in slots(count, execution)
    ]
    fitted = fit(runs)
    assert fitted.drift is None
    assert {fitted.widening(0, other) for other in range(1, count)} == {1.0}


@pytest.mark.parametrize("order", ["balanced", "shuffled"])
@given(count=st.integers(7, 40), n_cycles=st.integers(2, 5), seed=st.integers(0, 99))
def test_intervals_get_as_much_wider_by_drift_as_its_column_in_the_normal_equations_makes_them(
    order, count, n_cycles, seed
):
    rows = cycles(count, n_cycles, order, seed)
    runs = [
        Observation(one, cycle, 1.0 + place % 3, cycle * count + place)
        for cycle, row in enumerate(rows)
        for place, one in enumerate(row)
    ]
    fitted = fit(runs)
    assert fitted.drift is not None
    wide = [fitted.widening(*pair) for pair in combinations(range(count), 2)]
    assert wide == pytest.approx(widening(np.array(rows)))


@pytest.mark.parametrize("order", ["balanced", "shuffled"])
@given(count=st.integers(3, 40), n_cycles=st.integers(2, 8), seed=st.integers(0, 999))
def test_cycles_that_are_added_follow_those_of_before(order, count, n_cycles, seed):
    more = cycles(count, n_cycles + 3, order, seed)
    assert cycles(count, n_cycles, order, seed) == more[:n_cycles]


def added(order: str, stored: list[list[int]], n_cycles: int) -> list[list[int]]:
    """Give the cycles after those stored, perhaps by an earlier version."""
    count = len(stored[0])
    before = [
        Slot(cycle * count + place + 1, one, cycle + 1)
        for cycle, row in enumerate(stored)
        for place, one in enumerate(row)
    ]
    execution = make_execution(n_cycles=n_cycles, cycle_order=order, seed=42)
    after = [slot.configuration for slot in slots(count, execution, before)][len(before) :]
    return [after[start : start + count] for start in range(0, len(after), count)]


@pytest.mark.parametrize("order", ["balanced", "shuffled"])
@given(count=st.integers(2, 12), n_cycles=st.integers(1, 6))
def test_what_a_study_of_this_version_has_stored_is_gone_on_with_as_if_planned_at_once(
    order, count, n_cycles
):
    at_once = cycles(count, n_cycles + 2, order)
    assert added(order, at_once[:n_cycles], n_cycles + 2) == at_once[n_cycles:]


@given(count=st.integers(3, 12), data=st.data())
def test_cycles_that_are_added_to_any_stored_rows_repeat_none_and_tell_drift(count, data):
    design = cycles(count, count * (1 + count % 2))
    second = data.draw(st.sampled_from(design[1:]))
    (third, fourth) = added("balanced", [design[0], second], 4)
    assert len({str(row) for row in (design[0], second, third, fourth)}) == 4
    assert widening(np.array([design[0], second, third, fourth])).max() < 1.3


def test_cycles_that_are_added_to_stored_ones_that_were_shuffled_alike_tell_drift():
    third, fourth = added("shuffled", [[*range(8)]] * 2, 4)
    assert widening(np.array([range(8), range(8), third])).max() <= 1.25
    assert widening(np.array([range(8), range(8), third, fourth])).max() <= 1.25


def test_two_configurations_take_turns_at_being_first():
    first = [row[0] for row in cycles(2, 4)]

    assert Counter(first) == {0: 2, 1: 2}
    assert first[0] != first[1]


def test_the_seed_decides_which_balanced_order_is_used():
    assert len({str(cycles(6, 3, seed=seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("order", ORDERS)
def test_ten_thousand_configurations_are_laid_out(order):
    laid_out = slots(10_000, make_execution(n_cycles=1, cycle_order=order))

    assert len({slot.configuration for slot in laid_out}) == 10_000


def test_a_large_odd_design_is_laid_out_for_several_cycles():
    rows = cycles(2_001, 5)

    assert len({row[0] for row in rows}) == 5
    assert max(successions(rows).values()) == 1


# Gaps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "between"),
    [
        ("interleaved", [False, True, False]),
        ("balanced", [False, True, False]),
        ("sequential", [False, False, False]),
    ],
)
def test_cycle_gaps_come_between_cycles_of_orders_that_have_them(order, between):
    execution = make_execution(n_cycles=2, cycle_order=order)
    laid_out = slots(2, execution)

    pairs = pairwise(laid_out)
    assert [execution.between_cycles(*pair) for pair in pairs] == between


def test_the_length_of_a_gap_follows_from_what_it_separates():
    execution = make_execution(config_gap_seconds=7.0, cycle_gap_seconds=8.0)
    first, second, third = Slot(1, 0, 1), Slot(2, 1, 1), Slot(3, 0, 2)

    assert execution.gap_s(None, first) == 0
    assert execution.gap_s(first, second) == 7
    assert execution.gap_s(second, third) == 8
