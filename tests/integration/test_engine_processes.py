"""Processes that an engine starts, with processes of our own in its place."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from llenergymeasure.core.backends.shared import engine_start
from llenergymeasure.core.backends.shared.engine_processes import EngineProcesses
from tests.support.cli import SOURCE, wait_for

ORPHANING = """
import multiprocessing, os, sys, time
from llenergymeasure.core.backends.shared.engine_processes import EngineProcesses

processes = EngineProcesses({})
with processes.starting():
    multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,)).start()
while not processes.running():
    time.sleep(0.05)
print(processes.running()[0].pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def processes(lines):
    made = EngineProcesses({"ENGINE_TEST": "yes"}, lines.append)
    yield made
    made.end()
    assert not made.running()


def started(processes: EngineProcesses, target, *arguments):
    with processes.starting():
        process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
        process.start()
    return process


def test_what_they_print_is_handed_on_line_by_line(processes, lines, capfd):
    started(processes, os.system, "echo to standard output; echo to standard error >&2").join()
    wait_for(lambda: len(lines) == 2)

    assert lines == ["to standard output\n", "to standard error\n"]
    assert processes.printed() == ["to standard output", "to standard error"]
    assert capfd.readouterr() == ("", "")


def test_they_get_the_variables_and_this_process_keeps_its_own(processes, lines):
    started(processes, os.system, "echo $ENGINE_TEST").join()
    wait_for(lambda: lines)

    assert lines == ["yes\n"]
    assert "ENGINE_TEST" not in os.environ


def test_a_flood_is_no_bother(processes, lines):
    started(processes, os.system, "seq 200000").join()
    wait_for(lambda: len(lines) == 200_000)

    assert len(processes.printed()) == 400


def test_their_children_are_found_and_ended_with_them(processes):
    child = started(processes, os.system, "sleep 600")
    wait_for(lambda: len(processes.running()) >= 2)
    processes.end()
    child.join()

    assert processes.running() == []


def test_an_orphan_of_theirs_is_ended_too(processes):
    child = started(processes, os.system, "sleep 600 & exec sleep 600")
    wait_for(lambda: len(processes.running()) >= 3)
    child.kill()
    child.join()
    assert processes.running()
    processes.end()

    assert processes.running() == []


def test_the_death_of_one_is_told_with_its_exit_code(processes):
    told: list[bool] = []
    child = started(processes, time.sleep, 600)
    processes.on_death(lambda: told.append(True))
    child.kill()
    wait_for(lambda: told)
    child.join()

    assert processes.exit_codes() == [-signal.SIGKILL]


def test_they_end_with_this_process_however_that_ends(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(ORPHANING)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE,
                              text=True, env=environment)  # fmt: skip
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()

    child.wait(timeout=30)
    assert not child.is_running()


def test_a_wait_for_processes_that_have_ended_is_broken_off():
    with (
        pytest.raises(RuntimeError, match="every process of the engine ended"),
        engine_start.not_without_processes(lambda: True),
    ):
        time.sleep(600)


def test_a_start_that_ends_by_itself_is_left_alone():
    handler = signal.getsignal(signal.SIGALRM)
    with engine_start.not_without_processes(lambda: False):
        pass

    assert signal.getsignal(signal.SIGALRM) is handler
