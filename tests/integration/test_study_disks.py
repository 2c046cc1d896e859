"""Studies on disks that are full, read-only, or gone from under them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Llem, wait_for
from tests.support.injectors import NAP_AT, is_napping, slow_disk
from tests.support.small_disk import SmallDisk, small_disk_at
from tests.support.study_run import NO_GAPS, Left, leftovers, misbehaving_study, scripted_study


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk_at(tmp_path / "disk", "192k") as disk:
        yield disk


def test_a_disk_that_fills_up_in_the_middle_costs_nothing_that_is_finished(
    llem: Llem, small_disk: SmallDisk
) -> None:
    done = llem("run", scripted_study(llem, cycles=30), "-o", "disk", timeout_s=120)

    assert done.code == 1
    assert "No space left on device; make room" in done.err
    left = Left.by(llem, "disk")
    assert left.resume_line in done.err
    kept = left.results
    assert 0 < len(kept) < 60
    assert leftovers(small_disk.path) == []

    small_disk.grow()
    resumed = llem("run", "--resume", left.path, timeout_s=240)
    assert resumed.code == 0, resumed.err
    assert kept.items() <= left.results.items()
    assert left.summary["ran"] == len(left.results) == 60


def test_results_that_grow_too_large_for_the_disk_stop_a_study_that_has_none(llem: Llem) -> None:
    done = llem(
        "run",
        scripted_study(llem, cycles=10),
        preexec_fn=llem.files_up_to(5_000),
    )
    assert done.code == 1
    assert "stopped: all 3 experiments failed the same way, in phase 'save'" in done.err
    assert "File too large; make room" in done.err
    assert Left.by(llem).results == {}


@pytest.mark.parametrize("largest_bytes", [100, 1_000])
def test_a_full_disk_before_anything_starts(llem: Llem, largest_bytes: int) -> None:
    sweep = "random_seed: [" + ", ".join(map(str, range(100))) + "]"
    said = llem.fails(
        "run",
        scripted_study(llem, sweep),
        preexec_fn=llem.files_up_to(largest_bytes),
    )
    assert "File too large" in said
    assert "make room there, or let TMPDIR name a directory on another disk" in said


@pytest.mark.parametrize("lost", ["results", "the experiment"])
def test_a_directory_that_is_deleted_while_it_runs(llem: Llem, lost: str) -> None:
    study = scripted_study(llem, execution=f"timeout_s: 20, {NO_GAPS}")
    slow_disk(llem, "/0002_scripted_bf16_bs1_c1/.requests.parquet")
    process = llem.start("run", study)
    wait_for(lambda: is_napping(llem) or process.poll() is not None)
    left = Left.by(llem)
    if lost == "results":
        shutil.rmtree(llem.folder / "results")
    else:
        shutil.rmtree(next(left.study.experiments.glob("0002_*")))

    out, err = process.communicate(timeout=120)

    assert process.returncode == 1, err
    assert "Traceback" not in out + err
    if lost == "results":
        assert err.count("is gone; put it back to resume the study") == 1
        assert "go on with" not in err, "there is nothing to go on with"
        assert all(line[0] in "[ l" for line in err.splitlines()), err
        assert not (llem.folder / "results").exists(), "nothing is written where nothing is read"
    else:
        assert "1 experiment ran, 1 failed" in out
        assert "took longer than 20 s and was killed" in " ".join(out.split())
        llem.environment.pop(NAP_AT)
        assert llem("run", "--resume", left.path).code == 0
        assert len(left.results) == 2


def test_a_place_that_cannot_be_written_to_is_found_before_anything_runs(llem: Llem) -> None:
    study = scripted_study(llem)
    said = llem.fails("run", study, "-o", "/proc/below")
    assert "cannot create a directory for results in /proc/below" in said
    assert "--output" in said


def test_a_study_in_a_directory_that_became_read_only_says_what_to_do(
    llem: Llem, small_disk: SmallDisk
) -> None:
    small_disk.grow()
    assert llem("run", scripted_study(llem), "-o", "disk").code == 0
    left = Left.by(llem, "disk")
    with small_disk.read_only():
        done = llem("run", "--resume", left.path, "--cycles", "2")
    assert done.code == 1
    assert "Read-only file system" in done.err
    assert "copy it to such a disk and resume the copy" in done.err
    assert len(left.results) == 2
    assert list(small_disk.path.iterdir()) == [left.study.root]


def rescued_in(text: str) -> Path:
    """Give the folder that a message names."""
    found = re.search(r"kept in ([^\s;]+)", text)
    assert found is not None, text
    return Path(found[1])


def completed_in(folder: Path) -> int:
    """Count the requests of a result, of a backend that this process does not know."""
    result = json.loads((folder / "result.json").read_bytes())
    return int(result["throughput"]["requests_completed"])


def test_what_was_measured_in_a_directory_that_vanished_is_rescued_told_and_counts_again(
    llem: Llem,
) -> None:
    done = llem("run", misbehaving_study(llem, "well", "vanish"))

    assert done.code == 1
    left = Left.by(llem)
    (failed,) = left.summary["failed"]
    rescued = Path(failed["rescued"])
    assert rescued.parent == llem.folder / "tmp"
    assert "failed in save" in done.err
    assert f"what was measured is kept in {rescued}" in done.err
    assert f"what was measured is kept in {rescued}" in done.out
    assert failed["log_tail"] == "about to vanish"
    assert completed_in(rescued) == 1

    shutil.copytree(rescued, left.study.root / failed["directory"], dirs_exist_ok=True)
    (llem.folder / "mended").touch()
    again = llem("run", "--resume", left.path)
    assert again.code == 0, again.err
    assert "2 already done" in again.err


def test_why_an_experiment_failed_is_told_though_its_directory_has_gone(llem: Llem) -> None:
    done = llem("run", misbehaving_study(llem, "well", "vanish and refuse"))
    assert done.code == 1
    (failed,) = Left.by(llem).summary["failed"]
    assert failed["message"] == "RuntimeError: no such driver"
    assert (failed["code"], failed["phase"]) == ("internal", "load")
    assert "no such driver" in failed["log_tail"]
    assert list((llem.folder / "tmp").glob("llem-rescued-*")) == []


def test_a_study_whose_directory_vanishes_says_where_the_last_experiment_is_kept(
    llem: Llem,
) -> None:
    done = llem("run", misbehaving_study(llem, "vanish with all", "well"))
    assert done.code == 1
    assert "is gone; put it back to resume the study" in done.err
    last = done.err[done.err.index("is gone; put it back") :]
    assert "what 0001_thirdparty_bf16_c1 measured is kept in" in last
    assert completed_in(rescued_in(last)) == 1


def test_the_library_says_where_it_is_kept_in_its_exception(llem: Llem) -> None:
    study = misbehaving_study(llem, "vanish with all", "well")
    done = llem.script(
        "from llenergymeasure import run_study, ExperimentResult\n"
        "try:\n"
        f"    run_study({study!r}, output_dir='results')\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    assert done.out.startswith("StudyError "), done.err
    assert completed_in(rescued_in(done.out)) == 1


def test_a_disk_that_turns_read_only_while_an_experiment_runs_costs_nothing(
    llem: Llem, small_disk: SmallDisk
) -> None:
    small_disk.grow()
    done = llem("run", misbehaving_study(llem, "remount", "well"), "-o", "disk")
    subprocess.run(["umount", str(small_disk.path)], check=True)  # what lies over it
    assert done.code == 1
    assert "Read-only file system" in done.err
    last = done.err[done.err.index("what 0001_") :]
    assert completed_in(rescued_in(last)) == 1
    assert Left.by(llem, "disk").resume_line in done.err
