"""Commands that `make test` runs side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import wait_for

SCRIPT = Path(__file__).parents[2] / "scripts" / "side_by_side.py"


@pytest.fixture
def start(tmp_path: Path):
    def make(*commands: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), *commands],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return make


def test_they_run_at_the_same_time_and_all_is_shown(start):
    each_waits_for_the_other = "touch {}; until [ -e {} ]; do sleep 0.05; done; echo ended {}"
    pairs = [("a", "b", "first"), ("b", "a", "second")]
    process = start(*(each_waits_for_the_other.format(*pair) for pair in pairs))
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "ended first\n" in out
    assert "ended second\n" in out


def test_what_failed_fails_them_all_and_is_shown_last(start):
    process = start(
        "echo broken here >&2; touch failed; exit 3",
        "until [ -e failed ]; do sleep 0.05; done; sleep 0.3; echo all is well",
    )
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert out.index("all is well\n") < out.index("broken here\n")
    assert "exit code 3 after" in out


def test_an_interrupt_ends_them_and_shows_what_they_said(start, tmp_path):
    process = start("trap 'echo interrupted; exit 2' INT; touch up; while :; do sleep 0.05; done")
    wait_for((tmp_path / "up").exists)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "interrupted\n" in out


def test_a_request_to_end_is_passed_on_and_what_they_said_is_shown(start, tmp_path):
    process = start("trap 'echo told to end; exit 3' TERM; touch up; while :; do sleep 0.05; done")
    wait_for((tmp_path / "up").exists)
    process.terminate()
    out, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "told to end\n" in out
