"""Workers that somebody ends, directories that somebody takes or puts: told as what they are."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.cli import Llem, wait_for
from tests.support.study_run import Left, misbehaving_study, scripted_study


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def worker(llem: Llem, slot: str = "*") -> psutil.Process:
    """Find the worker that hangs, by what its lock says."""
    (lock,) = llem.folder.glob(f"results/*/experiments/{slot}/.worker.lock")
    return psutil.Process(json.loads(lock.read_bytes())["pid"])


def test_each_signal_is_told_as_what_it_is(llem: Llem) -> None:
    signals = {
        "SIGKILL": "and not by the kernel for want of memory",
        "SIGTERM": "which a person, a scheduler or a time limit sent",
        "SIGINT": "which a person, a scheduler or a time limit sent",
        "SIGSEGV": "the engine, or native code it uses, crashed",
        "SIGABRT": "the engine, or native code it uses, crashed",
    }
    process = llem.start("run", misbehaving_study(llem, "hang", "well", cycles=len(signals)))
    for number, name in enumerate(signals):
        wait_for((llem.folder / "hanging").exists)
        found = worker(llem, f"{2 * number + 1:04d}_*")
        (llem.folder / "hanging").unlink()
        found.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "most likely" not in err
    failed = Left.by(llem).summary["failed"]
    assert [one["code"] for one in failed] == ["killed"] * len(signals)
    for one, (name, says) in zip(failed, signals.items(), strict=True):
        assert f"ended by {name}" in one["message"]
        assert says in one["message"]
    assert " ".join(failed[1]["message"].split()) in " ".join(err.split())


def test_a_worker_whose_server_was_killed_names_the_server(llem: Llem) -> None:
    process = llem.start("run", misbehaving_study(llem, "hang", "well"))
    wait_for((llem.folder / "hanging").exists)
    server = worker(llem).parent()
    assert server is not None
    assert server.pid != process.pid
    server.kill()
    process.communicate(timeout=120)

    assert process.returncode == 1
    (failed,) = Left.by(llem).summary["failed"]
    assert "the fork server was killed by signal 9 (Killed)" in failed["message"]
    assert Left.by(llem).summary["ran"] == 1, "another server was started"


def test_a_slot_that_is_deleted_while_it_runs_is_named(llem: Llem) -> None:
    done = llem("run", misbehaving_study(llem, "well", "vanish"))
    (failed,) = Left.by(llem).summary["failed"]
    assert "make room" not in done.err
    assert (
        "/experiments/0002_thirdparty_bf16_c1 is not there any more; put it back"
        in (failed["message"])
    )


@pytest.mark.parametrize("name", ["study_summary.json", "study_manifest.json", "summary.parquet"])
def test_a_directory_in_the_place_of_a_file_of_the_study(llem: Llem, name: str) -> None:
    process = llem.start("run", misbehaving_study(llem, "hang", "well"))
    wait_for((llem.folder / "hanging").exists)
    place = Left.by(llem).study.root / name
    place.unlink(missing_ok=True)
    (place / "full").mkdir(parents=True)
    worker(llem).kill()
    _, err = process.communicate(timeout=120)

    assert f"{place.relative_to(llem.folder)} is a directory; take it away" in err
    assert "make room" not in err
    shutil.rmtree(place)
    (llem.folder / "mended").touch()
    study = next((llem.folder / "results").iterdir())
    assert llem("run", "--resume", str(study)).code == 0


@pytest.mark.parametrize("name", ["result.json", "error.json", "requests.parquet"])
def test_a_directory_in_the_place_of_a_file_of_a_slot(llem: Llem, name: str) -> None:
    study = scripted_study(llem)
    assert llem("run", study).code == 0
    left = Left.by(llem)
    slot = next(left.study.experiments.glob("0002_*"))
    (slot / "result.json").unlink()
    (slot / name).unlink(missing_ok=True)
    (slot / name / "full").mkdir(parents=True)

    done = llem("run", "--resume", left.path)

    assert done.code == 0, done.err
    assert len(left.results) == 2
    if name == "result.json":
        assert "result.json is a directory; it is kept under a number" in " ".join(done.err.split())
    stem, _, suffix = name.partition(".")
    mark = ".malformed" if name == "result.json" else ""
    aside = slot / f"{stem}{mark}.1.{suffix}"
    assert [path.name for path in aside.iterdir()] == ["full"]
