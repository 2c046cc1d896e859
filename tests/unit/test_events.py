from __future__ import annotations

import json
from itertools import pairwise

import pytest

from llenergymeasure.orchestration.events import PROGRESS_PERIOD_NS, Event, EventLog
from llenergymeasure.state.machine import ExperimentState


class Clock:
    """A clock that is set by hand, in nanoseconds."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told():
    return []


@pytest.fixture
def log(tmp_path, clock, told):
    events = EventLog(tmp_path / "events.jsonl", told.append, clock_ns=clock)
    yield events
    events.close()


def lines(tmp_path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]


def test_a_phase_is_written_at_once_and_told_in_the_same_words(tmp_path, log, clock, told):
    log.phase(ExperimentState.INITIALISING, "load")

    expected = Event(clock.now_ns, "initialising", "load", None, None)
    assert told == [expected]
    assert lines(tmp_path) == [expected._asdict()]


def test_progress_is_told_at_most_twice_a_second(log, clock, told):
    log.phase(ExperimentState.MEASURING, "measure")
    log.expect(1000)
    for _ in range(1000):
        clock.now_ns += 10_000_000
        log.progress(1)

    progress = [event for event in told if event.done is not None]
    gaps = [b.t_ns - a.t_ns for a, b in pairwise(progress)]
    assert len(progress) == 20, "ten seconds, twice a second"
    assert min(gaps) >= PROGRESS_PERIOD_NS
    assert [event.done for event in progress] == list(range(50, 1001, 50))
    assert {event.total for event in progress} == {1000}


def test_phases_that_follow_quickly_are_all_told(log, told):
    for phase in ("load", "prepare", "warmup"):
        log.phase(ExperimentState.INITIALISING, phase)

    assert [event.phase for event in told] == ["load", "prepare", "warmup"]


def test_an_explanation_belongs_to_the_phase_that_begins_next_and_to_no_other(log, told):
    log.explain("waiting for somebody")
    log.phase(ExperimentState.INITIALISING, "wait")
    log.phase(ExperimentState.INITIALISING, "load")

    assert [event.detail for event in told] == ["waiting for somebody", None]


def test_more_of_the_same_phase_adds_up_and_a_new_phase_begins_at_none(log, clock, told):
    log.phase(ExperimentState.MEASURING, "measure")
    for _ in range(2):
        log.expect(4)
        log.progress(4)
    clock.now_ns += PROGRESS_PERIOD_NS
    log.progress(0)
    log.phase(ExperimentState.MEASURING, "prefill")

    assert (told[-2].done, told[-2].total) == (8, 8)
    assert (told[-1].done, told[-1].total) == (None, None)


def test_a_second_worker_in_the_same_directory_appends(tmp_path, log, clock):
    log.phase(ExperimentState.INITIALISING, "load")
    again = EventLog(tmp_path / "events.jsonl", clock_ns=clock)
    again.phase(ExperimentState.INITIALISING, "prepare")
    again.close()

    assert [line["phase"] for line in lines(tmp_path)] == ["load", "prepare"]


def test_a_line_can_be_read_before_the_log_is_closed(tmp_path, log):
    log.phase(ExperimentState.INITIALISING, "load")

    assert len(lines(tmp_path)) == 1
