"""What an earlier state of this version left on disk loads, goes on, and says what it said."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import ExperimentResult, StudyResult
from llenergymeasure.domain.study_result import STUDY_SCHEMA_VERSION
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from tests.support.cli import Llem
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import V100
from tests.support.study_run import Left

STORED = Path(__file__).parents[1] / "data" / "stored_2.0"
SINGLE = ("experiment", "pytorch")
STUDIES = ("study", "with-a-failure")


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def copied(llem: Llem, name: str) -> Left:
    """Copy a study to where a command may go on with it."""
    shutil.copytree(STORED / name, llem.folder / "results" / name)
    return Left.by(llem)


def printed(name: str) -> str:
    """Give what the run that was stored printed, without the line that says where it lies."""
    return without_place((STORED / f"{name}.txt").read_text(encoding="utf-8"))


def without_place(text: str) -> str:
    return text[: text.rindex("results in ")].rstrip()


def without_paths(summary: dict[str, Any]) -> dict[str, Any]:
    """Name each experiment by its own directory: the study's has moved."""
    files = [Path(file).parent.name for file in summary["result_files"]]
    failed = [{**one, "directory": Path(one["directory"]).name} for one in summary["failed"]]
    return {**summary, "result_files": files, "failed": failed}


def read(path: Path | str) -> dict[str, Any]:
    """Read JSON, fractions to nine digits: where they come from may round the last otherwise."""
    text = path if isinstance(path, str) else path.read_text(encoding="utf-8")
    return dict(json.loads(text, parse_float=lambda figure: float(f"{float(figure):.9g}")))


def known_to(stored: Any, again: Any) -> Any:
    """Leave out of what was loaded the fields that came later."""
    if isinstance(stored, dict):
        return {name: known_to(stored[name], again[name]) for name in stored if name in again}
    if isinstance(stored, list) and len(stored) == len(again):
        return [known_to(one, other) for one, other in zip(stored, again, strict=True)]
    return again


def but_for_comparisons(text: str) -> str:
    """Leave out of a report how wide intervals of comparisons are, and what could be shown."""
    text = re.sub(r"(?m)^  A difference of .*\n(    .*\n)*", "", text)
    return re.sub(r"\(\S+ to \S+\)", "( to )", text)


def stored_summary(name: str) -> dict[str, Any]:
    """Give what was stored in the schema of today: since 2.1 notes are records."""
    stored = read(StudyDirectory(STORED / name).summary)
    notes = [
        {"kind": "other", "text": note, "about": [], "remedy": None} for note in stored["notes"]
    ]
    return {**stored, "schema_version": STUDY_SCHEMA_VERSION, "notes": notes}


@pytest.mark.parametrize("name", SINGLE)
def test_an_experiment_loads_unchanged_and_reads_as_it_did(name: str) -> None:
    directory = ExperimentDirectory(STORED / name)
    result = ExperimentResult.from_json(directory.root)
    stored = json.loads(directory.result.read_bytes())
    assert known_to(stored, json.loads(result.model_dump_json())) == stored
    said, old, _ = result.summary().partition("\n\nOld rules")
    assert said.rstrip() == printed(name)
    assert bool(old) == (name == "pytorch"), "the other one loaded no model"


def test_every_result_of_a_study_loads_unchanged() -> None:
    files = sorted(STORED.glob("*/experiments/*/result.json"))
    assert len(files) == 9 + 2
    for file in files:
        result = ExperimentResult.from_json(file)
        stored = json.loads(file.read_bytes())
        assert known_to(stored, json.loads(result.model_dump_json())) == stored
        assert result.config.fingerprint() == result.measurement_config_hash


@pytest.mark.parametrize("name", STUDIES)
def test_the_summary_of_a_study_loads_and_reads_as_it_did(name: str) -> None:
    study = StudyResult.model_validate_json(StudyDirectory(STORED / name).summary.read_bytes())
    again, stored = read(study.model_dump_json()), stored_summary(name)
    assert known_to(stored, again) == stored
    text = study.summary()
    said = but_for_comparisons(printed(name)).splitlines()
    assert not set(said) - set(but_for_comparisons(text).splitlines())
    by_an_earlier_rule = bool(study.sensitivity)
    assert ("- by an earlier rule: the differences that show" in text) == by_an_earlier_rule
    assert StudyResult.model_validate_json(study.model_dump_json()) == study


def test_a_finished_study_resumes_with_nothing_to_run_and_says_what_it_said(llem: Llem) -> None:
    left = copied(llem, "study")
    before = left.results

    done = llem("run", "--resume", left.path)

    assert done.code == 0, done.err
    assert "9 experiments, 9 already done" in done.err
    assert left.results == before
    rankings, now = (
        but_for_comparisons(text).partition("TTFT")[0] for text in (printed("study"), done.out)
    )
    lines = {line.replace("!", " ", 1).strip() for line in now.splitlines()}
    assert not {line.strip() for line in rankings.splitlines()} - lines
    assert {one["code"] for one in read(left.study.summary)["trust"]} >= {"window_short"}
    summary, stored = read(left.study.summary), stored_summary("study")
    (note,) = summary["notes"]
    assert note["kind"] == "work"
    told = {**summary, "notes": [{**note, "kind": "other"}]}
    by_new_rules = {"comparisons", "sensitivity"}
    again, before_it = without_paths(told), without_paths(stored)
    for field in before_it.keys() - by_new_rules:
        assert known_to(before_it[field], again[field]) == before_it[field], field
    for one, other in zip(again["comparisons"], before_it["comparisons"], strict=True):
        same = ("metric", "a", "b", "ratio", "verdict")
        assert [one[name] for name in same] == [other[name] for name in same]
    assert again["earlier_rules"] == []
    assert left.study.table.is_file()


def test_what_failed_is_tried_again_and_a_cycle_is_added(llem: Llem) -> None:
    left = copied(llem, "with-a-failure")
    before = left.results

    done = llem("run", "--resume", left.path, "--cycles", "3")

    assert done.code == 1, done.err  # it fails again, as its script says
    assert "3 cycles instead of 2: 2 more experiments" in done.err
    assert before.items() <= left.results.items()
    assert len(left.results) == 3
    (one,) = [one for one in left.summary["configurations"] if one["n_cycles"]]
    assert one["n_cycles"] == 3
    assert {(each["slot"], each["phase"]) for each in left.summary["failed"]} == {
        (slot, "measure") for slot in (2, 4, 6)
    }


@pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))
def test_a_cycle_is_added_to_measured_energy_and_the_old_ones_stay(llem: Llem) -> None:
    node = SimulatedNode(llem.folder, [Board(V100)])
    node.set_load(180.0)
    llem.environment |= node.environment
    left = copied(llem, "study")
    before = left.results

    done = llem("run", "--resume", left.path, "--cycles", "4", "--no-gaps", timeout_s=120)

    assert done.code == 0, done.err
    assert before.items() <= left.results.items()
    summary, stored = left.summary, stored_summary("study")
    assert summary["ran"] == 12
    assert summary["study_design_hash"] == stored["study_design_hash"]
    assert [one["n_cycles"] for one in summary["configurations"]] == [4, 4, 4]
    new = [one for one in left.results if one not in before]
    for name in new:
        energy = ExperimentResult.from_json(left.study.experiment(name).root).energy
        assert energy.interval95_j is not None
        assert energy.mean_power_w == pytest.approx(180.0, rel=0.05)
