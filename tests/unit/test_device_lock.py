"""Two measurements never have one device at once, and whoever waits is told for whom."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure import locks
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.orchestration import device_lock
from llenergymeasure.orchestration.device_lock import (
    SHARED,
    devices,
    held,
    lock_directory,
    lock_path,
    share,
)
from tests.support.cli import wait_for
from tests.support.lock_holder import holder
from tests.support.scripted_run import run_scripted, scripted_config

CPU = DeviceTarget("cpu")


@pytest.fixture
def said() -> list[str]:
    return []


def test_a_free_device_is_taken_without_a_word_and_let_go_at_the_end(tmp_path, said):
    with held(CPU, said.append, tmp_path):
        assert locks.take(lock_path("cpu", tmp_path)) is None
    lock = locks.take(lock_path("cpu", tmp_path))
    assert lock is not None
    lock.release()
    assert not said


def test_whoever_waits_hears_for_whom_once_and_goes_on_when_it_is_free(tmp_path, said):
    other = locks.take(lock_path("cpu", tmp_path))
    looks = iter(range(4))

    def sleep(_seconds: float) -> None:
        if next(looks) == 3:
            other.release()

    with held(CPU, said.append, tmp_path, sleep):
        assert next(looks, None) is None
    assert said == [f"waiting for the CPU of this machine, measured by {other.owner}"]


@pytest.mark.parametrize(("limit_s", "looks"), [(0.0, 0), (1.0, 4)])
def test_a_wait_has_an_end_where_one_is_asked_for(tmp_path, said, limit_s, looks):
    other = locks.take(lock_path("cpu", tmp_path))
    slept: list[float] = []
    with (
        pytest.raises(ExperimentError, match="the CPU of this machine is measured by pid") as told,
        held(CPU, said.append, tmp_path, slept.append, limit_s),
    ):
        pytest.fail("it was not free")
    assert (told.value.code, len(slept), bool(said)) == ("busy", looks, looks > 0)
    assert str(other.owner) in told.value.message
    other.release()
    with held(CPU, said.append, tmp_path, slept.append, limit_s):
        assert len(slept) == looks


def test_the_next_owner_is_told_as_well(tmp_path, said):
    path = lock_path("cpu", tmp_path)
    first = locks.take(path)
    with contextlib.ExitStack() as stack:
        others = []

        def sleep(_seconds: float) -> None:
            if others:
                stack.close()
            else:
                first.release()
                others.append(stack.enter_context(holder(path)))

        with held(CPU, said.append, tmp_path, sleep):
            pass
    pids = [f"pid {one.pid} (" for one in (first.owner, others[0])]
    assert [pid in text for pid, text in zip(pids, said, strict=True)] == [True, True]


def test_devices_are_locked_in_one_order_and_each_once():
    assert devices(DeviceTarget("gpu", ("GPU-b", "GPU-a", "GPU-b"))) == ("GPU-a", "GPU-b")
    assert devices(CPU) == ("cpu",)
    assert devices(DeviceTarget("gpu")) == ("gpu",), "GPUs that cannot be told"


def test_two_that_want_the_same_devices_in_other_orders_both_get_them(tmp_path, said):
    done = []

    def measure(*uuids: str) -> None:
        for _ in range(20):
            with held(DeviceTarget("gpu", uuids), said.append, tmp_path, lambda _s: None):
                done.append(uuids)

    threads = [threading.Thread(target=measure, args=order) for order in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 40


def test_other_devices_do_not_wait(tmp_path, said):
    with (
        held(CPU, said.append, tmp_path),
        held(DeviceTarget("gpu", ("GPU-a",)), said.append, tmp_path),
        held(DeviceTarget("gpu", ("GPU-b",)), said.append, tmp_path),
    ):
        assert not said


def test_what_was_locked_is_let_go_when_the_wait_for_the_rest_is_interrupted(tmp_path, said):
    second = locks.take(lock_path("GPU-b", tmp_path))

    def sleep(_seconds: float) -> None:
        raise KeyboardInterrupt

    both = DeviceTarget("gpu", ("GPU-a", "GPU-b"))
    with pytest.raises(KeyboardInterrupt), held(both, said.append, tmp_path, sleep):
        pytest.fail("it was not free")
    second.release()
    first = locks.take(lock_path("GPU-a", tmp_path))
    assert first is not None
    first.release()


def test_a_folder_that_is_not_there_is_an_error_that_says_what_to_set(tmp_path, said):
    with (
        pytest.raises(ExperimentError, match="LLEM_LOCK_DIR") as caught,
        held(CPU, said.append, tmp_path / "absent"),
    ):
        pytest.fail("there is no lock")
    assert "cannot lock the CPU of this machine" in caught.value.message
    assert "No such file" in caught.value.message


def test_a_device_name_stays_one_file_name(tmp_path):
    assert lock_path("../GPU a/b", tmp_path).parent == tmp_path


def test_everybody_meets_in_one_folder_unless_the_environment_names_another(tmp_path):
    assert lock_directory({}) == lock_directory({"TMPDIR": str(tmp_path)}) == SHARED
    assert SHARED.parent == Path("/tmp")
    assert lock_directory({"LLEM_LOCK_DIR": str(tmp_path)}) == tmp_path


def test_the_folder_of_locks_is_everybodys_whatever_the_umask(tmp_path):
    folder, before = tmp_path / "locks", os.umask(0o077)
    try:
        share(folder)
        share(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("kind", ["link", "file", "private", "without the sticky bit"])
def test_what_is_no_folder_of_everybody_holds_no_locks(tmp_path, kind):
    folder = tmp_path / "locks"
    match kind:
        case "link":
            folder.symlink_to(tmp_path)
        case "file":
            folder.touch(0o777)
        case "private":
            folder.mkdir(0o700)
        case _:
            folder.mkdir()
            folder.chmod(0o777)
    with pytest.raises(PermissionError, match="no folder of mode 1777"):
        share(folder)


def forked(succeeds: Callable[[], object]) -> int:
    """Start a child that ends with 0 if what it is given is true."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = int(not succeeds())
        finally:
            os._exit(code)
    return child


def test_many_that_make_the_folder_at_once_get_the_same_one(tmp_path):
    folder = tmp_path / "locks"

    def lock() -> object:
        share(folder)
        return locks.take(lock_path(str(os.getpid()), folder), everybody=True)

    children = [forked(lock) for _ in range(8)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(list(folder.iterdir())) == 8
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be several users")
def test_users_take_each_others_locks():
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        Path(parent).chmod(0o1777)
        path = lock_path("cpu", Path(parent) / "locks")

        def lock_as(user: int) -> object:
            os.setuid(user)
            share(path.parent)
            return locks.take(path, everybody=True)

        for user in (54321, 54322, 0, 54321):
            assert os.waitpid(forked(lambda user=user: lock_as(user)), 0)[1] == 0, user
        assert path.stat().st_uid == path.parent.stat().st_uid == 54321


def test_an_experiment_holds_the_devices_that_its_backend_names(tmp_path, monkeypatch):
    monkeypatch.setenv("LLEM_LOCK_DIR", str(tmp_path))
    run_scripted(tmp_path, scripted_config(scripted={"device_uuids": ["GPU-x"]}))
    assert [path.name for path in tmp_path.glob("*.lock")] == ["llem-device-GPU-x.lock"]


def test_a_wait_is_a_phase_before_the_others_and_says_whose_the_device_is(tmp_path, monkeypatch):
    monkeypatch.setenv("LLEM_LOCK_DIR", str(tmp_path))
    lock = locks.take(lock_path("cpu", tmp_path))
    events = tmp_path / "events.jsonl"

    def free() -> None:
        wait_for(lambda: events.is_file() and "wait" in events.read_text())
        lock.release()

    helper = threading.Thread(target=free)
    helper.start()
    run = run_scripted(tmp_path, scripted_config())
    helper.join()
    assert run.phases[:3] == ["wait", "start", "load"]
    first = run.events[0]
    assert first["state"] == "initialising"
    assert first["detail"] == f"waiting for {device_lock._plain('cpu')}, measured by {lock.owner}"
    assert {event["detail"] for event in run.events[1:]} == {None}
