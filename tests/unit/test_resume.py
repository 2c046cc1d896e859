"""What a resume finds and what it makes of it, whatever a crash has left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.exceptions import ExperimentError, FlagError, StudyError
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import DirectoryRepository, read_failure
from llenergymeasure.study.collect import SlotOutcome, study_result
from llenergymeasure.study.manifest import Slot
from llenergymeasure.study.resume import (
    ResultReader,
    SlotState,
    count,
    is_whole,
    kept_results,
    look,
    make_ready,
    outcome,
    replaced,
    scan,
    set_aside,
)
from tests.support.edits import rewrite, unsealed
from tests.support.samples import MOST_CUTS, cuts
from tests.support.study_on_disk import (
    CREATED,
    break_off,
    finish,
    make_plan,
    make_study,
    names,
    scripted,
)

ONE, EIGHT = scripted(1), scripted(8)
PLAN = make_plan([ONE, EIGHT])


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    return make_study(tmp_path / "study", PLAN)


@pytest.fixture
def directory(tmp_path: Path) -> ExperimentDirectory:
    return ExperimentDirectory(tmp_path / "experiment")


def complete(directory: ExperimentDirectory) -> SlotState:
    return SlotState(Slot(1, 0, 1), directory, "complete")


def test_each_slot_is_complete_failed_or_missing(study: StudyDirectory) -> None:
    where = [PLAN.directory(study, slot) for slot in PLAN.slots]
    finish(where[0], ONE)
    break_off(where[1], EIGHT, "backend")
    break_off(where[2], ONE, "interrupted")
    where[3].root.mkdir()
    finish(where[4], ONE)
    break_off(where[4], ONE, "backend")

    states = scan(PLAN, study)
    assert [state.status for state in states] == [
        "complete", "failed", "missing", "missing", "complete", "missing",
    ]  # fmt: skip
    assert [state.slot for state in states] == list(PLAN.slots)
    view = count(states, CREATED)
    assert (view.complete, view.failed, view.missing) == (2, 1, 3)


def test_looking_changes_nothing(study: StudyDirectory) -> None:
    break_off(PLAN.directory(study, PLAN.slots[0]), ONE, "interrupted")
    before = sorted(study.root.rglob("*"))
    scan(PLAN, study)
    assert sorted(study.root.rglob("*")) == before


def test_a_study_whose_directory_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is gone"):
        scan(PLAN, StudyDirectory(tmp_path / "absent"))


@MOST_CUTS
def test_a_result_cut_at_any_byte_is_not_whole(directory: ExperimentDirectory, most: int) -> None:
    finish(directory, ONE)
    whole = directory.result.read_bytes()
    for end in cuts(len(whole) - 1, most):  # without the last line break it is whole
        directory.result.write_bytes(whole[:end])
        assert not is_whole(directory.result), end
    directory.result.write_bytes(whole[:-1])
    assert is_whole(directory.result)


def test_a_result_that_another_program_has_written_on_one_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"a": {"b": 1}}')
    assert is_whole(path)
    path.write_text('{"a": {"b": 1}')
    assert not is_whole(path)


def test_a_cut_result_is_missing_and_set_aside_before_the_next_attempt(
    study: StudyDirectory,
) -> None:
    directory = PLAN.directory(study, PLAN.slots[0])
    finish(directory, ONE)
    directory.result.write_bytes(directory.result.read_bytes()[:-300])
    assert scan(PLAN, study)[0].status == "missing"
    assert make_ready(directory, ONE)
    assert names(directory) == {"result.malformed.1.json"}


def test_each_old_error_is_kept_with_its_log(directory: ExperimentDirectory) -> None:
    for attempt in (1, 2):
        break_off(directory, ONE, "backend")
        directory.log.write_text(f"attempt {attempt}")
        assert make_ready(directory, ONE)
    assert names(directory) == {"error.1.json", "error.2.json", "log.1.txt", "log.2.txt"}
    assert (directory.root / "log.2.txt").read_text() == "attempt 2"


def test_an_interrupted_attempt_leaves_nothing_but_what_others_put_there(
    directory: ExperimentDirectory,
) -> None:
    break_off(directory, ONE, "interrupted")
    (directory.root / "notes.txt").write_text("mine")
    (directory.root / ".worker.lock").write_text("{}")
    directory.process(0).write_text("{}")
    directory.process_log(1).write_text("loading")
    assert make_ready(directory, ONE)
    assert names(directory) == {"notes.txt", "process_0.1.json"}, "raw samples are kept"


def test_an_error_that_cannot_be_read_is_a_failure_and_kept(study: StudyDirectory) -> None:
    directory = PLAN.directory(study, PLAN.slots[0])
    break_off(directory, ONE, "backend")
    whole = directory.error.read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole) - 3):
        directory.error.write_bytes(whole[:end])
        state = scan(PLAN, study)[0]
        found = outcome(state, ONE)
        assert isinstance(found, FailedExperiment)
        assert (state.status, found.code) == ("failed", "malformed")
    make_ready(directory, ONE)
    assert "error.1.json" in names(directory)


def test_a_result_that_came_meanwhile_is_neither_run_again_nor_touched(
    directory: ExperimentDirectory,
) -> None:
    finish(directory, ONE)
    before = directory.result.read_bytes()
    assert not make_ready(directory, ONE)
    assert directory.result.read_bytes() == before


def test_a_directory_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="--resume goes on"):
        make_ready(ExperimentDirectory(tmp_path / "file" / "0001"), ONE)


def test_what_an_experiment_left_is_read(study: StudyDirectory) -> None:
    where = [PLAN.directory(study, slot) for slot in PLAN.slots]
    finish(where[0], ONE)
    break_off(where[1], EIGHT, "backend")
    states = scan(PLAN, study)
    found = [outcome(state, PLAN.config(state.slot)) for state in states]
    assert isinstance(found[0], ExperimentResult)
    assert isinstance(found[1], FailedExperiment)
    assert (found[1].code, found[1].config) == ("backend", EIGHT)
    assert found[2:] == [None] * 4


@pytest.mark.parametrize("damage", [b"\0", b"["])
def test_a_result_damaged_inside_is_a_failure_that_a_resume_runs_again(
    directory: ExperimentDirectory, damage: bytes
) -> None:
    finish(directory, ONE)
    content = directory.result.read_bytes()
    middle = content.index(b'"', len(content) // 2)
    directory.result.write_bytes(content[:middle] + damage + content[middle + 1 :])
    assert is_whole(directory.result), "a look at the end does not see it"
    found = outcome(complete(directory), ONE)
    assert isinstance(found, FailedExperiment)
    assert found.code == "malformed"
    assert "--resume runs it again" in found.message
    assert names(directory) == {"result.json"}, "looking changes nothing"
    assert make_ready(directory, ONE)
    assert names(directory) == {"result.malformed.1.json"}


def test_the_result_of_another_configuration_is_not_counted(
    directory: ExperimentDirectory,
) -> None:
    finish(directory, EIGHT)
    found = outcome(complete(directory), ONE)
    assert isinstance(found, FailedExperiment)
    assert "is the result of another configuration" in found.message
    assert directory.result.exists(), "looking changes nothing"
    assert make_ready(directory, ONE)
    assert names(directory) == {"result.malformed.1.json"}


def test_a_result_whose_hash_was_made_by_other_rules_is_still_of_its_configuration(
    directory: ExperimentDirectory,
) -> None:
    finish(directory, ONE)
    rewrite(directory.result, lambda data: data.update(measurement_config_hash="f" * 16))
    found = outcome(complete(directory), ONE)
    assert isinstance(found, ExperimentResult)
    assert found.measurement_config_hash != ONE.fingerprint()
    assert not make_ready(directory, ONE)


def test_the_directory_of_a_study_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path / "study")
    with pytest.raises(StudyError, match="study is gone; put it back"):
        make_ready(PLAN.directory(study, PLAN.slots[0]), ONE)
    assert not study.root.exists()


def test_what_cannot_be_read_is_left_to_run(study: StudyDirectory) -> None:
    where = [PLAN.directory(study, slot) for slot in PLAN.slots]
    for slot in PLAN.slots[:3]:
        finish(where[slot.number - 1], PLAN.config(slot))
    finish(where[1], ONE)
    found = look(PLAN, study)
    assert [state.slot.number for state, _ in found.complete] == [1, 3]
    assert [(state.slot.number, state.status) for state in found.left] == [
        (2, "failed"), (4, "missing"), (5, "missing"), (6, "missing"),
    ]  # fmt: skip


def test_equal_lists_of_packages_are_kept_once(study: StudyDirectory) -> None:
    for slot in PLAN.slots[:2]:
        finish(PLAN.directory(study, slot), PLAN.config(slot))
    one, other = look(PLAN, study).complete
    assert one[1].environment.packages is other[1].environment.packages


# What is kept, and what stands in the way ---------------------------------------------------------


def with_samples(directory: ExperimentDirectory, word: str) -> None:
    for path in (directory.requests, directory.timeseries, directory.log):
        path.write_text(word)


def test_each_damaged_result_keeps_a_number_of_its_own_with_its_samples(
    directory: ExperimentDirectory,
) -> None:
    for attempt in ("first", "second"):
        finish(directory, EIGHT)
        with_samples(directory, attempt)
        assert make_ready(directory, ONE)
    assert names(directory) == {
        f"{name}.malformed.{number}.{ending}"
        for number in (1, 2)
        for name, ending in (
            ("result", "json"), ("requests", "parquet"), ("timeseries", "parquet"), ("log", "txt"),
        )
    }  # fmt: skip
    assert (directory.root / "requests.malformed.2.parquet").read_text() == "second"
    assert kept_results(directory) == ("result.malformed.1.json", "result.malformed.2.json")


def test_raw_samples_of_a_failed_attempt_are_kept_with_its_error(
    directory: ExperimentDirectory,
) -> None:
    break_off(directory, ONE, "backend")
    with_samples(directory, "measured")
    directory.process(1).write_text("{}")
    assert make_ready(directory, ONE)
    assert names(directory) == {
        "error.1.json", "log.1.txt", "requests.1.parquet", "timeseries.1.parquet",
        "process_1.1.json",
    }  # fmt: skip
    assert make_ready(directory, ONE)
    assert len(names(directory)) == 5, "what was kept stays where it is"


def test_a_good_result_is_kept_on_request(directory: ExperimentDirectory) -> None:
    finish(directory, ONE)
    assert set_aside(directory) == 1
    assert names(directory) == {"result.1.json"}
    assert set_aside(directory) is None
    assert kept_results(directory) == (), "it was neither damaged nor another's"


def strange(study: StudyDirectory) -> str:
    before = sorted(study.root.rglob("*"))
    with pytest.raises(StudyError, match="and nothing was touched") as caught:
        look(PLAN, study)
    assert sorted(study.root.rglob("*")) == before
    return caught.value.message


def test_a_result_of_a_later_version_stands_in_the_way(study: StudyDirectory) -> None:
    directory = PLAN.directory(study, PLAN.slots[0])
    finish(directory, ONE)
    rewrite(directory.result, lambda data: data.update(schema_version="9.1"))
    assert "has schema 9.1; this version of llenergymeasure reads up to 2.1" in strange(study)
    with pytest.raises(StudyError, match=r"schema 9\.1"):
        make_ready(directory, ONE)
    assert names(directory) == {"result.json"}


def test_a_result_that_cannot_be_read_stands_in_the_way(study: StudyDirectory) -> None:
    directory = PLAN.directory(study, PLAN.slots[0])
    directory.root.mkdir(parents=True)
    directory.result.symlink_to("result.json")
    assert "cannot be read: Too many levels of symbolic links" in strange(study)


def test_results_that_all_agree_with_each_other_and_not_with_the_plan_stand_in_the_way(
    study: StudyDirectory,
) -> None:
    for slot in PLAN.slots:
        directory, other = PLAN.directory(study, slot), scripted(3)
        finish(directory, other)
        directory.config.write_text(json.dumps({"config": other.model_dump(mode="json")}))
    told = strange(study)
    assert told.startswith("6 results are not understood")
    assert "scripted.batch_size: 1 in the plan, 3 in it" in told
    assert "put back the plan that was there" in told


def test_the_result_of_another_study_stands_in_the_way(study: StudyDirectory) -> None:
    slot = PLAN.slots[0]
    elsewhere = PLAN.place(slot).model_copy(update={"study": "0" * 16})
    finish(PLAN.directory(study, slot), ONE, place=elsewhere)
    assert "is the result of another study" in strange(study)


def test_a_result_of_another_cycle_does_not_count_twice(study: StudyDirectory) -> None:
    first, _, third = PLAN.slots[:3]  # the same configuration, a cycle later
    finish(PLAN.directory(study, first), ONE, place=PLAN.place(first))
    finish(PLAN.directory(study, third), ONE, place=PLAN.place(first))
    found = look(PLAN, study)
    assert [state.slot for state, _ in found.complete] == [first]
    (note,) = found.notes()
    assert "is the result of slot 1 in cycle 1, and lies where that of another belongs" in note
    assert "it is kept under a number, and the experiment runs again" in note
    assert make_ready(PLAN.directory(study, third), ONE, PLAN.place(third))
    assert not make_ready(PLAN.directory(study, first), ONE, PLAN.place(first))


def test_a_copy_of_a_result_that_knows_no_place_does_not_count_twice(
    study: StudyDirectory,
) -> None:
    where = [PLAN.directory(study, PLAN.slots[number]) for number in (0, 2)]
    finish(where[0], ONE)
    where[1].root.mkdir(parents=True)
    where[1].result.write_bytes(where[0].result.read_bytes())
    found = look(PLAN, study)
    assert [state.slot.number for state, _ in found.complete] == [1]
    assert f"{where[1].result} is a copy of {where[0].result}" in next(found.notes())
    reader, (state, _) = ResultReader(PLAN), found.complete[0]
    assert reader.read(state) == reader.read(state), "one that is read again is no copy"


def test_a_result_cut_short_is_told(study: StudyDirectory) -> None:
    directory = PLAN.directory(study, PLAN.slots[1])
    finish(directory, EIGHT)
    directory.result.write_bytes(directory.result.read_bytes()[:-300])
    assert f"{directory.result} is cut short" in next(look(PLAN, study).notes())


def test_a_result_that_was_changed_is_told_with_what_is_done_and_nothing_else_to_do(
    study: StudyDirectory,
) -> None:
    directory = PLAN.directory(study, PLAN.slots[1])
    finish(directory, EIGHT)
    text = directory.result.read_text(encoding="utf-8")
    directory.result.write_text(text.replace('"passes": ', '"passes": 1'), encoding="utf-8")
    note = next(look(PLAN, study).notes())
    assert f"{directory.result} was changed since it was written" in note
    assert note.endswith("; it is kept under a number, and the experiment runs again")
    assert "Put the file back" not in note


def test_a_number_too_large_costs_one_result_and_not_the_study(study: StudyDirectory) -> None:
    for slot in PLAN.slots:
        finish(PLAN.directory(study, slot), PLAN.config(slot))
    for number, value in ((0, 10**30), (1, 1e308), (2, 10**400)):
        unsealed(
            PLAN.directory(study, PLAN.slots[number]).result,
            lambda data, value=value: data["throughput"].update(output_tokens=value),
            "2.0",
        )
    found = look(PLAN, study)
    assert [state.slot.number for state, _ in found.complete] == [4, 5, 6]
    outcomes = [
        SlotOutcome(state.slot, ResultReader(PLAN).read(state)) for state in scan(PLAN, study)
    ]
    study_result(PLAN, outcomes).to_arrow()


def test_an_error_that_was_changed_is_not_believed(directory: ExperimentDirectory) -> None:
    failure = FailedExperiment(config=ONE, phase="load", code="backend", message="it broke")
    directory.root.mkdir()
    DirectoryRepository(directory).save_failure(failure)
    assert read_failure(directory.error) == failure
    text = directory.error.read_text()
    directory.error.write_text(text.replace("it broke", "it works"))
    with pytest.raises(ExperimentError, match="it is damaged"):
        read_failure(directory.error)


def test_a_complete_slot_that_is_asked_for_again_is_left_to_run_in_the_order_of_the_plan(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path / "again", PLAN, complete=[1, 2, 4])
    found = look(PLAN, study).again([2])
    assert [state.slot.number for state, _ in found.complete] == [1, 4]
    assert [(state.slot.number, state.status) for state in found.left] == [
        (2, "complete"), (3, "missing"), (5, "missing"), (6, "missing"),
    ]  # fmt: skip
    with pytest.raises(FlagError, match="--again 7: the plan has no such slot, only 1 to 6"):
        look(PLAN, study).again([7])


def test_what_is_run_again_keeps_its_old_result_under_the_next_number(
    directory: ExperimentDirectory,
) -> None:
    for attempt in (1, 2):
        finish(directory, ONE)
        directory.requests.write_text(f"samples {attempt}")
        directory.log.write_text(f"attempt {attempt}")
        assert make_ready(directory, ONE, again=True)
    kept = {f"{name}.{n}.{kind}" for n in (1, 2) for name, kind in (
        ("result", "json"), ("requests", "parquet"), ("log", "txt"),
    )}  # fmt: skip
    assert kept <= names(directory)
    assert not directory.result.exists()
    assert (directory.root / "requests.2.parquet").read_text() == "samples 2"
    assert replaced(directory) == ("result.1.json", "result.2.json")
