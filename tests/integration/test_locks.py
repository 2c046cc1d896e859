"""A lock belongs to one process and ends with it; races run in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from llenergymeasure import locks
from llenergymeasure.locks import Owner, owner_of, take
from tests.support.lock_holder import answer, holder, start


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


def test_another_process_that_holds_it_is_named(path: Path) -> None:
    with holder(path) as other:
        assert take(path) is None
        owner = owner_of(path)
        assert owner is not None
        assert owner.pid == other.pid
        assert owner.command.startswith("-c")
        assert f"pid {other.pid} (" in str(owner)


def test_it_is_free_as_soon_as_its_owner_is_killed(path: Path) -> None:
    with holder(path) as other:
        other.kill()
        other.wait()
        assert str(other.pid) in path.read_text(), "what the file says locks nothing"
        lock = take(path)
    assert lock is not None
    lock.release()


def test_a_forked_child_does_not_keep_it_when_its_parent_is_killed(path: Path) -> None:
    with holder(path, "fork") as other:
        (child,) = psutil.Process(other.pid).children()
        try:
            other.kill()
            other.wait()
            assert child.status() == psutil.STATUS_SLEEPING, "the child is an orphan, and alive"
            lock = take(path)
            assert lock is not None
            lock.release()
        finally:
            child.send_signal(signal.SIGKILL)


def test_of_many_that_race_for_it_one_gets_it(path: Path) -> None:
    racing = [start(path) for _ in range(4)]
    try:
        assert sorted(answer(process) for process in racing) == ["no", "no", "no", "yes"]
    finally:
        for process in racing:
            process.kill()
            process.communicate()


def test_the_same_process_does_not_get_it_twice(path: Path) -> None:
    lock = take(path)
    assert lock is not None
    assert take(path) is None
    owner = owner_of(path)
    assert owner is not None
    assert owner.pid == os.getpid()
    lock.release()
    again = take(path)
    assert again is not None
    lock.release()
    assert take(path) is None, "what was released once is not released for its next owner"
    again.release()


def test_asking_who_holds_it_does_not_let_go_of_it(path: Path) -> None:
    lock = take(path)
    assert lock is not None
    owner_of(path)
    take(path)
    assert answer_of_another(path) == "no"
    lock.release()
    assert answer_of_another(path) == "yes"


def test_a_look_at_another_name_of_its_file_does_not_let_go_of_it_either(path: Path) -> None:
    lock = take(path)
    assert lock is not None
    again = path.with_name("b.lock")
    again.hardlink_to(path)
    assert owner_of(again) == lock.owner
    assert not locks.is_held(again), "by no other process"
    assert answer_of_another(path) == "no"
    lock.release()


def answer_of_another(path: Path) -> str:
    process = start(path)
    try:
        return answer(process)
    finally:
        process.kill()
        process.communicate()


def test_a_forked_child_may_take_what_its_parent_released(path: Path) -> None:
    lock = take(path)
    assert lock is not None
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        taken = take(path)
        os._exit(0 if taken is not None else 1)
    assert answer_of_another(path) == "no", "the fork cost the parent nothing"
    lock.release()
    os.write(write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(read)
    os.close(write)


def test_a_file_that_was_removed_meanwhile_is_not_taken_for_the_lock(path: Path) -> None:
    lock = take(path)
    assert lock is not None
    path.unlink()
    lock.release()
    again = take(path)
    assert again is not None
    assert answer_of_another(path) == "no"
    again.release()


def test_an_owner_that_is_about_to_write_its_name_is_waited_for(path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.write_text(Owner.here().model_copy(update={"pid": dead.pid}).model_dump_json())
    named = Owner.here()
    writing = threading.Timer(0.1, path.write_text, (named.model_dump_json(),))
    writing.start()
    assert owner_of(path) == named
    writing.join()


@pytest.mark.parametrize("content", ["", "{", "[]", "nonsense", '{"pid": "x"}'])
def test_a_file_that_names_nobody_locks_nothing(path: Path, content: str) -> None:
    path.write_text(content)
    assert owner_of(path) is None
    lock = take(path)
    assert lock is not None
    lock.release()


def test_everybody_can_read_a_lock_among_others_and_its_owner_alone_can_write_it(
    path: Path,
) -> None:
    before = os.umask(0o077)
    try:
        lock = take(path, everybody=True)
    finally:
        os.umask(before)
    assert lock is not None
    assert path.stat().st_mode & 0o777 == 0o644
    lock.release()


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        take(path)
    assert target.read_text() == "precious"


def test_the_owner_is_named_with_the_day_and_the_host_only_where_they_differ() -> None:
    here = Owner.here()
    assert str(here) == f"pid {here.pid} ({here.user}, since {here.since:%H:%M})"
    older = here.model_copy(
        update={"since": here.since - timedelta(days=2), "host": "elsewhere", "user": "ann"}
    )
    since: datetime = older.since
    assert str(older) == f"pid {here.pid} (ann on elsewhere, since {since:%Y-%m-%d %H:%M})"


def test_a_credential_on_the_command_line_is_not_written_down(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["llem", "run", "https://ann:hunter2@example.org/x.yaml"])
    lock = take(path)
    assert lock is not None
    assert "hunter2" not in json.loads(path.read_bytes())["command"]
    lock.release()


def test_a_second_look_succeeds_once_the_owner_has_ended_in_good_order(path: Path) -> None:
    with holder(path) as other:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        other.wait(60)
        lock = take(path)
        assert lock is not None
        lock.release()
    assert locks.owner_of(path) is None
