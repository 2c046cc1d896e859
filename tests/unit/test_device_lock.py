"""Two measurements never have one device at once, and whoever waits is told for whom."""

from __future__ import annotations

import contextlib
import threading

import pytest

from llenergymeasure import locks
from llenergymeasure.core.energy.selection import get_active_energy_backend
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.orchestration import device_lock
from llenergymeasure.orchestration.device_lock import (
    PLACES,
    devices,
    held,
    lock_directory,
    lock_path,
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
        held(CPU, said.append, tmp_path, slept.append, limit_s, clock=lambda: sum(slept)),
    ):
        pytest.fail("it was not free")
    assert (told.value.code, len(slept), bool(said)) == ("busy", looks, looks > 0)
    assert str(other.owner) in told.value.message
    other.release()
    with held(CPU, said.append, tmp_path, slept.append, limit_s):
        assert len(slept) == looks


def test_the_time_that_looking_takes_is_part_of_the_wait(tmp_path, said):
    locks.take(lock_path("cpu", tmp_path))
    times_s = iter(range(10))  # a look at an owner that does not say who it is takes a moment
    with (
        pytest.raises(ExperimentError, match="not free within 3 s"),
        held(CPU, said.append, tmp_path, lambda _: None, 3.0, clock=lambda: float(next(times_s))),
    ):
        pytest.fail("it was not free")


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
    assert lock_directory({}) == lock_directory({"TMPDIR": str(tmp_path)})
    assert lock_directory({}) in PLACES
    assert lock_directory({"LLEM_LOCK_DIR": str(tmp_path)}) == tmp_path


def test_the_first_place_that_is_everybodys_is_taken_and_a_private_one_where_there_is_none(
    tmp_path,
):
    places = {"roots": 0o755, "loose": 0o777, "everybodys": 0o1777, "later": 0o1777}
    for name, mode in places.items():
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    found = [tmp_path / name for name in ("absent", *places)]
    assert lock_directory({}, found) == tmp_path / "everybodys"
    assert lock_directory({}, found[:3]) == tmp_path / "roots"
    with pytest.raises(PermissionError, match=r"absent is not there; others could replace .*loose"):
        lock_directory({}, [found[0], found[2]])


def test_a_container_takes_the_folder_that_its_host_has_looked_at(tmp_path):
    folder = tmp_path / "locks"
    folder.mkdir()
    folder.chmod(0o777)
    environ = {"LLEM_LOCK_DIR": str(folder)}
    with pytest.raises(PermissionError):
        lock_directory(environ)
    assert lock_directory({**environ, "LLEM_CONTAINER_IMAGE": "sha256:0"}) == folder


@pytest.mark.parametrize("open_to", ["others", "a group"])
@pytest.mark.parametrize("which", ["the folder", "the one above"])
def test_a_folder_that_others_could_replace_holds_no_locks(tmp_path, which, open_to):
    folder = tmp_path / "above" / "locks"
    folder.mkdir(parents=True)
    loose = folder if which == "the folder" else folder.parent
    loose.chmod(0o757 if open_to == "others" else 0o775)
    with pytest.raises(PermissionError, match=f"others could replace what is in {loose} "):
        lock_directory({"LLEM_LOCK_DIR": str(folder)})
    loose.chmod(0o1777)
    assert lock_directory({"LLEM_LOCK_DIR": str(folder)}) == folder


def test_a_link_counts_as_what_it_leads_to(tmp_path):
    loose, link = tmp_path / "loose", tmp_path / "link"
    loose.mkdir()
    loose.chmod(0o777)
    link.symlink_to(loose)
    with pytest.raises(PermissionError, match=f"what is in {loose} "):
        lock_directory({"LLEM_LOCK_DIR": str(link)})


@pytest.mark.parametrize("kind", ["file", "nothing"])
def test_what_is_no_folder_holds_no_locks(tmp_path, kind):
    folder = tmp_path / "locks"
    if kind == "file":
        folder.touch()
    with pytest.raises(PermissionError, match="is no folder" if kind == "file" else "is not there"):
        lock_directory({"LLEM_LOCK_DIR": str(folder)})


def test_a_lock_that_was_taken_away_is_noticed(tmp_path, said):
    path = lock_path("cpu", tmp_path)
    with held(CPU, said.append, tmp_path) as (lock,):
        assert lock.lost() is None
        path.unlink()
        assert lock.lost() == f"{path} was removed"
        path.touch()
        assert lock.lost() == f"{path} was replaced"
    assert path.exists(), "what is another's by now is left alone"


def test_a_result_says_that_a_lock_was_taken_away_while_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("LLEM_LOCK_DIR", str(tmp_path))
    path = lock_path("cpu", tmp_path)

    def select(*asked):
        path.unlink()
        return get_active_energy_backend(*asked)

    run = run_scripted(tmp_path, scripted_config(), select)
    (reason,) = [one for one in run.result.trust.reasons if one.code == "device_lock_lost"]
    assert str(path) in reason.detail


def test_an_experiment_holds_the_devices_that_its_backend_names(tmp_path, monkeypatch):
    monkeypatch.setenv("LLEM_LOCK_DIR", str(tmp_path))
    run_scripted(tmp_path, scripted_config(scripted={"device_uuids": ["GPU-x"]}))
    assert [path.name for path in tmp_path.glob("*.lock")] == [lock_path("GPU-x", tmp_path).name]


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


def test_a_wait_with_a_limit_ends_with_the_name_of_the_owner(tmp_path, said):
    other = locks.take(lock_path("cpu", tmp_path))
    slept: list[float] = []
    for limit_s, words in ((1.0, "not free within 1 s"), (0.0, "is not waited for")):
        with (
            pytest.raises(ExperimentError, match=words) as caught,
            held(CPU, said.append, tmp_path, slept.append, limit_s, clock=lambda: sum(slept)),
        ):
            pytest.fail("it was not free")
        assert caught.value.code == "busy"
        assert f"measured by {other.owner}" in caught.value.message
    assert sum(slept) == 1.0
    other.release()
