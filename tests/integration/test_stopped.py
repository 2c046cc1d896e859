"""Processes that somebody has stopped (SIGSTOP) neither hold a run up nor outlive it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from llenergymeasure.orchestration.events import Event
from llenergymeasure.processes import ChildProcess, same_modules
from llenergymeasure.study.events import Callbacks, StudyEvent
from tests.support.cli import SOURCE, wait_for
from tests.support.isolation import GRANDCHILD, Workers, backend, host, servers, workers
from tests.support.samples import EXHAUSTIVE

HANGING = "Path({path!r}).touch()\ntime.sleep(3600)"
GOOD_ORDER_S = 8.0
"""Less than the grace that one which does not end is given."""


def stop(*processes: psutil.Process) -> None:
    """Stop processes, and see that they are."""
    for process in processes:
        process.suspend()
    wait_for(lambda: {process.status() for process in processes} <= {psutil.STATUS_STOPPED})


def all_gone(processes: list[psutil.Process], within_s: float = 30) -> bool:
    """Tell whether processes end; those that nobody reaps have ended too."""
    end = time.monotonic() + within_s
    while left := [one for one in processes if one.is_running() and one.status() != "zombie"]:
        if time.monotonic() > end:
            for process in left:
                process.kill()
            return False
        time.sleep(0.02)
    return True


WHO = [
    who
    for count in (1, 2, 3)
    for who in itertools.combinations(("server", "worker", "daemon"), count)
]


@pytest.mark.parametrize(
    "who",
    [
        pytest.param(who, id=" ".join(who), marks=() if "server" in who[:1] else EXHAUSTIVE)
        for who in WHO
    ],
)
def test_nothing_is_left_of_what_is_stopped_when_the_parent_is_killed(
    each: Workers, who: tuple[str, ...]
) -> None:
    path = each.file("daemon")
    each.install(backend(f"leave_a_daemon({str(path)!r})\ntime.sleep(3600)", GRANDCHILD))
    with host(each, each.directory(each.order(backend="thirdparty")).root) as parent:
        wait_for(path.exists)
        (server,) = psutil.Process(parent.pid).children()
        daemon = psutil.Process(int(path.read_text()))
        worker = next(one for one in server.children() if one != daemon)
        named = {"server": server, "worker": worker, "daemon": daemon}
        left = [server, *server.children(recursive=True)]
        stop(*(named[name] for name in who))
        parent.kill()
    assert all_gone(left)


def test_nothing_is_left_when_it_is_stopped_while_the_engine_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workers(tmp_path, "auto", monkeypatch) as forked:
        path = forked.file("importing")
        slow = f"if 'fork_server' in sys.argv[0]:\n    {HANGING.format(path=str(path))}"
        slow = slow.replace("\ntime", "\n    time")
        forked.install(backend("pass", f"import sys, time\nfrom pathlib import Path\n{slow}"))
        with host(forked, forked.directory(forked.order(backend="thirdparty")).root) as parent:
            wait_for(path.exists)
            (server,) = psutil.Process(parent.pid).children()
            stop(server)
            parent.kill()
        assert all_gone([server])


@pytest.mark.parametrize("who", ["server", "worker", "both"])
def test_an_interrupt_of_what_is_stopped_ends_in_good_order(each: Workers, who: str) -> None:
    stopped_s: list[float] = []

    def listener(event: Event | StudyEvent) -> None:
        if isinstance(event, Event) and event.phase == "warmup" and not stopped_s:
            (server,) = servers()
            (worker,) = server.children()
            stop(*{"server": [server], "worker": [worker], "both": [server, worker]}[who])
            stopped_s.append(time.monotonic())
            raise KeyboardInterrupt

    slow = {"ttft_ms": 200.0, "itl_ms": 1000.0, "batch_size": 1}
    with pytest.raises(KeyboardInterrupt, match="in phase 'warmup'; no result was written"):
        each.run(each.runner(), calls=Callbacks(listener), scripted=slow, max_new_tokens=100)
    assert time.monotonic() - stopped_s[0] < GOOD_ORDER_S
    assert each.job.wait(0) == 130
    assert each.kept()["code"] == "interrupted"


def test_a_stopped_server_starts_the_next_worker_all_the_same(each: Workers) -> None:
    runner = each.runner()
    each.run(runner, "one")
    stop(*servers())
    began_s = time.monotonic()
    each.run(runner, "two")
    assert time.monotonic() - began_s < GOOD_ORDER_S


SAMPLING = """
import sys, time
from llenergymeasure.core.energy.sampler import ReaderSpec, SamplerProcess

sampler = SamplerProcess(ReaderSpec("tests.support.energy_readers:Counter"))
sampler.start()
sampler.begin()
print(sampler.pid, flush=True)
time.sleep(3600)
"""
GUARDED = """
import sys, time
from pathlib import Path
import psutil
from llenergymeasure.overtime import Guard, LastWords

Guard(3600, ValueError, LastWords(Path("/dev/null"), "", "")).begin()
time.sleep(0.5)
print(psutil.Process().children()[0].pid, flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("script", [SAMPLING, GUARDED], ids=["sampler", "guard"])
def test_a_stopped_helper_ends_with_the_process_that_it_helps(script: str) -> None:
    folders = os.pathsep.join([str(SOURCE), str(Path(__file__).parents[2])])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": folders},
    ) as parent:
        assert parent.stdout is not None
        helper = psutil.Process(int(parent.stdout.readline()))
        stop(helper)
        parent.kill()
    assert all_gone([helper])


class Impatient(ChildProcess):
    """A child whose messages have to be whole soon."""

    message_within_s = 0.3


def test_a_message_that_is_never_whole_is_given_up() -> None:
    child = Impatient("tests.support.half_a_message", {}, environment=same_modules())
    channel = Connection(child.end.detach())
    try:
        assert channel.poll(30)
        began_s = time.monotonic()
        with pytest.raises(OSError, match="temporarily unavailable"):
            channel.recv_bytes()
        assert time.monotonic() - began_s < 10
    finally:
        child.close(0)
        channel.close()


def test_a_trial_of_a_chat_template_ends_with_whoever_tries_it() -> None:
    nobody = [sys.executable, "-m", "llenergymeasure.core.models.tokenizers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        nobody, env=environment, input=b"{}", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_child_that_is_stopped_is_woken_to_end_by_itself() -> None:
    child = ChildProcess("tests.support.half_a_message", {}, environment=same_modules())
    stop(psutil.Process(child.pid))
    os.kill(child.pid, signal.SIGTERM)
    assert child.close(30) == -signal.SIGTERM
    child.end.close()
