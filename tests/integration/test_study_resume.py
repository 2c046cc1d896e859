"""Going on with a study: what is missing, what failed, more cycles, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.manifest import StudyPlan, read_plan
from llenergymeasure.study.resume import StudyState, look
from tests.support.cli import Llem, wait_for
from tests.support.edits import Counts, other_bytes, rewrite
from tests.support.injectors import NAP_AT, is_napping, slow_disk
from tests.support.samples import EXHAUSTIVE
from tests.support.study_run import Left, misbehaving_study, scripted_study

ONE = """
model: m
backend: scripted
energy_backend: none
n: 2
max_new_tokens: 2
warmup: {n_warmup: 0}
scripted: {ttft_ms: 1, itl_ms: 1}
"""


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    llem = Llem(tmp_path_factory.mktemp("measured"))
    assert llem("run", scripted_study(llem)).code == 0
    return llem.folder


@pytest.fixture
def finished(llem: Llem, measured_once: Path) -> Left:
    """A study that is done, free to change; one that has moved goes on like any other."""
    shutil.copytree(measured_once / "results", llem.folder / "results")
    shutil.copy(measured_once / "study.yaml", llem.folder)
    return Left.by(llem)


def test_a_finished_study_measures_nothing_and_prints_its_table(llem: Llem, finished: Left) -> None:
    before, diary = finished.results, finished.progress
    summary = finished.summary

    done = llem("run", "--resume", f"results/{finished.study.root.name}")

    assert done.code == 0, done.err
    said, first, second = done.err.splitlines()
    assert said == f"llem: going on with results/{finished.study.root.name}"
    assert first == "llem: study sizes: 2 configurations, 2 experiments, 2 already done"
    assert second.startswith("llem: results in ")
    assert "Throughput, highest first" in done.out
    assert (finished.results, finished.progress) == (before, diary)
    assert finished.summary == summary


@pytest.mark.parametrize("way", ["directory", "manifest", "parent", "relative", "slash"])
def test_a_study_is_found_by_each_way_of_naming_it(llem: Llem, finished: Left, way: str) -> None:
    root = finished.study.root
    named = {
        "directory": str(root),
        "manifest": str(finished.study.manifest),
        "parent": str(root.parent),
        "relative": f"results/{root.name}",
        "slash": f"{root}/",
    }
    assert llem("run", "--resume", named[way]).code == 0


def test_a_parent_of_several_studies_is_refused_with_their_names(
    llem: Llem, finished: Left
) -> None:
    other = finished.study.root.with_name("other")
    shutil.copytree(finished.study.root, other)
    done = llem("run", "--resume", "results")
    assert (done.code, done.out) == (2, "")
    assert "results holds 2 studies; name one of them:" in done.err
    assert "--resume results/other" in done.err


@pytest.mark.parametrize("path", ["absent", "home"])
def test_a_place_without_a_study_is_refused(llem: Llem, finished: Left, path: str) -> None:
    done = llem("run", "--resume", path)
    assert done.code == 2
    no_study = f"llem: no study in {path}: there is no study_manifest.json"
    assert done.err.splitlines() == [f"llem: going on with {path}", no_study]


def test_a_study_that_moved_goes_on_where_it_is_now(llem: Llem, finished: Left) -> None:
    moved = llem.folder / "elsewhere" / "sizes"
    moved.parent.mkdir()
    finished.study.root.rename(moved)
    (next(moved.glob("experiments/0002_*")) / "result.json").unlink()
    assert llem("run", "--resume", str(moved)).code == 0
    left = Left.by(llem, "elsewhere")
    assert len(left.results) == 2
    assert all((moved / path).is_file() for path in left.summary["result_files"])


def test_more_cycles_top_a_study_up(llem: Llem, finished: Left) -> None:
    before = finished.results

    done = llem("run", "--resume", finished.path, "--cycles", "3")

    assert done.code == 0, done.err
    assert "llem: 3 cycles instead of 1: 4 more experiments" in done.err
    assert before.items() <= finished.results.items()
    assert len(finished.results) == finished.summary["ran"] == 6
    assert [one["n_cycles"] for one in finished.summary["configurations"]] == [3, 3]


def test_fewer_cycles_are_refused(llem: Llem) -> None:
    assert llem("run", scripted_study(llem, cycles=2)).code == 0
    left = Left.by(llem)
    done = llem("run", "--resume", left.path, "--cycles", "1")
    assert done.code == 1
    assert "n_cycles: 2 in the plan, 1 now; cycles can be added, not taken back" in done.err
    assert len(left.results) == 4


def test_another_order_is_refused(llem: Llem, finished: Left) -> None:
    done = llem("run", "--resume", finished.path, "--order", "shuffled")
    assert done.code == 1
    assert "cycle_order: interleaved in the plan, shuffled now" in done.err


@pytest.mark.parametrize(
    ("sweep", "more", "says"),
    [
        ("random_seed: [1, 3]", "", "not in the plan: random_seed 3"),
        ("random_seed: [1]", "", "no longer there: random_seed 2"),
        ("random_seed: [1, 2]", "window: {min_duration_seconds: 1}\n", "min_duration_seconds"),
        ("random_seed: [1, 2]", "cold_start: true\n", "cold_start: False in the plan, True now"),
    ],
)
def test_another_design_is_refused_by_naming_what_differs(
    llem: Llem, finished: Left, sweep: str, more: str, says: str
) -> None:
    manifest = finished.study.manifest.read_bytes()
    text = (llem.folder / "study.yaml").read_text().replace("random_seed: [1, 2]", sweep) + more
    if "cold_start" in more:
        text = text.replace("warmup: {n_warmup: 0}\n", "")
    changed = str(llem.write("changed.yaml", text))

    done = llem("run", changed, "--resume", finished.path)

    assert (done.code, done.out) == (1, "")
    assert "this study cannot be resumed: the design has changed:" in done.err
    assert says in done.err
    assert finished.study.manifest.read_bytes() == manifest


def test_the_same_design_in_another_file_goes_on(llem: Llem, finished: Left) -> None:
    text = (llem.folder / "study.yaml").read_text().replace("[1, 2]", "[2, 1]")
    done = llem("run", str(llem.write("same.yaml", text)), "--resume", finished.path)
    assert done.code == 0, done.err
    assert "2 already done" in done.err


def test_a_flag_that_would_change_the_design_is_refused(llem: Llem, finished: Left) -> None:
    done = llem("run", "--resume", finished.path, "-n", "7")
    assert done.code == 2
    assert "-n would change the design of the study that goes on" in done.err


def test_a_plan_that_is_damaged_in_one_file_is_taken_from_the_other(
    llem: Llem, finished: Left
) -> None:
    plan = finished.study.plan.read_bytes()
    for file in (finished.study.manifest, finished.study.plan):
        file.write_bytes(file.read_bytes()[:300])
        done = llem("run", "--resume", finished.path)
        assert done.code == 0, done.err
        assert f"{file.name} is damaged" in done.err
        assert finished.study.plan.read_bytes() == plan
    assert "is damaged" not in llem("run", "--resume", finished.path).err


def test_a_plan_that_is_lost_is_said_and_the_results_stay(llem: Llem, finished: Left) -> None:
    for file in (finished.study.manifest, finished.study.plan):
        file.write_bytes(file.read_bytes()[:300])
    done = llem("run", "--resume", finished.path)
    assert done.code == 1
    assert "the plan of the study is lost" in done.err
    assert "study_manifest.json is damaged" in done.err
    assert len(finished.results) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "of another"])
def test_a_result_that_is_damaged_is_kept_aside_and_measured_again(
    llem: Llem, finished: Left, damage: str
) -> None:
    first, second = sorted(finished.study.experiments.glob("*/result.json"))
    whole = second.read_bytes()
    second.write_bytes(
        {"cut": whole[:-300], "empty": b"", "of another": first.read_bytes()}[damage]
    )

    done = llem("run", "--resume", finished.path)

    assert done.code == 0, done.err
    assert "result.malformed.1.json" in finished.names("0002")
    assert len(finished.results) == finished.summary["ran"] == 2


def test_two_resumes_at_once_the_second_is_refused_and_told_of_the_first(llem: Llem) -> None:
    scripted_study(llem)
    slow_disk(llem, "/0002_scripted_bf16_bs1_c1/.result.json")
    first = llem.start("run", "study.yaml")
    try:
        wait_for(lambda: is_napping(llem) or first.poll() is not None)
        left = Left.by(llem)
        llem.environment.pop(NAP_AT)
        second = llem("run", "--resume", left.path)
    finally:
        first.kill()
        first.communicate()
    assert (second.code, second.out) == (1, "")
    assert f"is being run by pid {first.pid} (" in second.err
    assert " run study.yaml; wait for it to end, or interrupt it and use --resume" in second.err

    # The kernel lets go when the first is killed; its worker is on its way out.
    wait_for(lambda: llem("run", "--resume", left.path).code == 0)
    assert len(left.results) == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [(("--cycles", "200000"), "--cycles"), (("--order", "backwards"), "--order")],
)
def test_a_flag_out_of_bounds_is_named(
    llem: Llem, finished: Left, flags: tuple[str, ...], says: str
) -> None:
    done = llem("run", "--resume", finished.path, *flags)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert "defect" not in done.err


@pytest.mark.parametrize("flags", [("-o", "elsewhere"), ("--dry-run",)])
def test_a_flag_that_would_say_nothing_beside_resume_is_refused(
    llem: Llem, finished: Left, flags: tuple[str, ...]
) -> None:
    named = "--output" if flags[0] == "-o" else flags[0]
    for study in ((), (str(llem.folder / "study.yaml"),)):
        done = llem("run", *study, "--resume", finished.path, *flags)
        assert (done.code, done.out) == (2, "")
        assert f"{named} and --resume: " in done.err


def test_cycles_that_a_flag_once_set_are_kept_by_a_resume_without_it(llem: Llem) -> None:
    one = str(llem.write("one.yaml", ONE))
    assert llem("run", one, "--cycles", "2", "--no-gaps").code == 0
    left = Left.by(llem)
    (next(left.study.experiments.glob("0002_*")) / "result.json").unlink()
    done = llem("run", one, "--resume", left.path, "--no-gaps")
    assert done.code == 0, done.err
    assert len(left.results) == 2


def test_fewer_cycles_in_the_file_than_a_flag_planned_are_told(llem: Llem) -> None:
    study = scripted_study(llem, cycles=1)
    assert llem("run", study, "--cycles", "2", "--no-gaps").code == 0
    done = llem("run", study, "--resume", Left.by(llem).path, "--no-gaps")
    assert done.code == 0, done.err
    assert "llem: n_cycles: 1 in the file, the 2 planned are kept\n" in done.err


def test_experiments_that_are_missing_at_the_end_are_told_and_the_code_is_1(llem: Llem) -> None:
    done = llem("run", misbehaving_study(llem, "well", "erase"))
    assert done.code == 1
    assert "llem: 1 experiment has no result; mend the cause, then\n" in done.err


# Damage costs no result ---------------------------------------------------------------------------


def everything(root: Path) -> dict[str, bytes]:
    """Give every file of a study that a resume does not write anew at its end."""
    anew = ("study_manifest.json", "study_summary.json", "summary.parquet", "study_progress.jsonl")
    found = (path for path in root.rglob("*") if path.is_file() and path.name not in anew)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_one_other_digit_in_the_manifest_costs_no_result(llem: Llem, finished: Left) -> None:
    before, summary = everything(finished.study.root), finished.summary
    whole = finished.study.manifest.read_text()
    for attempt in (1, 2):
        changed = whole.replace('"n":2', '"n":3')
        assert changed != whole
        finished.study.manifest.write_text(changed)

        done = llem("run", "--resume", finished.path)

        assert done.code == 0, done.err
        assert "study_manifest.json is damaged (what it holds has the checksum" in done.err
        assert "2 already done" in done.err
        aside = finished.study.root / f"study_manifest.malformed.{attempt}.json"
        assert aside.read_text() == changed, "what was replaced is kept"
        assert everything(finished.study.root).items() >= before.items()
        assert finished.summary == summary
        assert json.loads(finished.study.manifest.read_text())["common"]["n"] == 2


def test_a_plan_that_no_result_agrees_with_is_refused_and_nothing_is_touched(
    llem: Llem, finished: Left
) -> None:
    finished.study.plan.unlink()
    rewrite(finished.study.manifest, lambda data: data["common"].update(n=3))
    before = everything(finished.study.root)
    for _ in range(2):
        done = llem("run", "--resume", finished.path)
        assert (done.code, done.out) == (1, "")
        assert "2 results are not understood, and nothing was touched" in done.err
        assert "n: 3 in the plan, 2 in it" in done.err
        assert everything(finished.study.root) == before


@pytest.mark.parametrize(
    "hinder",
    [
        pytest.param(lambda path: rewrite(path, newer), id="of a later version"),
        pytest.param(
            lambda path: path.unlink() or path.symlink_to(path.name), id="that cannot be read"
        ),
    ],
)
def test_a_result_that_is_not_understood_stays_and_the_run_is_refused(
    llem: Llem, finished: Left, hinder: Callable[[Path], object]
) -> None:
    first = next(finished.study.experiments.glob("0001_*"))
    hinder(first / "result.json")
    before = sorted(path.name for path in first.iterdir())
    done = llem("run", "--resume", finished.path)
    assert (done.code, done.out) == (1, "")
    assert "1 result is not understood, and nothing was touched" in done.err
    assert sorted(path.name for path in first.iterdir()) == before


def newer(data: dict[str, Any]) -> None:
    data["schema_version"] = "3.0"


def test_what_is_set_aside_is_told_on_the_screen_and_in_the_summary(
    llem: Llem, finished: Left
) -> None:
    second = next(finished.study.experiments.glob("0002_*"))
    result, requests = second / "result.json", second / "requests.parquet"
    samples = requests.read_bytes()
    text = result.read_text()
    result.write_text(text.replace('"output_tokens": 4', '"output_tokens": 40'))

    done = llem("run", "--resume", finished.path)

    assert done.code == 0, done.err
    assert "result.json was changed since it was written" in done.err
    assert "it is kept under a number, and the experiment runs again" in done.err
    assert "set aside as result.malformed.1.json; another was measured" in one_line(done.out)
    (note,) = [note for note in finished.summary["notes"] if "set aside" in note["text"]]
    assert note["text"].startswith(f"{second.name}: a result that is damaged or not its own")
    assert (second / "requests.malformed.1.parquet").read_bytes() == samples
    again = llem("run", "--resume", finished.path)
    assert "set aside as result.malformed.1.json" in one_line(again.out), "it stays told"
    assert len(finished.names("0002") & {"result.malformed.1.json", "result.malformed.2.json"}) == 1


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_a_result_copied_to_another_cycle_counts_once(llem: Llem) -> None:
    assert llem("run", scripted_study(llem, cycles=2)).code == 0
    left = Left.by(llem)
    first, third = (next(left.study.experiments.glob(f"000{slot}_*")) for slot in (1, 3))
    copied = (first / "result.json").read_bytes()
    (third / "result.json").write_bytes(copied)

    done = llem("run", "--resume", left.path)

    assert done.code == 0, done.err
    assert "is the result of slot 1 in cycle 1, and lies where that of another" in done.err
    assert (third / "result.malformed.1.json").read_bytes() == copied
    places = {name: json.loads(result)["place"] for name, result in left.results.items()}
    assert sorted((one["slot"], one["cycle"]) for one in places.values()) == [
        (1, 1), (2, 1), (3, 2), (4, 2),
    ]  # fmt: skip


def test_raw_samples_that_are_gone_are_told_and_the_result_stays(
    llem: Llem, finished: Left
) -> None:
    before = finished.results
    next(finished.study.experiments.glob("0001_*/requests.parquet")).unlink()
    done = llem("run", "--resume", finished.path)
    assert done.code == 0, done.err
    assert "requests.parquet is missing" in one_line(done.out)
    assert finished.results == before


@EXHAUSTIVE
def test_no_damaged_byte_of_any_file_of_a_study_is_believed_or_costs_a_result(
    llem: Llem, finished: Left
) -> None:
    """Resumes in this process; what is left must be as it was, or be told."""
    counts = Counts()
    plan = read_plan(finished.study).plan
    whole = look(plan, finished.study)
    derived = (finished.study.summary, finished.study.table, finished.study.lock)
    for file in sorted(path for path in finished.study.root.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for damaged in () if file in derived else other_bytes(content, 200):
            file.write_bytes(damaged)
            counts[taken(finished.study, plan, whole)] += 1
        file.write_bytes(content)
    print(f"damaged bytes of a study: {counts}")
    assert counts["believed"] == 0
    assert look(plan, finished.study) == whole


def taken(study: StudyDirectory, plan: StudyPlan, whole: StudyState) -> str:
    try:
        noted = read_plan(study)
        state = look(noted.plan, study)
    except StudyError:
        return "noticed"
    if noted.plan != plan:
        return "believed"
    if state == whole:
        return "noticed" if noted.notes else "harmless"
    told = any("samples_changed" in result.measurement_warnings for _, result in state.complete)
    return "noticed" if told or list(state.notes()) else "believed"


def test_a_finished_slot_is_run_again_on_request_and_its_old_result_is_kept(
    llem: Llem, finished: Left
) -> None:
    before = finished.results
    first, second = sorted(before)

    done = llem("run", "--resume", finished.path, "--again", "2")

    assert done.code == 0, done.err
    assert "2 experiments, 1 already done" in done.err
    after, folder = finished.results, finished.study.experiments / second
    assert after[first] == before[first]
    assert after[second] != before[second]
    assert (folder / "result.1.json").read_bytes() == before[second]
    assert {"requests.1.parquet", "log.1.txt", "requests.parquet"} <= finished.names("0002")
    assert "slot 2 was measured again on request" in done.out.replace("\n  ", " ")

    assert llem("run", "--resume", finished.path, "--again", "2").code == 0
    assert {"result.1.json", "result.2.json"} <= finished.names("0002")
    assert (folder / "result.1.json").read_bytes() == before[second]
    assert finished.summary["ran"] == 2


def test_a_slot_that_the_plan_has_not_is_refused_before_anything_runs(
    llem: Llem, finished: Left
) -> None:
    before = finished.results
    done = llem("run", "--resume", finished.path, "--again", "3")
    assert (done.code, done.out) == (2, "")
    assert "--again 3: the plan has no such slot, only 1 to 2" in done.err
    assert finished.results == before


def test_running_a_slot_again_needs_the_study_it_belongs_to(llem: Llem, finished: Left) -> None:
    done = llem("run", "study.yaml", "--again", "1")
    assert (done.code, done.out) == (2, "")
    assert "--resume" in done.err
