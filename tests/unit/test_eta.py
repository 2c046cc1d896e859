"""The time a study still takes is learned from what has finished."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.study.estimate import TimeLeft


def test_nothing_is_said_before_anything_has_finished() -> None:
    assert TimeLeft([(0, 0.0), (1, 0.0)]).seconds() is None


def test_a_configuration_that_has_run_takes_its_mean() -> None:
    left = TimeLeft([(0, 0.0), (0, 0.0)])
    left.learn(0, 10.0)
    left.learn(0, 20.0)
    assert left.seconds() == 30.0


def test_a_configuration_that_has_not_run_takes_the_mean_of_all_configurations_that_have() -> None:
    left = TimeLeft([(1, 0.0), (2, 0.0)])
    left.learn(0, 10.0)
    left.learn(0, 10.0)
    left.learn(1, 30.0)
    assert left.seconds() == 30.0 + 20.0


def test_pauses_are_added_and_gone_once_their_experiment_begins() -> None:
    left = TimeLeft([(0, 0.0), (0, 2.5), (0, 4.0)])
    left.learn(0, 10.0)
    left.begin()
    assert left.seconds() == 20.0 + 6.5
    left.begin()
    assert left.seconds() == 10.0 + 4.0


def test_nothing_left_takes_no_time() -> None:
    left = TimeLeft([(0, 0.1), (1, 0.2)])
    left.learn(0, 0.3)
    left.begin()
    left.begin()
    assert left.seconds() == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 9), st.floats(1, 99)), min_size=1))
def test_the_time_left_is_the_sum_over_what_is_left_at_every_step(
    runs: list[tuple[int, float, float]],
) -> None:
    left = TimeLeft((configuration, pause_s) for configuration, pause_s, _ in runs)
    seen: dict[int, list[float]] = {}
    for place, (configuration, _, seconds) in enumerate(runs):
        left.begin()
        left.learn(configuration, seconds)
        seen.setdefault(configuration, []).append(seconds)
        means = {one: fmean(values) for one, values in seen.items()}
        typical = fmean(means.values())
        expected = sum(means.get(one, typical) + pause_s for one, pause_s, _ in runs[place + 1 :])
        assert left.seconds() == pytest.approx(expected, rel=1e-9, abs=1e-9)
