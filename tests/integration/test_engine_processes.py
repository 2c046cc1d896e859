"""Processes that an engine starts, with processes of our own in its place."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from llenergymeasure.core.backends.shared.answering import Patience, no_answer_later_than
from llenergymeasure.core.backends.shared.processes import EngineProcesses
from llenergymeasure.exceptions import BackendError
from tests.support.cli import SOURCE, wait_for

ORPHANING = """
import multiprocessing, os, sys, time
from llenergymeasure.core.backends.shared.processes import EngineProcesses

processes = EngineProcesses("the engine", {})
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
    made = EngineProcesses("the engine", {"ENGINE_TEST": "yes"}, lines.append)
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


def test_the_death_of_another_engines_process_is_not_told(processes):
    told: list[bool] = []
    ours = started(processes, time.sleep, 600)
    other = EngineProcesses("another engine", {})
    child = started(other, time.sleep, 600)
    other.end()  # waits for its end aside of multiprocessing, which goes on to list it
    processes.on_death(lambda: told.append(True))
    child.join()

    time.sleep(0.2)
    assert told == []
    ours.kill()
    wait_for(lambda: told)


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


QUICK = Patience(stopped_s=0.5, idle_s=1.5, gone_s=0.3, starts=True, look_every_s=0.05)


def failure(processes: EngineProcesses, wait, patience: Patience = QUICK) -> BackendError:
    def ask() -> None:
        with processes.answering("generate", patience):
            wait()
            time.sleep(600)

    with pytest.raises(BackendError, match="the engine no longer answers: ") as caught:
        ask()
    assert caught.value.where == "generate"
    return caught.value


def busy(processes: EngineProcesses):
    child = started(processes, os.system, "while :; do :; done")
    wait_for(processes.running)
    return child


def test_a_wait_for_processes_that_have_ended_is_broken_off(processes):
    child = busy(processes)

    def killed() -> None:
        time.sleep(0.3)
        for process in processes.running():
            process.kill()
        child.join()

    assert "all of its processes have ended" in failure(processes, killed).message


def test_a_process_that_is_stopped_is_killed_and_the_wait_for_it_ends(processes):
    child = busy(processes)

    def stopped() -> None:
        os.kill(child.pid, signal.SIGSTOP)
        child.join()
        raise RuntimeError("the engine says that it died")

    said = failure(processes, stopped).message
    assert f"process {child.pid} has been stopped for 0.5 s" in said
    assert "no kill -STOP" in said


def test_processes_that_do_nothing_are_killed(processes):
    child = started(processes, time.sleep, 600)
    wait_for(processes.running)

    assert "have done nothing for 1.5 s" in failure(processes, child.join).message


def look_for_work() -> None:
    while True:
        end_s = time.perf_counter() + 0.0003
        while time.perf_counter() < end_s:
            pass
        time.sleep(0.02)


def test_processes_that_only_look_for_work_do_nothing(processes):
    child = started(processes, look_for_work)
    wait_for(processes.running)
    patience = QUICK._replace(idle_s=3.0)

    assert "have done nothing for 3 s" in failure(processes, child.join, patience).message


def test_processes_that_work_may_take_their_time(processes):
    busy(processes)
    with processes.answering("generate", QUICK):
        time.sleep(3)

    assert processes.running()


def test_an_engine_that_does_not_end_in_time_is_killed(processes):
    child = busy(processes)

    said = failure(processes, child.join, QUICK._replace(whole_s=0.5)).message
    assert "it has not done that within 0.5 s" in said


def test_no_single_answer_takes_longer_than_the_experiment_may(processes):
    child = busy(processes)

    with no_answer_later_than(lambda: 1.0):
        said = failure(processes, child.join, QUICK._replace(limit_after_s=0.5)).message
    assert "it has not done that within 1 s" in said


def test_a_wait_that_ends_by_itself_is_left_alone(processes):
    handler = signal.getsignal(signal.SIGRTMAX)
    with processes.answering("load", QUICK):
        time.sleep(0.5)  # without any process yet

    assert signal.getsignal(signal.SIGRTMAX) is handler


def test_an_alarm_is_the_callers_own_and_so_is_a_handler_of_c(processes):
    """A program may bound a measurement by an alarm; a C library may have a handler for it."""
    heard: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    try:
        with processes.answering("load", QUICK):
            signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [signal.SIGALRM]

    libc, by_c = ctypes.CDLL(None), ctypes.CFUNCTYPE(None, ctypes.c_int)(heard.append)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGALRM, by_c)
    try:
        with processes.answering("load", QUICK):
            pass
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [signal.SIGALRM] * 2


def test_an_engine_that_does_not_shut_down_in_good_order_is_ended_all_the_same(processes, capsys):
    child = started(processes, time.sleep, 600)
    wait_for(processes.running)

    def shut_down() -> None:
        raise BackendError("it no longer answers", where="close")

    processes.close(shut_down)
    child.join()
    assert processes.running() == []
    assert capsys.readouterr().out == "it no longer answers\n"
