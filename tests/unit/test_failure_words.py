"""What the command says when the system refuses, and how long a message may be."""

from __future__ import annotations

import errno
import os

import pytest

from llenergymeasure.cli.failure import FAILED, FailureReport
from llenergymeasure.exceptions import ConfigError, PreFlightError, Problem, first_few, shortened

REPORT = FailureReport(as_json=False, verbose=False)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 8.0 GiB"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ImportError(
            "a page of advice\nOriginal error was: x.so: failed to map segment from shared"
        ),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_machine_that_is_short_of_memory_is_no_defect(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert REPORT.failure(error) == FAILED
    said = capsys.readouterr().err
    assert said.startswith("llem: there is not enough memory")
    assert said.endswith("raise the limit (ulimit -v, a container, a job), or ask for less\n")
    assert "advice" not in said


def test_any_other_error_of_these_kinds_is_still_a_defect(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error in (ImportError("no module x"), RuntimeError("no"), ValueError("memory")):
        REPORT.failure(error)
        assert "this is a defect of llem" in capsys.readouterr().err


def test_no_message_is_longer_than_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    REPORT.failure(ConfigError("a b " * 5_000))
    assert 3_000 < len(capsys.readouterr().err) < 4_000
    REPORT.failure(ConfigError(f"unknown {'x' * 3_000} of /a/{'b' * 200}/c"))
    said = capsys.readouterr().err
    assert said == f"llem: unknown {'x' * 79}… of /a/{'b' * 200}/c\n"


def test_problems_are_listed_as_far_as_there_is_room() -> None:
    assert list(first_few(["a", "b"])) == ["a", "b"]
    assert list(first_few(range(30)))[8:] == ["8", "9", "and 20 more"]
    assert list(first_few(["x" * 2_000, "y" * 2_000, "z"])) == ["x" * 2_000, "and 2 more"]
    (only,) = first_few(["x" * 9_000])
    assert only == shortened("x" * 9_000, 3_000)
    many = PreFlightError([Problem(f"no {number}", "here", "none") for number in range(99)])
    assert many.message.startswith("99 problems before anything was loaded:\n  - here: no 0")
    assert many.message.endswith("\n  - and 89 more")
    assert len(many.problems) == 99
