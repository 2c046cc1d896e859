"""An experiment that takes its process down costs that experiment, and the study says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Llem
from tests.support.study_run import NO_GAPS, Left, leftovers, misbehaving_study

TIGHT = f"timeout_s: 5, {NO_GAPS}"


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.mark.parametrize(
    ("shout", "code", "says"),
    [
        (
            "kill",
            "killed",
            "ended by SIGKILL, and not by the kernel for want of memory: a person",
        ),
        (
            "crash",
            "killed",
            "ended by SIGSEGV: the engine, or native code it uses, crashed",
        ),
        ("leave", "no_result", "ended as if all was well but left no result.json"),
        ("garble", "malformed_result", "left a result.json that cannot be read"),
        ("refuse", "internal", "RuntimeError: no such driver"),
    ],
)
def test_an_experiment_that_breaks_is_told_and_the_others_are_kept(
    llem: Llem, shout: str, code: str, says: str
) -> None:
    done = llem("run", misbehaving_study(llem, "well", shout, cycles=2))

    assert done.code == 1, done.err
    left = Left.by(llem)
    assert sorted(name[:4] for name in left.results) == ["0001", "0003"]
    assert sorted(name[:4] for name in left.errors) == ["0002", "0004"]
    for kept in left.errors.values():
        assert (kept["code"], kept["phase"]) == (code, "load")
        assert says in kept["message"]
    for log in left.study.experiments.glob("000[24]_*/log.txt"):
        assert f"about to {shout}" in log.read_text()
    assert "2 experiments ran, 2 failed" in done.out
    assert says.partition(":")[0] in " ".join(done.out.split())
    assert done.err.count("failed in load\n") == 2
    assert says.partition(":")[0] in " ".join(done.err.split())
    assert (left.summary["ran"], len(left.summary["failed"])) == (2, 2)
    assert leftovers(llem.folder) == []


def test_an_experiment_that_hangs_is_ended_after_the_time_that_the_study_gives_it(
    llem: Llem,
) -> None:
    done = llem("run", misbehaving_study(llem, "well", "hang", execution=TIGHT), timeout_s=120)

    assert done.code == 1, done.err
    left = Left.by(llem)
    (kept,) = left.errors.values()
    assert kept["code"] == "timeout"
    assert "took longer than 5 s and was killed; raise execution.timeout_s" in kept["message"]
    assert len(left.results) == 1


def test_a_resume_runs_what_failed_again_and_keeps_the_old_error(llem: Llem) -> None:
    llem("run", misbehaving_study(llem, "well", "kill"))
    left = Left.by(llem)
    (before,) = left.errors.values()
    kept = left.results
    (llem.folder / "mended").touch()

    done = llem("run", "--resume", left.path)

    assert done.code == 0, done.err
    assert "1 already done" in done.err
    assert left.errors == {}
    assert kept.items() <= left.results.items()
    assert {"error.1.json", "log.1.txt", "result.json", "log.txt"} <= left.names("0002")
    old = next(left.study.experiments.glob("0002_*/error.1.json"))
    assert json.loads(old.read_bytes()) == before
    assert left.statuses(1) == ["running", "complete"]
    assert left.statuses(2) == ["running", "failed", "running", "complete"]


def test_errors_of_several_attempts_are_all_kept(llem: Llem) -> None:
    llem("run", misbehaving_study(llem, "well", "kill"))
    left = Left.by(llem)
    for _ in range(2):
        assert llem("run", "--resume", left.path).code == 1
    assert {"error.json", "error.1.json", "error.2.json"} <= left.names("0002")
    assert (left.summary["ran"], len(left.summary["failed"])) == (1, 1)


def test_a_study_whose_experiments_all_break_alike_stops_and_goes_on_once_mended(
    llem: Llem,
) -> None:
    study = misbehaving_study(llem, "refuse", cycles=8)

    done = llem("run", study)

    assert done.code == 1
    assert "llem: stopped: all 3 experiments failed the same way, in phase 'load'" in done.err
    assert "no such driver" in done.err
    left = Left.by(llem)
    assert left.resume_line in done.err
    assert len(left.errors) == 3
    assert not list(left.study.experiments.glob("0004_*")), "nothing is started after the stop"

    (llem.folder / "mended").touch()
    resumed = llem("run", "--resume", left.path)
    assert resumed.code == 0, resumed.err
    assert len(left.results) == 8
    assert {"error.1.json", "result.json"} <= left.names("0001")


def test_a_stopped_study_says_so_in_json(llem: Llem) -> None:
    done = llem("run", misbehaving_study(llem, "refuse", cycles=3), "--json")
    assert done.code == 1
    assert done.error["code"] == "study"
    assert "failed the same way" in done.error["message"]
    assert Left.by(llem).resume_line in done.error["message"]


def test_configurations_that_break_in_different_ways_do_not_stop_each_other(llem: Llem) -> None:
    done = llem("run", misbehaving_study(llem, "refuse", "kill", "leave"))
    assert done.code == 1
    assert "stopped" not in done.err
    assert len(Left.by(llem).errors) == 3
    assert "0 experiments ran, 3 failed" in done.out
