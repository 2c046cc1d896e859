"""The plan of a study comes back as it was written, and damage is told as such."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.study_result import Skipped
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.events import ProgressLine, ProgressLog, read_progress
from llenergymeasure.study.manifest import (
    ProgressView,
    Slot,
    StudyPlan,
    manifest_text,
    read_plan,
    write_manifest,
    write_plan,
)
from tests.support.edits import Counts, other_digits, rewrite, unsealed
from tests.support.samples import MOST_CUTS, cuts
from tests.support.study_on_disk import CREATED, finish, make_execution, make_plan, scripted

TWO = (scripted(1), scripted(8))


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    return StudyDirectory(tmp_path)


configurations = st.builds(
    ExperimentConfig,
    model=st.sampled_from(["m", "random:tiny-llama"]),
    backend=st.just("pytorch"),
    precision=st.sampled_from(["bf16", "fp16"]),
    n=st.integers(1, 5),
    pytorch=st.none() | st.builds(dict, batch_size=st.none() | st.integers(1, 9)),
    dataset=st.just("mixed-1k")
    | st.builds(lambda n: {"synthetic": {"input_len": n}}, st.integers(1, 9)),
    passthrough_kwargs=st.none()
    | st.dictionaries(st.sampled_from(["a", "a.b"]), st.none() | st.just({}) | st.integers()),
)


@given(st.lists(configurations, max_size=4))
def test_what_is_written_comes_back(experiments: list[ExperimentConfig]) -> None:
    skipped = (Skipped(config={"n": 0}, reason="n: too small"),)
    plan = make_plan(experiments, skipped=skipped)
    again = StudyPlan.from_json(json.loads(manifest_text(plan, ProgressView(complete=1))))
    assert again == plan


def test_what_all_configurations_have_in_common_is_written_once(study: StudyDirectory) -> None:
    plan = make_plan(TWO)
    write_manifest(study, plan)
    data = json.loads(study.manifest.read_text())
    assert [list(one) for one in data["experiments"]] == [["scripted"], ["scripted"]]
    assert data["common"]["max_new_tokens"] == 128, "defaults of this version are written out"
    assert data["slots"][:3] == [[1, 0, 1], [2, 1, 1], [3, 0, 2]]
    assert read_plan(study).plan == plan


def test_progress_in_the_manifest_is_a_view_that_the_plan_does_not_have(
    study: StudyDirectory,
) -> None:
    write_manifest(study, make_plan(TWO), ProgressView(complete=2, missing=4))
    assert json.loads(study.manifest.read_text())["progress"]["complete"] == 2
    assert read_plan(study).plan == make_plan(TWO)


@MOST_CUTS
@pytest.mark.parametrize("cut", ["manifest", "plan"])
def test_a_plan_survives_one_of_its_files_cut_at_any_byte(
    study: StudyDirectory, cut: str, most: int
) -> None:
    write_manifest(study, make_plan(TWO))
    write_plan(study, make_plan(TWO))
    file = study.manifest if cut == "manifest" else study.plan
    whole = file.read_bytes()
    for end in cuts(len(whole) - 1, most):  # without the last line break it is whole
        file.write_bytes(whole[:end])
        found = read_plan(study)
        assert found.plan == make_plan(TWO)
        (note,) = found.notes
        assert f"{file} is damaged" in note


@MOST_CUTS
def test_a_plan_whose_two_files_are_cut_is_an_error_that_says_so(
    study: StudyDirectory, most: int
) -> None:
    write_manifest(study, make_plan(TWO))
    write_plan(study, make_plan(TWO))
    whole = study.manifest.read_bytes()
    for end in cuts(len(whole) - 1, most):
        study.manifest.write_bytes(whole[:end])
        study.plan.write_bytes(whole[:end])
        with pytest.raises(StudyError, match="the plan of the study is lost") as caught:
            read_plan(study)
        assert "came from outside" in caught.value.message
        assert f"{study.plan} is damaged" in caught.value.message
        assert str(study.experiments) in caught.value.message


def test_a_plan_without_its_manifest_is_found(study: StudyDirectory) -> None:
    write_plan(study, make_plan(TWO))
    found = read_plan(study)
    assert (found.plan, len(found.notes)) == (make_plan(TWO), 1)


def test_a_study_of_an_earlier_version_has_its_manifest_alone(study: StudyDirectory) -> None:
    write_manifest(study, make_plan(TWO))
    assert read_plan(study) == (make_plan(TWO), (), ())


def test_a_plan_that_is_in_place_is_not_written_again(study: StudyDirectory) -> None:
    write_plan(study, make_plan(TWO))
    before = study.plan.stat().st_ino
    write_plan(study, make_plan(TWO))
    assert study.plan.stat().st_ino == before
    more = make_plan(TWO, execution=make_execution(n_cycles=4))
    write_plan(study, more)
    assert read_plan(study).plan == more


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slots": [[1, 2, 1]]}, "a slot names a configuration that is not among the 2"),
        ({"slots": [[1, -1, 1]]}, "a slot names a configuration"),
        ({"slots": [[1, 0]]}, "slots.0"),
        ({"slots": [[10**300, 0, 1]]}, "the number or the cycle of a slot is not from 1 to"),
        ({"slots": [[1, 0, 10**300]]}, "the number or the cycle of a slot is not from 1 to"),
        ({"experiments": [3]}, "not a mapping"),
        ({"generated": None}, "generated"),
        ({"schema_version": "2.0"}, "a later version of llenergymeasure"),
    ],
)
def test_a_manifest_that_was_changed_by_hand_names_what_is_wrong(
    study: StudyDirectory, change: dict[str, object], said: str
) -> None:
    write_manifest(study, make_plan(TWO))
    unsealed(study.manifest, lambda data: data.update(change), "1.0")
    with pytest.raises(StudyError, match=said):
        read_plan(study)


def test_fields_of_a_later_minor_version_are_passed_over(study: StudyDirectory) -> None:
    write_manifest(study, make_plan(TWO))
    rewrite(study.manifest, lambda data: data.update(schema_version="1.7", colour="red"))
    assert read_plan(study).plan.slots == make_plan(TWO).slots


def test_the_directory_of_a_slot_does_not_depend_on_how_many_there_are(
    study: StudyDirectory,
) -> None:
    slots = (Slot(9999, 0, 1), Slot(10000, 1, 2))
    plan = make_plan(TWO, slots=slots)
    names = [plan.directory(study, slot).root.name for slot in slots]
    assert names == ["9999_scripted_bf16_bs1_c1", "10000_scripted_bf16_bs8_c2"]


# Two files that disagree --------------------------------------------------------------------------


def both(study: StudyDirectory, plan: StudyPlan) -> None:
    write_manifest(study, plan)
    write_plan(study, plan)


@MOST_CUTS
@pytest.mark.parametrize("alone", [False, True])
def test_no_other_digit_in_a_plan_is_believed(
    study: StudyDirectory, most: int, alone: bool
) -> None:
    whole, counts = make_plan(TWO), Counts()
    both(study, whole)
    if alone:
        study.plan.unlink()
    for file in (study.manifest, *(() if alone else (study.plan,))):
        content = file.read_bytes()
        every = list(other_digits(content))
        for index in cuts(len(every), most):
            file.write_bytes(every[index][1])
            try:
                found = read_plan(study)
            except StudyError:
                counts["noticed"] += 1
            else:
                taken = "noticed" if found.notes else "harmless"
                counts[taken if found.plan == whole else "believed"] += 1
        file.write_bytes(content)
    print(f"digits of a plan, {'alone' if alone else 'with its twin'}: {counts}")
    assert counts["believed"] == 0
    assert counts["noticed"] == counts.total()


def test_a_plan_that_was_changed_is_taken_from_its_twin_and_to_be_kept(
    study: StudyDirectory,
) -> None:
    both(study, make_plan(TWO))
    study.manifest.write_text(study.manifest.read_text().replace('"n":null', '"n":101'))
    found = read_plan(study)
    assert (found.plan, found.rejected) == (make_plan(TWO), (study.manifest,))
    assert f"{study.manifest} is damaged (what it holds has the checksum" in found.notes[0]
    assert "what is damaged is kept under a number" in found.notes[0]


def other_n(data: dict[str, Any]) -> None:
    data["common"]["n"] = 101


def other_seed(data: dict[str, Any]) -> None:
    data["execution"]["seed"] = 8


@pytest.mark.parametrize("wrong", ["manifest", "plan"])
def test_of_two_plans_without_a_checksum_the_results_decide(
    study: StudyDirectory, wrong: str
) -> None:
    plan = make_plan(TWO)
    both(study, plan)
    finish(plan.directory(study, plan.slots[3]), plan.config(plan.slots[3]))
    for file in (study.manifest, study.plan):
        unsealed(file, other_n if file == getattr(study, wrong) else lambda _: None, "1.0")
    right = study.plan if wrong == "manifest" else study.manifest
    found = read_plan(study)
    assert (found.plan.experiments, found.rejected) == (TWO, (getattr(study, wrong),))
    assert f"the results are those of {right.name}, which is taken" in found.notes[0]
    values = "101 and None" if wrong == "manifest" else "None and 101"
    assert f"disagree (experiments.0.n: {values}; experiments.1.n: {values})" in found.notes[0]


def test_two_plans_of_which_no_result_tells_which_is_right_are_refused(
    study: StudyDirectory,
) -> None:
    both(study, make_plan(TWO))
    unsealed(study.manifest, other_seed, "1.0")
    with pytest.raises(StudyError, match="no result tells which is right") as caught:
        read_plan(study)
    assert "disagree (execution.seed: 8 and 7)" in caught.value.message
    assert "put the right value into the one that is wrong, or take it away" in caught.value.message


def test_a_run_that_was_broken_off_between_the_two_files_goes_on_with_the_later(
    study: StudyDirectory,
) -> None:
    before = make_plan(TWO)
    both(study, before)
    more = make_plan(TWO, execution=make_execution(n_cycles=4, config_gap_seconds=9.0))
    write_plan(study, more)
    found = read_plan(study)
    assert (found.plan, found.rejected) == (more, ())
    assert "the latter was written last, and is taken" in found.notes[0]


def test_a_plan_of_another_study_is_told_by_the_place_of_the_results(
    study: StudyDirectory,
) -> None:
    plan = make_plan(TWO)
    write_plan(study, plan)
    write_manifest(study, make_plan(TWO, created_at=CREATED + timedelta(1)))
    slot = plan.slots[0]
    finish(plan.directory(study, slot), plan.config(slot), place=plan.place(slot))
    found = read_plan(study)
    assert (found.plan, found.rejected) == (plan, (study.manifest,))


def test_a_plan_that_cannot_be_read_stands_in_the_way(study: StudyDirectory) -> None:
    write_plan(study, make_plan(TWO))
    study.manifest.symlink_to(study.manifest.name)
    with pytest.raises(StudyError, match=r"cannot be read .*; mend that or take it away"):
        read_plan(study)


def test_a_plan_that_has_lost_its_checksum_is_damaged(study: StudyDirectory) -> None:
    both(study, make_plan(TWO))
    data = json.loads(study.manifest.read_text())
    study.manifest.write_text(json.dumps({k: v for k, v in data.items() if k != "sha256"}))
    assert "it has lost its checksum" in read_plan(study).notes[0]


def test_the_id_of_a_study_outlives_more_cycles_and_its_files(study: StudyDirectory) -> None:
    plan = make_plan(TWO)
    both(study, plan)
    more = make_plan(TWO, execution=make_execution(n_cycles=4))
    slot = plan.slots[-1]
    assert read_plan(study).plan.place(slot) == more.place(slot) == plan.place(slot)
    other = make_plan(TWO, created_at=CREATED + timedelta(seconds=1))
    assert other.place(slot).study != plan.place(slot).study


def lines(count: int) -> list[ProgressLine]:
    return [
        ProgressLine(slot=n, status="complete", at=CREATED + timedelta(n), duration_s=1.5)
        for n in range(1, count + 1)
    ]


def note(study: StudyDirectory, *noted: ProgressLine) -> None:
    log = ProgressLog(study.progress)
    for line in noted:
        log.note(line)
    log.close()


@MOST_CUTS
def test_progress_cut_at_any_byte_keeps_the_lines_before_and_those_after(
    study: StudyDirectory, most: int
) -> None:
    three = lines(3)
    note(study, *three)
    whole = study.progress.read_bytes()
    later = ProgressLine(slot=9, status="failed", at=CREATED, code="backend")
    for end in cuts(len(whole) + 1, most):
        study.progress.write_bytes(whole[:end])
        note(study, later)
        found = read_progress(study.progress)
        kept = whole[: end + 1].count(b"\n")  # a line that lacks its line break only is whole
        assert found == (*three[:kept], later), end


def test_a_line_of_progress_costs_the_same_whatever_was_there(study: StudyDirectory) -> None:
    note(study, *lines(1))
    first = study.progress.stat().st_size
    note(study, *lines(1) * 99)
    assert study.progress.stat().st_size == 100 * first


def test_no_progress_yet_is_no_error(study: StudyDirectory) -> None:
    assert read_progress(study.progress) == ()


def test_a_disk_that_refuses_progress_is_logged_once(
    study: StudyDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    study.progress.mkdir()
    note(study, *lines(3))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_execution_is_taken_from_anything_with_its_fields() -> None:
    execution = make_execution()
    assert type(execution).model_validate(execution, from_attributes=True) == execution
