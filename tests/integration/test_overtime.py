"""Loading ends, whatever it does: in this process, or with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llenergymeasure.exceptions import BackendError
from llenergymeasure.orchestration.events import Event
from llenergymeasure.overtime import Guard, LastWords
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import read_failure
from llenergymeasure.study.runner import loading_bounded
from tests.support.cli import CLEAN
from tests.support.models import save_model
from tests.support.scripted_run import make_order, scripted_config

NATIVE = """
import itertools
import sys
from pathlib import Path

from llenergymeasure.overtime import Guard, LastWords

words = LastWords(Path(sys.argv[1]), "the failure", "loading never ended\\n")
Guard(0.3, lambda: RuntimeError("broken off"), words, grace_s=0.5).begin()
sum(itertools.repeat(0))  # never lets another thread, or a handler of Python's, run
"""


def endless() -> None:
    while True:
        pass


def guard(limit_s: float, folder: Path) -> Guard:
    words = LastWords(folder / "left", "the failure", "said")
    return Guard(limit_s, lambda: BackendError("broken off"), words, grace_s=30)


def test_python_that_does_not_end_is_broken_off_here(tmp_path: Path) -> None:
    bounded = guard(0.2, tmp_path)
    bounded.begin()
    try:
        with pytest.raises(BackendError, match="broken off"):
            endless()
    finally:
        bounded.end()
    assert not (tmp_path / "left").exists()


def test_what_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGRTMAX - 1)
    bounded = guard(0.5, tmp_path)
    for _ in range(2):
        bounded.begin()
        bounded.begin()
        bounded.end()
        bounded.end()
    time.sleep(0.8)
    assert signal.getsignal(signal.SIGRTMAX - 1) == before


def test_native_code_that_does_not_end_is_killed_and_leaves_its_failure(tmp_path: Path) -> None:
    left = tmp_path / "error.json"
    done = subprocess.run(
        [sys.executable, "-c", NATIVE, str(left)],
        env=CLEAN,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL
    assert left.read_text() == "the failure"
    assert "loading never ended" in done.stderr


def event(phase: str) -> Event:
    return Event(time.monotonic_ns(), "initialising", phase)


def test_loading_in_this_process_is_bounded_and_the_rest_is_not(tmp_path: Path) -> None:
    directory, seen = ExperimentDirectory(tmp_path), []
    order = make_order(scripted_config(), tmp_path)

    with loading_bounded(directory, order, lambda one: seen.append(one.phase), 0.2) as tell:
        tell(event("load"))
        tell(event("prepare"))
        with pytest.raises(BackendError, match=r"took longer than 0\.2 s") as caught:
            endless()
        assert (caught.value.code, caught.value.where) == ("timeout", "load")
        tell(event("load"))
        tell(event("warmup"))
        time.sleep(0.5)

    assert seen == ["load", "prepare", "load", "warmup"]


def test_what_is_left_by_a_process_that_was_killed_is_a_failure_like_any_other(
    tmp_path: Path,
) -> None:
    text = """
import itertools, sys, time
from pathlib import Path

from llenergymeasure import overtime
from llenergymeasure.orchestration.events import Event
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study import runner
from tests.support.scripted_run import make_order, scripted_config

overtime.Guard.__init__.__defaults__ = (0.3,)
place = Path(sys.argv[1])
order = make_order(scripted_config(), place)
bounded = runner.loading_bounded(ExperimentDirectory(place), order, print, 0.3)
with bounded as tell:
    tell(Event(time.monotonic_ns(), "initialising", "load"))
    sum(itertools.repeat(0))
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", text, str(tmp_path)],
        env={**CLEAN, "PYTHONPATH": f"{CLEAN['PYTHONPATH']}:{root}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    failure = read_failure(ExperimentDirectory(tmp_path).error)
    assert (failure.code, failure.phase) == ("timeout", "load")
    assert "set execution.timeout_s" in failure.message
    assert "llem: loading the model" in done.stderr


def test_a_template_that_never_ends_ends_the_experiment_in_the_process_of_the_caller(
    tmp_path: Path,
) -> None:
    folder = save_model(tmp_path / "m")
    (folder / "chat_template.jinja").write_text(
        "{% for a in range(99999) %}" * 6 + "{% endfor %}" * 6
    )
    order = make_order(
        scripted_config(
            backend="pytorch",
            scripted=None,
            model=str(folder),
            apply_chat_template=True,
            precision="fp32",
        ),
        tmp_path,
        energy_backend="none",
    )
    from llenergymeasure.orchestration import worker

    directory = ExperimentDirectory(tmp_path / "e")
    directory.root.mkdir()
    order.write(directory)
    with loading_bounded(directory, order, lambda _: None, 12) as tell:
        outcome = worker.run(directory, tell)

    kept = json.loads(directory.error.read_text())
    assert (kept["code"], kept["phase"]) == ("timeout", "prepare")
    assert "took longer than 12 s" in outcome.message
