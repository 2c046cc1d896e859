"""A stored plan goes on if it is asked for unchanged; else the difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.exceptions import FlagError, StudyError
from llenergymeasure.study.cycles import slots
from llenergymeasure.study.manifest import Slot
from llenergymeasure.study.prepare import check_design, continued, find_study
from tests.support.study_on_disk import make_execution, make_plan, make_study, scripted

SIZES = tuple(scripted(size) for size in (1, 8, 32))
PLAN = make_plan(SIZES)


def refusal(*asked: object, plan=PLAN, cold_start: bool = False) -> list[str]:
    with pytest.raises(StudyError) as caught:
        check_design(plan, asked, cold_start=cold_start)
    assert "this study cannot be resumed: the design has changed" in caught.value.message
    assert "without --resume" in caught.value.message
    return [line[4:] for line in caught.value.message.splitlines() if line.startswith("  - ")]


def test_the_same_configurations_in_another_order_are_the_same_design() -> None:
    check_design(PLAN, SIZES[::-1], cold_start=False)


def test_a_configuration_that_was_added_is_named_by_what_varies() -> None:
    assert refusal(*SIZES, scripted(64)) == ["not in the plan: scripted.batch_size 64"]


def test_a_configuration_that_was_removed_is_named() -> None:
    assert refusal(*SIZES[1:]) == ["no longer there: scripted.batch_size 1"]


def test_a_setting_that_changed_for_all_is_named_once() -> None:
    changed = [scripted(size, n=7) for size in (1, 8, 32)]
    assert refusal(*changed) == ["n: not set in the plan, 7 now"]


def test_a_setting_that_is_new_is_named_with_its_value() -> None:
    changed = [scripted(size, decoder={"min_new_tokens": 2}) for size in (1, 8, 32)]
    assert refusal(*changed) == ["decoder.min_new_tokens: not set in the plan, 2 now"]


def test_a_setting_and_a_configuration_are_both_named() -> None:
    changed = [scripted(size, n=7) for size in (1, 8, 64)]
    assert refusal(*changed) == [
        "n: not set in the plan, 7 now",
        "no longer there: scripted.batch_size 32",
        "not in the plan: scripted.batch_size 64",
    ]


def test_a_new_dimension_is_named() -> None:
    grid = [
        scripted(size, precision=precision) for size in (1, 8, 32) for precision in ("bf16", "fp16")
    ]
    assert refusal(*grid) == [
        f"not in the plan: precision fp16, scripted.batch_size {size}" for size in (1, 8, 32)
    ]


def test_a_single_configuration_that_changed_is_named() -> None:
    assert refusal(scripted(8), plan=make_plan([scripted(1)])) == [
        "scripted.batch_size: 1 in the plan, 8 now"
    ]


def test_a_difference_that_cannot_be_put_into_words_is_refused_all_the_same() -> None:
    plan = make_plan([ExperimentConfig(model="m", passthrough_kwargs={"a": {}})])
    asked = ExperimentConfig(model="m", passthrough_kwargs={"a": {"b": {}}})
    assert refusal(asked, plan=plan) == ["settings that read alike but are not the same"]


def test_a_cold_start_is_part_of_the_design() -> None:
    assert refusal(*SIZES, cold_start=True) == ["cold_start: False in the plan, True now"]


def test_many_differences_are_counted() -> None:
    found = refusal(*SIZES, *(scripted(size) for size in range(100, 110)))
    assert len(found) == 6
    assert found[-1] == "not in the plan: 5 more"


@given(st.sets(st.integers(1, 9), min_size=1), st.sets(st.integers(1, 9), min_size=1))
def test_every_difference_is_refused_with_a_reason(old: set[int], new: set[int]) -> None:
    plan = make_plan([scripted(size) for size in old])
    asked = [scripted(size) for size in new]
    if old == new:
        check_design(plan, asked, cold_start=False)
    else:
        assert refusal(*asked, plan=plan)


def test_nothing_changed_nothing_noted() -> None:
    assert continued(PLAN, make_execution()) == (PLAN, (), ())


def test_more_cycles_come_after_the_slots_that_are_there() -> None:
    plan, notes, _ = continued(PLAN, make_execution(n_cycles=5))
    assert plan.slots[:9] == PLAN.slots
    assert [slot.number for slot in plan.slots] == list(range(1, 16))
    assert [(slot.configuration, slot.cycle) for slot in plan.slots[9:]] == [
        (index, cycle) for cycle in (4, 5) for index in range(3)
    ]
    assert plan.execution.n_cycles == 5
    assert notes == ("5 cycles instead of 3: 6 more experiments",)


def test_added_cycles_repeat_none_that_an_earlier_version_has_laid_out() -> None:
    execution = make_execution(n_cycles=3, cycle_order="balanced")
    design = [slot.configuration for slot in slots(3, execution)]
    stored = tuple(
        Slot(number, one, (number + 2) // 3)
        for number, one in enumerate(design[:3] + design[6:], start=1)
    )
    before = make_plan(SIZES, execution=execution.model_copy(update={"n_cycles": 2}), slots=stored)
    plan = continued(before, execution).plan
    assert plan.slots[:6] == stored
    added = [slot.configuration for slot in plan.slots[6:]]
    assert added not in (design[:3], design[6:])


@given(st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_topping_up_twice_gives_the_same_experiments_as_once(first: int, more: list[int]) -> None:
    plan = make_plan(SIZES, execution=make_execution(n_cycles=first))
    for step in more:
        execution = make_execution(n_cycles=plan.execution.n_cycles + step)
        plan = continued(plan, execution).plan
    at_once = make_plan(SIZES, execution=plan.execution)
    assert plan == at_once


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_cycles": 2}, "n_cycles: 3 in the plan, 2 now; cycles can be added, not taken back"),
        ({"cycle_order": "shuffled"}, "cycle_order: interleaved in the plan, shuffled now"),
        ({"seed": 8}, "seed: 7 in the plan, 8 now"),
    ],
)
def test_another_order_is_refused_by_name(change: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match="order of its experiments has changed") as caught:
        continued(PLAN, make_execution(**change))
    assert said in caught.value.message


def test_rests_and_time_limits_may_change_and_are_noted() -> None:
    execution = make_execution(config_gap_seconds=60.0, timeout_s=5.0, start_method="spawn")
    plan, notes, _ = continued(PLAN, execution)
    assert plan.slots == PLAN.slots
    assert plan.execution == execution
    assert notes == (
        "config_gap_seconds: 0.0 in the plan, 60.0 now",
        "start_method: auto in the plan, spawn now",
        "timeout_s: None in the plan, 5.0 now",
    )


def test_another_version_of_the_program_is_noted() -> None:
    old = PLAN.model_copy(update={"llenergymeasure_version": "1.9.0"})
    (note,) = continued(old, make_execution()).notes
    assert note.startswith("version of llenergymeasure: 1.9.0 in the plan")


@pytest.mark.parametrize("path", [".", "one", "one/study_manifest.json"])
def test_a_study_is_found_by_itself_its_manifest_or_its_parent(tmp_path: Path, path: str) -> None:
    make_study(tmp_path / "one", PLAN)
    (tmp_path / "single_experiment").mkdir()
    assert find_study(tmp_path / path).root == tmp_path / "one"


def test_of_several_studies_one_has_to_be_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_study(tmp_path / name, PLAN)
    with pytest.raises(FlagError, match="2 studies") as caught:
        find_study(tmp_path)
    assert f"--resume {tmp_path / 'two'}" in caught.value.message


@pytest.mark.parametrize("path", ["", "absent", "absent/study_manifest.json"])
def test_no_study_is_an_error(tmp_path: Path, path: str) -> None:
    with pytest.raises(FlagError, match=r"there is no study_manifest\.json"):
        find_study(tmp_path / path)
