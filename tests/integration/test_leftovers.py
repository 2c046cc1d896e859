"""What a killed process leaves behind is removed by the next one, and nothing else is."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from llenergymeasure import temporary
from llenergymeasure.results import files
from tests.support.cli import Llem, wait_for
from tests.support.nursery import Nursery
from tests.support.other_users import ANN, AS_ROOT, everybodys_folder, run_as, staying
from tests.support.samples import EXHAUSTIVE
from tests.support.study_run import Left, scripted_study

HOUR_S = 3600
KEPT: list[contextlib.AbstractContextManager[Path]] = []


def in_a_process(does: Callable[[], object], number: signal.Signals = signal.SIGKILL) -> int:
    """Do something in a forked process, which then kills itself; give its process id."""
    child = os.fork()
    if not child:
        try:
            does()
        finally:
            os.kill(os.getpid(), number)
            os._exit(0)
    os.waitpid(child, 0)
    return child


def made(kind: temporary.Kind, place: Path) -> None:
    """Make a folder with something in it, and stay in it."""
    KEPT.append(temporary.folder(kind, place))
    path = KEPT[-1].__enter__()
    (path / "answers").mkdir()
    (path / "answers" / "log").write_text("something")


def aged(path: Path, seconds: float) -> None:
    """Let something have been there for a while."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("kind", ["preflight", "study", "engine", "share", "link", "fetch"])
def test_the_folder_of_a_killed_process_is_removed_at_once(
    tmp_path: Path, kind: temporary.Kind
) -> None:
    in_a_process(lambda: made(kind, tmp_path))
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f"llem-{kind}-")
    temporary.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_gone_after_its_block_however_that_ends(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), temporary.folder("study", tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_alone_by_its_own_process_and_by_others(tmp_path: Path) -> None:
    with temporary.folder("study", tmp_path) as path:
        aged(path, 2 * HOUR_S)
        temporary.sweep(tmp_path)
        in_a_process(lambda: temporary.sweep(tmp_path))
        child = subprocess.run(
            [
                sys.executable,
                "-c",
                f"from llenergymeasure import temporary as t; t.sweep({str(tmp_path)!r})",
            ],
            check=True,
        )
        assert child.returncode == 0
        assert path.is_dir()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("llem-rescued-0123", "result.json"),  # what was measured, for the user
        ("llem-study-notes", "notes.txt"),  # not made by us: nobody locks a file in it
        ("llem-preflight", "x"),
        ("llem-other-0123", ".owner"),
        ("results", "result.json"),
    ],
)
def test_what_was_not_left_by_a_process_of_ours_is_not_touched(
    tmp_path: Path, name: str, content: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / content).write_text("precious")
    aged(folder, 2 * HOUR_S)
    temporary.sweep(tmp_path)
    assert (folder / content).read_text() == "precious"


def test_what_a_link_leads_to_is_not_touched(tmp_path: Path) -> None:
    precious, place = tmp_path / "precious", tmp_path / "place"
    precious.mkdir()
    (precious / ".owner").write_text("\n")
    place.mkdir()
    (place / "llem-study-0123").symlink_to(precious)
    temporary.sweep(place)
    assert (precious / ".owner").exists()


def test_a_folder_whose_process_was_killed_while_it_made_it_goes_after_an_hour(
    tmp_path: Path,
) -> None:
    bare, unlocked = tmp_path / "llem-study-bare", tmp_path / "llem-study-unlocked"
    bare.mkdir()
    unlocked.mkdir()
    (unlocked / ".owner").touch()
    temporary.sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "its process may be about to lock it"
    aged(bare, 2 * HOUR_S)
    aged(unlocked, 2 * HOUR_S)
    temporary.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@AS_ROOT
def test_nobody_removes_what_is_another_users() -> None:
    with everybodys_folder() as place:
        run_as(ANN, lambda: made("engine", place))  # which ends without removing it
        (left,) = place.iterdir()
        temporary.sweep(place)
        assert left.is_dir()
        with staying(ANN, lambda: made("study", place) is None):
            assert run_as(ANN, lambda: temporary.sweep(place) is None)
            (used,) = place.iterdir()
            assert used.name.startswith("llem-study-")


def test_what_was_half_written_by_a_killed_process_is_removed_before_it_is_written_again(
    tmp_path: Path,
) -> None:
    def die(sink: BinaryIO) -> None:
        sink.write(b"half")
        sink.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    for name in ("summary.parquet", "study_manifest.json"):
        in_a_process(lambda name=name: files.replace(tmp_path / name, die))
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    files.remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_just_made_is_left_to_whoever_is_about_to_lock_it(tmp_path: Path) -> None:
    new = tmp_path / f".result.json.{2**22 + 1}-0123abcd.tmp"
    new.touch()
    files.remove_unfinished(tmp_path)
    assert new.exists()
    aged(new, 2 * HOUR_S)
    files.remove_unfinished(tmp_path)
    assert not new.exists()


def test_what_somebody_writes_at_this_moment_is_left_alone(tmp_path: Path) -> None:
    def look(_sink: object) -> None:
        files.remove_unfinished(tmp_path)
        in_a_process(lambda: files.remove_unfinished(tmp_path))

    (tmp_path / ".mine.tmp").write_text("precious")
    files.replace(tmp_path / "result.json", look)
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", ".mine.tmp"}


def test_a_study_that_goes_on_removes_what_was_half_written(tmp_path: Path) -> None:
    llem = Llem(tmp_path)
    yaml = scripted_study(llem)
    assert llem("run", yaml, "-q").code == 0
    left = Left.by(llem)
    half = left.study.root / f".summary.parquet.{2**22 + 1}-0123abcd.tmp"
    half.write_text("half")
    assert llem("run", "--resume", left.path, "-q").code == 0
    assert not half.exists()


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=EXHAUSTIVE)])
def test_after_many_kills_the_next_study_leaves_no_folder(tmp_path: Path, kills: int) -> None:
    llem, instants = Llem(tmp_path), random.Random(20260218)
    yaml = scripted_study(llem)
    seen = 0
    with Nursery(llem) as nursery:
        for _ in range(kills):
            before = left_in(llem)
            pid = nursery.start("run", yaml, "-o", "killed", "-q")
            with_one = lambda before=before: left_in(llem) != before  # noqa: E731
            wait_for(with_one, 60)
            time.sleep(instants.uniform(0, 0.05))
            nursery.kill(pid)
            nursery.wait_until_alone()
            seen += bool(left_in(llem))
        nursery.start("run", yaml, "-o", "whole", "-q")
        assert nursery.end() == 0, nursery.said
    assert seen > kills / 4, "most kills missed the moment"
    assert left_in(llem) == set()


def left_in(llem: Llem) -> set[str]:
    return {path.name for path in (llem.folder / "tmp").glob("llem-*")}
