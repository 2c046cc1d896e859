"""The plan of a study comes back as it was written, and damage is told as such."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.study_result import Skipped
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.manifest import (
    ProgressLine,
    ProgressLog,
    ProgressView,
    Slot,
    StudyPlan,
    manifest_text,
    read_plan,
    read_progress,
    write_manifest,
    write_plan,
)
from tests.support.samples import MOST_CUTS, cuts
from tests.support.study_on_disk import CREATED, make_execution, make_plan, scripted

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
    assert data["common"]["n"] == 100, "defaults of this version are written out"
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
    assert read_plan(study) == (make_plan(TWO), ())


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
        ({"experiments": [3]}, "not a mapping"),
        ({"generated": None}, "generated"),
        ({"schema_version": "2.0"}, "a later version of llenergymeasure"),
    ],
)
def test_a_manifest_that_was_changed_by_hand_names_what_is_wrong(
    study: StudyDirectory, change: dict[str, object], said: str
) -> None:
    write_manifest(study, make_plan(TWO))
    data = json.loads(study.manifest.read_text())
    study.manifest.write_text(json.dumps({**data, **change}))
    with pytest.raises(StudyError, match=said):
        read_plan(study)


def test_fields_of_a_later_minor_version_are_passed_over(study: StudyDirectory) -> None:
    write_manifest(study, make_plan(TWO))
    data = json.loads(study.manifest.read_text())
    study.manifest.write_text(json.dumps({**data, "schema_version": "1.7", "colour": "red"}))
    assert read_plan(study).plan.slots == make_plan(TWO).slots


def test_the_directory_of_a_slot_does_not_depend_on_how_many_there_are(
    study: StudyDirectory,
) -> None:
    slots = (Slot(9999, 0, 1), Slot(10000, 1, 2))
    plan = make_plan(TWO, slots=slots)
    names = [plan.directory(study, slot).root.name for slot in slots]
    assert names == ["9999_scripted_bf16_bs1_c1", "10000_scripted_bf16_bs8_c2"]


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
