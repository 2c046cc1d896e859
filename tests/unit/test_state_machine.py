from __future__ import annotations

import itertools

import pytest

from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.state.machine import ExperimentState, StateMachine

INITIALISING, MEASURING, DONE = ExperimentState


def machine_in(state: ExperimentState) -> StateMachine:
    machine = StateMachine()
    for step in itertools.takewhile(lambda one: one is not state, ExperimentState):
        machine.enter("on the way", step)
    machine.enter("arrived", state)
    return machine


def test_there_are_three_states_and_it_begins_in_the_first():
    assert [state.value for state in ExperimentState] == ["initialising", "measuring", "done"]
    assert (StateMachine().state, StateMachine().phase) == (INITIALISING, "start")


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (INITIALISING, INITIALISING, True),
        (INITIALISING, MEASURING, True),
        (INITIALISING, DONE, True),
        (MEASURING, INITIALISING, False),
        (MEASURING, MEASURING, True),
        (MEASURING, DONE, True),
        (DONE, INITIALISING, False),
        (DONE, MEASURING, False),
        (DONE, DONE, True),
    ],
)
def test_states_only_go_forward(before, after, allowed):
    machine = machine_in(before)

    if allowed:
        machine.enter("next", after)
        assert (machine.state, machine.phase) == (after, "next")
    else:
        with pytest.raises(ExperimentError, match=f"{before} cannot become {after}") as caught:
            machine.enter("next", after)
        assert caught.value.where == "next"
        assert (machine.state, machine.phase) == (before, "arrived")


def test_a_phase_without_a_state_belongs_to_the_present_one():
    machine = machine_in(MEASURING)
    machine.enter("prefill")

    assert (machine.state, machine.phase) == (MEASURING, "prefill")


def test_the_listener_is_told_of_every_phase_but_of_no_refused_one():
    told = []
    machine = StateMachine(lambda state, phase: told.append((state, phase)))
    machine.enter("load")
    machine.enter("measure", MEASURING)
    with pytest.raises(ExperimentError):
        machine.enter("load", INITIALISING)

    assert told == [(INITIALISING, "load"), (MEASURING, "measure")]
