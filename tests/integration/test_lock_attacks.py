"""Other users of a machine can make a lock wait, and cannot make it fail, lie or be taken twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llenergymeasure import locks
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import StudyError
from llenergymeasure.locks import Owner, owner_of, take
from llenergymeasure.orchestration.device_lock import held, lock_directory
from llenergymeasure.results.layout import StudyDirectory
from tests.support.cli import wait_for
from tests.support.lock_holder import holder
from tests.support.other_users import (
    ANN,
    AS_ROOT,
    BOB,
    EVE,
    ended_well,
    everybodys_folder,
    forked,
    run_as,
    staying,
)
from tests.support.samples import EXHAUSTIVE

CPU = DeviceTarget("cpu")
LONGEST_MESSAGE = 500


@pytest.fixture
def folder() -> Iterator[Path]:
    with everybodys_folder() as made:
        yield made


def text(**changes: Any) -> bytes:
    return json.dumps({**Owner.here().model_dump(mode="json"), **changes}).encode()


TEXTS = {
    "a pid of twenty digits": text(pid=10**20 - 1),
    "a pid of thousands of digits": b'{"pid": ' + b"9" * 4000 + b"}",
    "a negative pid": text(pid=-1),
    "no pid at all": text(pid=0),
    "a pid that is none": text(pid="x"),
    "the first process": text(pid=1),
    "control characters": text(
        user="\x1b[2J\x07eve\r\n", host="\x9b31m", command="\x00\x1b]0;x\x07"
    ),
    "letters that turn the line around": text(user="\u202eeve"),
    "half of a surrogate pair": text(user="\udcff"),
    "a name that never ends": text(user="e" * 3000),
    "a megabyte": b"e" * 1_000_000,
    "brackets without end": b"[" * 4096,
    "a date far ahead": text(since="9999-12-31T23:59:59-23:59"),
    "a date far behind": text(since="0001-01-01T00:00:00+23:59"),
    "a date that is none": text(since="tomorrow"),
    "a number for a date": text(since=1e300),
    "wrong types": text(pid=[], host={}, user=1, since=None, command=True),
    "no JSON": b"\xff\xfe\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_whatever_a_lock_says_it_is_taken_and_its_owner_is_told_short_and_plain(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.lock"
    path.write_bytes(content)
    said = str(owner_of(path))
    assert said.isprintable()
    assert len(said) < LONGEST_MESSAGE
    lock = take(path)
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_a_lock_that_lies_about_its_owner_is_told_by_whom_the_kernel_knows(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.lock"
    with holder(path) as other:
        path.write_bytes(content)
        assert str(owner_of(path)).startswith(f"pid {other.pid} (")
        study = StudyDirectory(tmp_path)
        path.rename(study.lock)
        with (
            pytest.raises(StudyError, match=f"run by pid {other.pid} ") as caught,
            locks.owned(study),
        ):
            pytest.fail("it is owned")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < LONGEST_MESSAGE + len(str(tmp_path))


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "dangling link"])
def test_what_is_no_file_neither_holds_nor_names_anybody(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "a.lock", tmp_path / "precious"
    precious.write_text("precious")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(precious)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case _:
            path.mkdir()
    assert owner_of(path) is None
    assert not locks.is_held(path)
    with pytest.raises(OSError, match=r"no file|symbolic|directory"):
        take(path)
    assert precious.read_text() == "precious"


def test_a_second_name_of_a_file_is_not_overwritten(tmp_path: Path) -> None:
    path, precious = tmp_path / "a.lock", tmp_path / "precious"
    precious.write_text("precious")
    path.hardlink_to(precious)
    with pytest.raises(PermissionError):
        take(path, everybody=True)
    assert precious.read_text() == "precious"


def test_an_owner_that_is_stopped_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with holder(path) as other:
        os.kill(other.pid, signal.SIGSTOP)
        wait_for(lambda: psutil.Process(other.pid).status() == psutil.STATUS_STOPPED)
        assert f"stopped; kill -CONT {other.pid} lets it go on" in str(owner_of(path))


def test_whoever_runs_a_study_stops_when_its_lock_is_taken_away(tmp_path: Path) -> None:
    study = StudyDirectory(tmp_path)
    with locks.owned(study):
        locks.check_owned(study)
        study.lock.unlink()
        with pytest.raises(StudyError, match="was removed, the lock by which") as caught:
            locks.check_owned(study)
        assert "see that none does" in caught.value.message
        study.lock.touch()
        with pytest.raises(StudyError, match="was replaced, the lock by which"):
            locks.check_owned(study)


def holds(folder: Path) -> contextlib.ExitStack:
    """Take the CPU, and keep it until the process ends."""
    stack = contextlib.ExitStack()
    stack.enter_context(held(CPU, _fail, folder))
    return stack


def _fail(said: str) -> None:
    raise AssertionError(said)


def waits(folder: Path, for_pid: int) -> bool:
    """Tell whether whoever wants the CPU has to wait for a process."""

    def waiting(said: str) -> None:
        raise InterruptedError(said)

    try:
        with held(CPU, waiting, folder):
            return False
    except InterruptedError as error:
        return f"measured by pid {for_pid} (" in str(error)


@AS_ROOT
@pytest.mark.parametrize(("first", "second"), [(ANN, BOB), (BOB, ANN), (0, ANN), (ANN, 0)])
def test_users_wait_for_each_other(folder: Path, first: int, second: int) -> None:
    with staying(first, lambda: holds(folder)) as pid:
        assert run_as(second, lambda: waits(folder, pid))
        assert run_as(first, lambda: waits(folder, pid))
    assert run_as(second, lambda: holds(folder))


@AS_ROOT
def test_nobody_else_can_take_a_lock_away(folder: Path) -> None:
    def take_away() -> bool:
        for path in folder.iterdir():
            for harm in (path.unlink, lambda path=path: path.rename(folder / "gone"), path.touch):
                with contextlib.suppress(PermissionError):
                    harm()
                    return False
            with contextlib.suppress(PermissionError), path.open("w"):
                return False
        return True

    with staying(ANN, lambda: holds(folder)) as pid:
        assert run_as(EVE, take_away)
        assert run_as(BOB, lambda: waits(folder, pid))


@AS_ROOT
@pytest.mark.parametrize("harm", ["a file", "a pipe", "a link", "a folder", "a lock"])
def test_a_name_that_somebody_else_has_taken_costs_nothing(folder: Path, harm: str) -> None:
    named = folder / f"llem-device-cpu.{ANN}.lock"

    def squat() -> bool:
        match harm:
            case "a file":
                named.write_bytes(TEXTS["the first process"])
                named.chmod(0o666)
            case "a pipe":
                os.mkfifo(named)
            case "a link":
                named.symlink_to("/etc/passwd")
            case "a folder":
                named.mkdir()
            case _:
                (folder / "llem-device-cpu.0.lock").write_bytes(b"\x1b" * 5000)
                named.touch()
        return True

    assert run_as(EVE, squat)
    with staying(ANN, lambda: holds(folder)) as pid:
        assert run_as(BOB, lambda: waits(folder, pid))
        assert run_as(ANN, lambda: waits(folder, pid))
    assert run_as(BOB, lambda: holds(folder))
    left = {path.name for path in folder.iterdir()}
    assert left <= {named.name, "llem-device-cpu.0.lock", f"llem-device-cpu.{BOB}.lock"}


@AS_ROOT
def test_a_folder_that_another_user_made_first_is_not_used(folder: Path) -> None:
    theirs = folder / "llem-locks"

    def make() -> bool:
        theirs.mkdir()
        theirs.chmod(0o1777)
        return True

    def refused() -> bool:
        with pytest.raises(PermissionError, match=f"belongs to the user of number {EVE}"):
            lock_directory({"LLEM_LOCK_DIR": str(theirs)})
        return True

    assert run_as(EVE, make)
    assert run_as(ANN, refused)
    assert run_as(0, refused)
    assert run_as(EVE, lambda: lock_directory({"LLEM_LOCK_DIR": str(theirs)}) == theirs)


@AS_ROOT
@pytest.mark.parametrize("rounds", [20, pytest.param(400, marks=EXHAUSTIVE)])
def test_however_users_race_one_has_the_device_at_a_time(folder: Path, rounds: int) -> None:
    inside = folder / "inside"

    def measure() -> bool:
        for _ in range(rounds):
            with held(CPU, lambda _said: None, folder, lambda _s: time.sleep(0.002)):
                inside.touch(exist_ok=False)  # somebody else's is there while it measures
                inside.unlink()
        return True

    children = [forked(user, measure) for user in (ANN, BOB, EVE, ANN)]
    assert [ended_well(child) for child in children] == [True] * 4
