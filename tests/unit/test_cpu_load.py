"""Whose work it was that kept the CPUs busy."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llenergymeasure.core.environment import CPUTimes, cpu_load, read_cpu_times

BEFORE = CPUTimes(total_s=1000.0, busy_s=300.0, own_s=20.0)


def test_what_is_busy_and_not_ours_is_the_work_of_others():
    load = cpu_load(BEFORE, CPUTimes(1020.0, 312.0, 29.0), 10.0)

    assert load is not None
    assert load.own_share == pytest.approx(9 / 20)
    assert load.other_share == pytest.approx(3 / 20)


def test_a_difference_below_the_steps_of_the_counters_is_none():
    load = cpu_load(BEFORE, CPUTimes(1020.0, 309.98, 30.0), 10.0)

    assert load is not None
    assert load.other_share == 0


@pytest.mark.parametrize(
    ("before", "after", "elapsed_s"),
    [
        (None, BEFORE, 10.0),
        (BEFORE, None, 10.0),
        (BEFORE, CPUTimes(1001.0, 301.0, 20.5), 0.5),
        (BEFORE, BEFORE, 10.0),
    ],
)
def test_what_cannot_be_told_is_not_told(before, after, elapsed_s):
    assert cpu_load(before, after, elapsed_s) is None


def test_children_count_as_ours_while_they_run_and_when_they_have_ended():
    def spend(seconds: float) -> subprocess.Popen[str]:
        code = (
            f"import time\nwhile time.process_time() < {seconds}: pass\n"
            "print('spent', flush=True)\ninput()"
        )
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)

    before = read_cpu_times()
    with spend(0.5) as child:
        child.stdout.readline()
        running = read_cpu_times()
        child.stdin.write("\n")
    ended = read_cpu_times()

    assert running.own_s - before.own_s >= 0.4
    assert ended.own_s >= running.own_s - 0.01
    assert ended.busy_s - before.busy_s >= 0.4
    assert ended.total_s > before.total_s
