"""The sampling process: cadence, hand-over, and every way in which a child can fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from llenergymeasure.core.energy.sampler import (
    ReaderSpec,
    SamplerLimits,
    SamplerProcess,
    sampling_cost,
)
from llenergymeasure.domain.energy import Reading
from llenergymeasure.exceptions import BackendError

SUPPORT = Path(__file__).parents[1] / "support"
QUICK = SamplerLimits(start_s=10.0, answer_s=1.0, exit_s=0.5)


@pytest.fixture(autouse=True)
def _readers_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SUPPORT))


@pytest.fixture
def make() -> Iterator[object]:
    made: list[SamplerProcess] = []
    before = psutil.Process().children()  # of another file's tests, which still run

    def make_sampler(reader: str, limits: SamplerLimits = QUICK, **arguments: object):
        sampler = SamplerProcess(ReaderSpec(f"energy_readers:{reader}", arguments), limits)
        made.append(sampler)
        return sampler

    yield make_sampler
    for sampler in made:
        sampler.stop()
    assert psutil.Process().children() == before


def record(sampler: SamplerProcess, seconds: float):
    sampler.begin()
    time.sleep(seconds)
    return sampler.end()


def test_a_window_has_every_reading_in_order_with_its_brackets(make):
    sampler = make("Counter", period_s=0.005)
    sampler.start()
    before_ns = time.monotonic_ns()
    recorded = record(sampler, 0.3)
    after_ns = time.monotonic_ns()

    values = [reading.value for reading in recorded.readings]
    assert values == [values[0] + step for step in range(len(values))]
    assert 20 < len(values) < 90
    edges = [edge for r in recorded.readings for edge in (r.before_ns, r.after_ns)]
    assert edges == sorted(edges)
    assert before_ns < edges[0] < edges[-1] < after_ns
    assert recorded.span.seconds == pytest.approx(0.3, abs=0.1)


def test_each_quantity_of_a_poll_has_a_bracket_of_its_own_and_nan_is_no_reading(make):
    sampler = make("TwoQuantities", period_s=0.02)
    sampler.start()
    readings = record(sampler, 0.1).readings

    assert {(r.channel, r.device) for r in readings} == {
        ("quick_w", "device-0"),
        ("slow_w", "device-1"),
    }
    slow = [r.after_ns - r.before_ns for r in readings if r.channel == "slow_w"]
    quick = [r.after_ns - r.before_ns for r in readings if r.channel == "quick_w"]
    assert min(slow) >= 10e6
    assert min(quick) < 5e6


def test_the_cadence_neither_drifts_nor_catches_up_with_missed_polls(make):
    period_ns = 20_000_000
    sampler = make("Slow", period_s=0.02)
    sampler.start()
    readings = record(sampler, 0.8).readings[:-1]  # the last poll closes the window

    # A poll that begins within its period of the grid: offsets stay put over the whole window.
    offsets = [(r.before_ns - readings[0].before_ns) % period_ns for r in readings]
    on_time = [min(offset, period_ns - offset) < period_ns / 4 for offset in offsets]
    assert sum(on_time) >= 0.6 * len(readings)
    gaps = [b.before_ns - a.after_ns for a, b in pairwise(readings)]
    assert min(gaps) > 0
    assert len(readings) < 40


def test_windows_follow_each_other_and_nothing_is_polled_between_them(make):
    sampler = make("Counter", period_s=0.01)
    sampler.start()
    first = record(sampler, 0.1)
    time.sleep(0.2)
    second = record(sampler, 0.1)

    assert first.readings[-1].value < second.readings[0].value
    assert second.readings[0].value - first.readings[-1].value == 1


def test_a_long_window_is_handed_over_whole(make):
    sampler = make("Counter", period_s=0.0001)
    sampler.start()
    recorded = record(sampler, 1.0)

    assert len(recorded.readings) > 1000
    assert recorded.readings[-1].value == recorded.summary["polls"]


def test_the_child_stays_small(make):
    sampler = make("Counter")
    sampler.start()
    modules = set(record(sampler, 0.02).summary["modules"])

    assert not modules & {"torch", "numpy", "pydantic", "pyarrow", "codecarbon"}
    assert psutil.Process(sampler.pid).memory_info().rss < 40 * 2**20


def test_a_time_limit_that_the_program_sets_for_its_sockets_is_not_that_of_the_channel(
    make, monkeypatch
):
    before_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(1.0)
    try:
        sampler = make("Bulky", period_s=0.01)
        sampler.start()
        assert len(record(sampler, 0.5).readings) >= 50_000
    finally:
        socket.setdefaulttimeout(before_s)


def test_the_cost_is_that_of_the_window(make):
    sampler = make("Counter")
    sampler.start()
    recorded = record(sampler, 0.3)

    assert recorded.cost.reads == len(recorded.readings)
    assert 0 < recorded.cost.mean_read_ms <= recorded.cost.p99_read_ms < 100
    assert 0 < recorded.cost.cpu_seconds < 0.2


def test_the_99th_percentile_is_a_reading_and_no_reading_has_no_time():
    readings = [Reading("w", "d", 0, (n + 1) * 1_000_000, 1.0) for n in range(200)]

    assert sampling_cost(readings, 0.5).p99_read_ms == 198.0
    assert sampling_cost(readings, 0.5).mean_read_ms == 100.5
    assert sampling_cost([], 0.5).mean_read_ms is None
    assert sampling_cost([], 0.5).p99_read_ms is None


def test_what_a_library_prints_does_not_reach_the_channel(make):
    sampler = make("Chatty")
    sampler.start()

    assert record(sampler, 0.1).summary["polls"] > 2


def test_a_reader_that_cannot_be_made_is_told_with_its_last_words(make):
    sampler = make("FailsAtOnce")
    with pytest.raises(BackendError, match=r"(?s)exit code 1.*no such meter.*energy_backend: none"):
        sampler.start()
    assert sampler.pid is None


def test_a_reader_that_breaks_in_a_window_is_told_with_its_last_words(make):
    sampler = make("FailsInWindow")
    sampler.start()
    sampler.begin()
    time.sleep(0.2)
    with pytest.raises(BackendError, match=r"(?s)the cable fell out.*counter went away"):
        sampler.end()


def test_a_child_killed_by_a_signal_is_told_by_the_signal(make):
    sampler = make("KillsItself")
    sampler.start()
    with pytest.raises(BackendError, match=r"killed by signal 11 \(Segmentation fault\)"):
        record(sampler, 0.02)


def test_a_failure_stays_the_same_failure(make):
    sampler = make("KillsItself")
    sampler.start()
    with pytest.raises(BackendError) as first:
        record(sampler, 0.02)
    with pytest.raises(BackendError) as second:
        sampler.begin()

    assert first.value.message == second.value.message


@pytest.mark.parametrize(("reader", "start_s"), [("Hangs", 10.0), ("HangsAtOnce", 0.5)])
def test_a_reader_that_hangs_is_ended_in_bounded_time(make, reader, start_s):
    sampler = make(reader, limits=SamplerLimits(start_s=start_s, answer_s=0.5, exit_s=0.3))

    def use() -> None:
        sampler.start()
        record(sampler, 0.1)

    began = time.monotonic()
    with pytest.raises(BackendError, match=r"did not answer '\w+' within 0.5 s and was ended"):
        use()
    sampler.stop()
    assert time.monotonic() - began < 30


def test_stop_is_bounded_when_the_reader_hangs_and_nobody_asked(make):
    sampler = make("Hangs")
    sampler.start()
    sampler.begin()
    time.sleep(0.1)
    pid = sampler.pid
    began = time.monotonic()
    sampler.stop()
    sampler.stop()

    assert time.monotonic() - began < 30
    assert not psutil.pid_exists(pid)


def test_a_stopped_child_is_ended_too(make):
    sampler = make("Counter")
    sampler.start()
    sampler.begin()
    os.kill(sampler.pid, signal.SIGSTOP)
    with pytest.raises(BackendError, match="did not answer 'end'"):
        sampler.end()


def test_ctrl_c_does_not_end_the_child(make):
    sampler = make("Counter")
    sampler.start()
    sampler.begin()
    os.killpg(os.getpgid(sampler.pid), signal.SIGINT)
    os.kill(sampler.pid, signal.SIGINT)
    time.sleep(0.05)

    assert sampler.end().readings
    assert os.getpgid(sampler.pid) != os.getpgid(0)


def test_only_one_sampler_runs_in_a_process(make):
    first, second = make("Counter"), make("Counter")
    first.start()
    with pytest.raises(BackendError, match="already runs in this process"):
        second.start()
    with pytest.raises(BackendError, match="already started"):
        first.start()
    assert record(first, 0.02).readings
    first.stop()
    second.start()

    assert record(second, 0.02).readings


def test_a_sampler_that_failed_to_start_leaves_the_place_free(make):
    with pytest.raises(BackendError, match="no such meter"):
        make("FailsAtOnce").start()
    make("Counter").start()


def test_a_sampler_that_is_not_started_says_so(make):
    sampler = make("Counter")
    sampler.stop()
    with pytest.raises(BackendError, match="is not started"):
        sampler.begin()


@pytest.mark.parametrize("reader", ["Counter", "Hangs"])
def test_the_child_goes_when_its_parent_is_killed(reader):
    script = (
        "import sys, time\n"
        "from llenergymeasure.core.energy.sampler import ReaderSpec, SamplerProcess\n"
        f"sys.path.insert(0, {str(SUPPORT)!r})\n"
        f"sampler = SamplerProcess(ReaderSpec('energy_readers:{reader}'))\n"
        "sampler.start(); sampler.begin(); time.sleep(0.1)\n"
        "print(sampler.pid, flush=True); time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        psutil.wait_procs([child], timeout=5)

    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_child_goes_when_its_parent_is_killed_while_a_fork_of_it_lives():
    script = (
        "import os, sys, time\n"
        "from llenergymeasure.core.energy.sampler import ReaderSpec, SamplerProcess\n"
        f"sys.path.insert(0, {str(SUPPORT)!r})\n"
        "sampler = SamplerProcess(ReaderSpec('energy_readers:Counter'))\n"
        "sampler.start()\n"
        "fork = os.fork()\n"
        "if fork: print(sampler.pid, fork, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        child, fork = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        parent.kill()
        parent.wait()
        psutil.wait_procs([child], timeout=5)
        gone = not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        fork.kill()

    assert gone
