"""Commands that want the same device take turns."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli import QUICK, Llem, interrupt, wait_for

SLOW = (*QUICK, "--max-new-tokens", "10000")


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


def phases(llem: Llem, folder: str) -> list[str]:
    files = list((llem.folder / folder).glob("*/events.jsonl"))
    lines = files[0].read_text().splitlines() if files else []
    return [json.loads(line)["phase"] for line in lines]


@contextmanager
def running(llem: Llem, folder: str, phase: str, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A command that has come to a phase; killed at the end if it is still there."""
    process = llem.start("run", *flags, "-o", folder)
    try:
        wait_for(lambda: phase in phases(llem, folder) or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_two_commands_measure_one_after_the_other(llem: Llem) -> None:
    with (
        running(llem, "one", "warmup", *SLOW) as first,
        running(llem, "two", "wait", *QUICK) as second,
    ):
        assert phases(llem, "two") == ["wait"]
        interrupt(first)
        _out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert f"waiting for the CPU of this machine, measured by pid {first.pid} (" in err


def test_ctrl_c_ends_a_wait(llem: Llem) -> None:
    with running(llem, "one", "warmup", *SLOW) as first, running(llem, "two", "wait", *QUICK) as it:
        done = interrupt(it)
        assert done.code == 130
        assert "interrupted in phase 'wait'" in done.err
        assert first.poll() is None, "whoever has the device keeps it"


def test_the_device_of_a_killed_command_is_free_at_once(llem: Llem) -> None:
    with running(llem, "one", "warmup", *SLOW) as first:
        first.kill()
        first.communicate()
        assert llem("run", *QUICK, "-o", "two").code == 0
    assert "wait" not in phases(llem, "two")
