"""Results that cannot be written: no half of one is left, and the message says where to turn."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llenergymeasure import ExperimentResult
from tests.support.cli import QUICK, THIRD_PARTY, Llem
from tests.support.small_disk import SmallDisk, small_disk_at


@pytest.fixture
def llem(tmp_path: Path) -> Llem:
    return Llem(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk_at(tmp_path / "disk", "48k") as disk:
        yield disk


def result_like(llem: Llem) -> list[str]:
    """Name what could be taken for a result, or for half of one."""
    suspicious = ("result.json", ".tmp")
    return [str(path) for path in llem.folder.rglob("*") if path.name.endswith(suspicious)]


@pytest.mark.parametrize("place", ["a-file/below", "/proc/below"])
def test_a_place_that_cannot_hold_directories(llem: Llem, place: str) -> None:
    llem.write("a-file", "not a directory")
    said = llem.fails("run", *QUICK, "-o", place)
    assert f"cannot create a directory for results in {place}" in said
    assert "--output" in said
    assert "loading the model" not in said, "it must be found before time is spent"


def test_a_full_disk_before_anything_starts(llem: Llem) -> None:
    said = llem.fails("run", *QUICK, preexec_fn=llem.files_up_to(100))
    assert "config.json: File too large; make room" in said
    assert "loading the model" not in said


def test_a_disk_that_fills_up_while_the_result_is_written(llem: Llem) -> None:
    done = llem("run", *QUICK, preexec_fn=llem.files_up_to(5_000))
    assert done.code == 1
    assert "failed in phase 'save': cannot write" in done.err
    assert "File too large; make room, or put results elsewhere with --output" in done.err
    assert result_like(llem) == []


def test_a_disk_that_fills_up_with_what_an_engine_prints(llem: Llem) -> None:
    llem.plugin(
        "class Backend(ScriptedBackend):\n"
        "    def load(self, config, cache_dir):\n"
        "        print('chatter\\n' * 100_000)\n"
        "        return super().load(config, cache_dir)\n"
    )
    done = llem("run", *THIRD_PARTY, preexec_fn=llem.files_up_to(200_000))
    assert done.code == 0, done.err
    assert len(result_like(llem)) == 1


def test_a_small_disk_that_is_full(llem: Llem, small_disk: SmallDisk) -> None:
    small_disk.fill(36 << 10)
    done = llem("run", *QUICK, "-n", "2", "-o", str(small_disk.path / "results"), timeout_s=60)
    assert done.code == 1
    assert "No space left on device; make room" in done.err
    assert not list(small_disk.path.rglob("result.json"))
    rescued = re.search(r"what was measured is kept in (\S+)", done.err)
    assert rescued is not None, done.err
    assert ExperimentResult.from_json(rescued.group(1)).throughput.requests_completed == 2


def test_a_disk_without_any_room(llem: Llem, small_disk: SmallDisk) -> None:
    small_disk.fill(48 << 10)
    done = llem("run", *QUICK, "-o", str(small_disk.path / "results"))
    assert done.code == 1
    assert "No space left on device" in done.err
    assert result_like(llem) == []


def test_standard_output_that_is_full(llem: Llem) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            llem.command("run", *QUICK),
            cwd=llem.folder,
            env=llem.variables(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "cannot write the output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(llem.folder.glob("results/*/result.json"))) == 1


@pytest.mark.parametrize("command", [("run", *QUICK), ("config",)])
def test_what_is_told_beside_is_worth_no_failure(llem: Llem, command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            llem.command(*command),
            cwd=llem.folder,
            env=llem.variables(),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0
    assert done.stdout


def test_standard_output_that_is_closed_is_none(llem: Llem) -> None:
    command = shlex.join(llem.command("run", *QUICK))
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {command} >&-"],
        cwd=llem.folder,
        env=llem.variables(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "defect" not in done.stderr
    assert len(list(llem.folder.glob("results/*/result.json"))) == 1
