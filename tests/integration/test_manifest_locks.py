"""One coordinator owns a study: real processes race for it, die with it, and are named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from llenergymeasure.exceptions import StudyError
from llenergymeasure.locks import owned
from llenergymeasure.results.layout import StudyDirectory
from tests.support.cli import SOURCE

COORDINATOR = """
import os, sys, time
from pathlib import Path
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.locks import owned

try:
    with owned(StudyDirectory(Path(sys.argv[1]))):
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(60)
        print("owned", flush=True)
        sys.stdin.readline()
except StudyError as error:
    print(error.message, flush=True)
"""


@pytest.fixture
def study(tmp_path: Path) -> StudyDirectory:
    return StudyDirectory(tmp_path)


def start(study: StudyDirectory, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(study.root), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def ended(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Kill what is left at the end."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_of_two_resumes_at_once_the_second_is_refused_and_told_of_the_first(
    study: StudyDirectory,
) -> None:
    racing = [start(study), start(study)]
    with ended(*racing):
        answers = [said(process) for process in racing]
        winner = racing[answers.index("owned")]
        (refused,) = [answer for answer in answers if answer != "owned"]
        assert f"is being run by pid {winner.pid} (" in refused
        assert "--resume" in refused
        with pytest.raises(StudyError, match=f"pid {winner.pid} "), owned(study):
            pytest.fail("it is owned")


def test_a_killed_owner_leaves_the_study_free_though_its_child_lives(
    study: StudyDirectory,
) -> None:
    first = start(study, "fork")
    with ended(first):
        assert said(first) == "owned"
        (child,) = psutil.Process(first.pid).children()
        try:
            first.kill()
            first.wait()
            assert child.is_running()
            with owned(study):
                pass
        finally:
            child.send_signal(signal.SIGKILL)


def test_it_is_let_go_at_the_end_and_after_an_error(study: StudyDirectory) -> None:
    with pytest.raises(ZeroDivisionError), owned(study):
        raise ZeroDivisionError
    with owned(study):
        pass


def test_a_directory_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(StudyError, match="No such file or directory"),
        owned(StudyDirectory(tmp_path / "absent")),
    ):
        pytest.fail("there is nothing to own")


def test_a_directory_that_goes_while_it_is_owned_hides_no_other_error(
    study: StudyDirectory,
) -> None:
    with owned(study):
        study.lock.unlink()
        study.root.rmdir()


def test_a_lock_that_cannot_be_opened_is_an_error_that_says_what_to_do(
    study: StudyDirectory,
) -> None:
    study.lock.mkdir()
    with pytest.raises(StudyError, match="copy it to such a disk"), owned(study):
        pytest.fail("it cannot be locked")
