"""The time a study still takes is learned from what has finished."""

from __future__ import annotations

from llenergymeasure.study.eta import DurationsSeen


def test_nothing_is_said_before_anything_has_finished() -> None:
    assert DurationsSeen().expected_s([0, 1]) is None


def test_a_configuration_that_has_run_takes_its_mean() -> None:
    seen = DurationsSeen()
    seen.add(0, 10.0)
    seen.add(0, 20.0)
    assert seen.expected_s([0, 0]) == 30.0


def test_one_that_has_not_takes_the_mean_of_all_configurations_that_have() -> None:
    seen = DurationsSeen()
    seen.add(0, 10.0)
    seen.add(0, 10.0)
    seen.add(1, 30.0)
    assert seen.expected_s([1, 2]) == 30.0 + 20.0


def test_nothing_left_takes_no_time() -> None:
    seen = DurationsSeen()
    seen.add(0, 10.0)
    assert seen.expected_s([]) == 0
