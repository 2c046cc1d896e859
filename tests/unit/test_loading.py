"""Results that are loaded and shown again, from stored directories of an earlier version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llenergymeasure.cli.app import main
from llenergymeasure.domain.results import ExperimentResult, StudyResult
from llenergymeasure.exceptions import LLEMError, StudyError
from llenergymeasure.study.loading import load_results

STORED = Path(__file__).parents[1] / "data" / "stored_2.0"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A copy of a study of three configurations and three cycles."""
    return Path(shutil.copytree(STORED / "study", tmp_path / "study"))


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a directory, with its time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command here; give its code, its output and its errors."""
    with pytest.raises(SystemExit) as end:
        main(["report", *arguments])
    done = capsys.readouterr()
    return int(end.value.code or 0), done.out, done.err


def test_a_study_is_shown_again_from_its_directory_and_nothing_is_written(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(study)
    code, out, err = said(capsys, str(study))
    assert (code, err) == (0, "")
    assert out == StudyResult.from_json(study).summary() + "\n"
    assert tree(study) == before


@pytest.mark.parametrize("name", ["", "study_summary.json", "study_manifest.json"])
def test_figures_are_those_that_the_study_stored(study: Path, name: str) -> None:
    loaded = StudyResult.from_json(study / name)
    stored = json.loads((study / "study_summary.json").read_text())
    assert len(loaded.experiments) == loaded.ran == stored["ran"] == 9
    for one, was in zip(loaded.configurations, stored["configurations"], strict=True):
        assert {key: one.figures[key].mean for key in was["figures"]} == {
            key: figure["mean"] for key, figure in was["figures"].items()
        }


def test_a_study_that_still_runs_is_shown_as_far_as_it_has_come(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = sorted((study / "experiments").iterdir())[-1]
    shutil.rmtree(last)
    (study / "study_summary.json").unlink()
    code, out, err = said(capsys, str(study))
    assert code == 0
    assert "8 experiments ran, 1 missing" in out
    assert err == f"llem: 1 of 9 experiments of {study} have no result yet\n"


def test_a_changed_result_is_told_and_in_no_figure(study: Path) -> None:
    result = sorted((study / "experiments").iterdir())[0] / "result.json"
    result.write_text(result.read_text().replace('"model": "m"', '"model": "x"'))
    loaded = StudyResult.from_json(study)
    assert (loaded.ran, len(loaded.failed)) == (8, 1)
    assert str(result) in loaded.failed[0].message


def test_an_experiment_is_shown_again_from_its_directory_or_its_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = STORED / "experiment"
    result = ExperimentResult.from_json(folder)
    assert load_results(folder / "result.json") == result
    code, out, _ = said(capsys, str(folder))
    assert (code, out) == (0, result.summary() + "\n")


def test_several_are_shown_one_after_the_other_each_under_its_path(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = sorted((study / "experiments").iterdir())[0]
    code, out, _ = said(capsys, str(study), str(experiment))
    assert code == 0
    assert out.startswith(f"{study}\nStudy stored")
    assert f"\n\n{experiment}\n" in out


def test_json_of_a_study_is_its_summary(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, str(study), "--json")
    assert code == 0
    told = json.loads(out)
    assert told["ran"] == 9
    assert "experiments" not in told


def test_what_holds_no_results_is_told_with_the_way_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StudyError, match=r"there is no .*nosuch; give the directory"):
        load_results(tmp_path / "nosuch")
    with pytest.raises(StudyError, match=r"holds no results of an experiment or of a study"):
        load_results(tmp_path)
    with pytest.raises(StudyError, match=r"there is no .*gone"):
        StudyResult.from_json(tmp_path / "gone")
    code, out, err = said(capsys, str(tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith("llem: ")


def test_a_result_that_was_cut_short_or_is_of_another_schema_is_told(tmp_path: Path) -> None:
    source = next((STORED / "experiment").rglob("result.json"))
    file = tmp_path / "result.json"
    text = source.read_text()
    file.write_text(text[:-40])
    with pytest.raises(LLEMError, match=str(file)):
        load_results(tmp_path)
    file.write_text(text.replace('"schema_version": "2.0"', '"schema_version": "9.0"'))
    with pytest.raises(LLEMError, match=r"9\.0"):
        load_results(tmp_path)


def test_tables_and_a_page_are_written_where_they_are_asked_for(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, page = tmp_path / "table.csv", tmp_path / "page.html"
    code, out, err = said(capsys, str(study), "--csv", str(csv), "--html", str(page))
    assert (code, out) == (0, "")
    assert err == f"llem: page in {page}\nllem: table in {csv}\n"
    assert page.read_text() == StudyResult.from_json(study).to_html()
    assert len(csv.read_text().splitlines()) == 4
    _, out, _ = said(capsys, str(study), "--markdown")
    assert "\n| " in out


def test_a_study_against_itself_passes_its_gate_or_asks_for_more_cycles(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(capsys, str(study), "--against", str(study), "--limit", "energy=50%")
    assert code == 0
    assert "pass" in out
    code, out, _ = said(capsys, str(study), "--against", str(study), "--limit", "energy=0.01%")
    assert code == 3
    assert "cycles" in out
    code, out, _ = said(capsys, str(study), "--against", str(study))
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "energy=5%"], "--limit needs --against BASE"),
        (["again", "--html", "x.html"], "--html takes one PATH, not 2"),
        (["again", "--against", "base"], "--against takes one PATH, not 2"),
        (["--against", str(STORED / "experiment"), "--limit", "energy=5%"], "compares two studies"),
        (["--against", str(STORED / "study"), "--limit", "energi=5%"], "did you mean energy?"),
        (["--against", str(STORED / "study"), "--limit", "energy=5"], "%"),
    ],
)
def test_flags_that_make_no_sense_end_with_code_2(
    study: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = said(capsys, str(study), *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
