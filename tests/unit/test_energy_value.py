"""Joules with an interval: differences, shares and idle energy, known or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.domain.energy import Energy, EnergyComponent, EnergyKind, EnergyRecording, Idle

FINITE = st.floats(-1e9, 1e9)
HALF = st.floats(0, 1e9)


def test_decode_is_whole_less_prefill_and_doubts_add_in_squares() -> None:
    assert Energy(500.0, 4.0) - Energy(120.0, 3.0) == Energy(380.0, 5.0)


def test_energy_above_idle_carries_the_doubt_of_both_and_is_not_clipped() -> None:
    above = Energy(700.0, 6.0) - Idle(75.0, 0.8).over(10.0)
    assert above == Energy(-50.0, 10.0)


def test_each_of_equal_parts_has_its_share_of_energy_and_doubt() -> None:
    assert Energy(500.0, 4.0) / 4 == Energy(125.0, 1.0)


@pytest.mark.parametrize("count", [None, 0])
def test_the_share_of_no_or_unknown_parts_is_unknown(count: int | None) -> None:
    assert Energy(500.0, 4.0) / count == Energy(None)


@pytest.mark.parametrize("unknown", [Energy(None), Energy(None, 3.0)])
def test_what_is_unknown_stays_unknown(unknown: Energy) -> None:
    known = Energy(500.0, 4.0)
    assert known - unknown == unknown - known == unknown / 2 == Energy(None)


def test_a_figure_without_an_interval_leaves_one_without() -> None:
    assert Energy(500.0, 4.0) - Energy(120.0) == Energy(380.0)
    assert Energy(500.0) / 2 == Energy(250.0)
    assert Idle(75.0).over(2.0) == Energy(150.0)


@given(FINITE, HALF, FINITE, HALF)
def test_a_difference_is_never_more_certain_than_either_part(
    whole_j: float, whole_half_j: float, part_j: float, part_half_j: float
) -> None:
    left = Energy(whole_j, whole_half_j) - Energy(part_j, part_half_j)
    assert left.half_j is not None
    assert left.half_j >= max(whole_half_j, part_half_j)


@pytest.mark.parametrize(
    ("kind", "half_j"), [("measured", 2.0), ("modelled", None), ("unmeasurable", None)]
)
def test_only_measured_energy_of_a_recording_has_an_interval(
    kind: EnergyKind, half_j: float | None
) -> None:
    part = EnergyComponent(name="cpu", energy_j=9.0, kind=kind, method="known", in_scope=True)
    assert EnergyRecording("known", (part,), 2.0).energy == Energy(9.0, half_j)


def test_what_was_read_is_told_by_words_only_where_nothing_else_tells_it() -> None:
    words = {"name": "gpu", "energy_j": 1.0, "in_scope": True}
    earlier = EnergyComponent(kind="measured", method="nvml: energy counter", **words)
    model = EnergyComponent(kind="modelled", method="CodeCarbon: a constant share", **words)
    nothing = EnergyComponent(kind="unmeasurable", method="rapl: nothing", **words)
    told = EnergyComponent(kind="measured", method="the counter of a room", sensor="power", **words)

    assert (earlier.sensor, earlier.model) == ("counter", None)
    assert (model.sensor, model.model) == (None, "a constant share")
    assert nothing.sensor is None
    assert told.sensor == "power"
