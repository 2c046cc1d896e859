"""Experiments in processes of their own: how they start, and every way in which they can end."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llenergymeasure._version import __version__
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.orchestration import worker
from llenergymeasure.orchestration.events import Event
from llenergymeasure.orchestration.order import Start
from llenergymeasure.study.events import Callbacks
from llenergymeasure.study.runners.server_process import ServerProcess
from llenergymeasure.study.supervise import supervise
from tests.support.cli import SOURCE, Llem, wait_for
from tests.support.isolation import (
    GRANDCHILD,
    IN_SERVER,
    LONG_S,
    Workers,
    backend,
    host,
    is_running,
    servers,
    workers,
)
from tests.support.lock_holder import holder
from tests.support.scripted_run import make_order

KEY = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm12345678"
THREADS = """
import ctypes, json, os, sys
from pathlib import Path
import numpy, torch

def blas():
    lines = Path("/proc/self/maps").read_text().splitlines()
    for path in sorted({line.split()[-1] for line in lines if "libscipy_openblas" in line}):
        library = ctypes.CDLL(path)
        for suffix in ("64_", ""):
            count = getattr(library, f"scipy_openblas_get_num_threads{suffix}", None)
            if count is not None:
                yield count()

def used(path):
    ones = numpy.ones((600, 600))
    (ones @ ones).sum() + torch.ones(600, 600).mm(torch.ones(600, 600)).sum()
    path.write_text(json.dumps({
        "torch": torch.get_num_threads(), "between": torch.get_num_interop_threads(),
        "blas": list(blas()), "cores": len(os.sched_getaffinity(0)),
        "seen": os.environ.get("OPENBLAS_NUM_THREADS"),
    }))
"""


BOTH = pytest.mark.parametrize("each", ["forkserver", "spawn"], indirect=True)
"""For tests of what the two ways of starting do each in its own way, in every run."""


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    with workers(tmp_path, "auto", monkeypatch) as made:
        yield made


def failed(outcome: object) -> FailedExperiment:
    assert isinstance(outcome, FailedExperiment), outcome
    return outcome


@BOTH
def test_a_result_says_how_its_process_was_started(each: Workers) -> None:
    runner = each.runner()
    phases: list[str] = []
    calls = Callbacks(lambda event: phases.append(event.phase))

    results = [each.run(runner, name, calls) for name in ("one", "two")]

    method = "spawn" if each.method == "spawn" else "fork"
    for result in results:
        assert isinstance(result, ExperimentResult)
        assert (result.resolved.start_method, result.resolved.start_reason) == (method, None)
    assert each.job.start == Start(method)
    assert phases.count("load") == phases.count("save") == 2


TELL_PATH = """
import os
from pathlib import Path

WHILE_IMPORTING = os.environ["PATH"]
"""


def test_programs_of_the_interpreters_environment_are_found_however_it_is_started(
    each: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, own = each.file("told"), str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", "/nowhere")
    each.install(
        backend(
            f"Path({str(told)!r}).write_text(WHILE_IMPORTING + ' ' + os.environ['PATH'])", TELL_PATH
        )
    )
    assert isinstance(each.run(each.runner("thirdparty"), backend="thirdparty"), ExperimentResult)
    assert told.read_text() == f"{own}:/nowhere {own}:/nowhere"

    order = each.order(backend="thirdparty")
    assert isinstance(worker.run(each.directory(order, "inline")), ExperimentResult)
    assert told.read_text().endswith(f" {own}:/nowhere")


def test_forked_and_spawned_workers_measure_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExperimentConfig(
        model="random:tiny-llama",
        backend="pytorch",
        precision="fp32",
        n=2,
        max_new_tokens=4,
        warmup={"n_warmup": 1},
        energy_backend="none",
    )
    order = make_order(config, tmp_path)
    told = []
    for method in ("forkserver", "spawn"):
        with workers(tmp_path, method, monkeypatch) as made:
            runner = made.runner("pytorch")
            assert runner.problems([order]) == []
            directory = made.directory(order, method)
            job = runner.start(directory)
            result = supervise(job, directory, order, Callbacks(), within_s=LONG_S).outcome
            assert isinstance(result, ExperimentResult), result
            told.append(result)
    fork, spawn = told
    assert [result.resolved.start_method for result in told] == ["fork", "spawn"]
    assert fork.resolved.backend == spawn.resolved.backend
    assert fork.resolved.model == spawn.resolved.model
    assert fork.flops == spawn.flops
    assert fork.throughput.output_tokens == spawn.throughput.output_tokens == 8
    assert fork.measurement_config_hash == spawn.measurement_config_hash


def test_a_forked_worker_computes_with_as_many_threads_as_a_spawned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    told = {}
    for method in ("forkserver", "spawn"):
        with workers(tmp_path, method, monkeypatch) as made:
            path = tmp_path / f"{method}.json"
            made.install(
                backend(f"used(Path({str(tmp_path)!r}) / f'{{os.getpid()}}.json')", THREADS)
            )
            outcome = made.run(made.runner("thirdparty"), method, backend="thirdparty")
            assert isinstance(outcome, ExperimentResult), outcome
            assert made.job.start.reason is None
            (written,) = tmp_path.glob("[0-9]*.json")
            told[method] = json.loads(written.rename(path).read_text())
    assert told["forkserver"] == told["spawn"]
    assert told["spawn"]["blas"], "no OpenBLAS was found, so nothing was compared"


@BOTH
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_gets_a_signal(each: Workers, number: signal.Signals) -> None:
    failure = failed(each.misbehave(f"print('working')\nos.kill(os.getpid(), {int(number)})"))

    assert failure.phase == "load"
    assert each.kept()["code"] == failure.code == "killed"
    assert number.name in failure.message
    assert "a person, a scheduler" in failure.message


@BOTH
def test_an_engine_that_crashes(each: Workers) -> None:
    body = "os.write(2, b'about to crash\\n')\nimport ctypes\nctypes.string_at(0)"

    failure = failed(each.misbehave(body))

    assert (failure.code, failure.phase) == ("killed", "load")
    assert "SIGSEGV" in failure.message
    assert "about to crash" in failure.log_tail
    assert each.kept().items() >= failure.model_dump(mode="json").items()


@pytest.mark.parametrize("code", [0, 3])
def test_a_worker_that_ends_without_a_word(each: Workers, code: int) -> None:
    failure = failed(each.misbehave(f"os._exit({code})"))

    assert (failure.code, failure.phase) == ("no_result", "load")
    assert ("as if all was well" in failure.message) == (code == 0)
    assert each.kept()["code"] == "no_result"


@BOTH
def test_a_worker_that_hangs_is_killed_after_its_time(each: Workers) -> None:
    failure = failed(each.misbehave("time.sleep(3600)", within_s=3.0))

    assert failure.code == "timeout"
    assert "3 s" in failure.message
    assert "execution.timeout_s" in failure.message
    assert each.kept()["code"] == "timeout"


@pytest.mark.parametrize("name", ["result", "error"])
def test_a_file_that_cannot_be_read_is_kept_aside(each: Workers, name: str) -> None:
    file = each.folder / "results" / "one" / f"{name}.json"

    outcome = each.misbehave(f"Path({str(file)!r}).write_text('{{\"half\": ')\nos._exit(0)")

    failure = failed(outcome)
    assert failure.code == f"malformed_{name}"
    assert file.with_name(f"{name}.malformed.1.json").read_text() == '{"half": '
    assert not (file.parent / "result.json").exists()
    assert each.kept()["code"] == f"malformed_{name}"


def test_megabytes_from_native_code_land_in_the_log_without_credentials(
    each: Workers, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = f"for _ in range(64): os.write(1, b'noise ' * 10_000)\nos.write(2, b'\\n{KEY}\\n')"

    outcome = each.misbehave(noise)

    assert isinstance(outcome, ExperimentResult), outcome
    log = (each.folder / "results" / "one" / "log.txt").read_text()
    assert len(log) > 3_000_000
    assert "***" in log
    assert KEY not in log
    assert "noise" not in "".join(capfd.readouterr())


@BOTH
@pytest.mark.parametrize("end", ["pass", "os._exit(1)", "time.sleep(3600)"])
def test_what_a_worker_leaves_behind_is_ended(each: Workers, end: str) -> None:
    path = each.file("daemon")
    each.install(backend(f"leave_a_daemon({str(path)!r})\n{end}", GRANDCHILD))
    within_s = LONG_S if "sleep" not in end else 5.0

    each.run(each.runner("thirdparty"), within_s=within_s, backend="thirdparty")

    assert not is_running(path)


def test_a_killed_job_is_gone_with_all_its_processes(each: Workers) -> None:
    path = each.file("daemon")
    each.install(backend(f"leave_a_daemon({str(path)!r})\ntime.sleep(3600)", GRANDCHILD))
    runner = each.runner("thirdparty")
    job = runner.start(each.directory(each.order(backend="thirdparty")))
    wait_for(path.exists)

    job.kill()

    assert not is_running(path)
    assert job.wait(0) == -signal.SIGKILL
    job.kill()
    job.interrupt()


def test_a_server_that_no_longer_answers_is_killed_with_its_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = ServerProcess(sys.executable, None, end_within_s=1.0)
    try:
        sleep = ["-s", "import time; time.sleep(600)"]
        job = server.start(Start("spawn"), "timeit", sleep, log)
        (worker,) = psutil.Process(server.pid).children()
        psutil.Process(server.pid).suspend()
        assert job.wait(0) is None
        job.kill()
    finally:
        server.close()

    assert job.wait(0) == -signal.SIGKILL
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


@BOTH
def test_nothing_is_left_when_the_parent_is_killed(each: Workers) -> None:
    path = each.file("daemon")
    each.install(backend(f"leave_a_daemon({str(path)!r})\ntime.sleep(3600)", GRANDCHILD))
    with host(each, each.directory(each.order(backend="thirdparty")).root) as parent:
        wait_for(path.exists)
        left = psutil.Process(parent.pid).children(recursive=True)
        left.append(psutil.Process(int(path.read_text())))
        assert len(left) >= 3

        parent.kill()

    _gone, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


def test_nothing_is_left_when_the_parent_is_killed_while_the_engine_is_imported(
    forked: Workers,
) -> None:
    path = forked.file("importing")
    slow = f"if {IN_SERVER}:\n    Path({str(path)!r}).touch()\n    time.sleep(3600)"
    forked.install(backend("pass", f"import sys, time\nfrom pathlib import Path\n{slow}"))
    with host(forked, forked.directory(forked.order(backend="thirdparty")).root) as parent:
        wait_for(path.exists)
        left = psutil.Process(parent.pid).children(recursive=True)
        assert left

        parent.kill()

    _gone, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


@BOTH
def test_a_server_that_is_killed_takes_its_worker_along_and_is_started_anew(
    each: Workers,
) -> None:
    path = each.file("daemon")
    first = f"if not Path({str(path)!r}).exists():"
    load = f"{first}\n    leave_a_daemon({str(path)!r})\n    time.sleep(3600)"
    each.install(backend(load, GRANDCHILD))
    runner = each.runner("thirdparty")

    def kill_the_server(event: Event) -> None:
        if event.phase == "load":
            wait_for(path.exists)
            for server in servers():
                server.kill()

    failure = failed(each.run(runner, "one", Callbacks(kill_the_server), backend="thirdparty"))
    assert (failure.code, failure.phase) == ("killed", "load")
    assert not is_running(path)

    result = each.run(runner, "two", backend="thirdparty")
    assert isinstance(result, ExperimentResult)
    assert result.resolved.start_method == ("spawn" if each.method == "spawn" else "fork")


@pytest.mark.parametrize(
    ("top", "reason"),
    [
        ("import threading\nthreading.Thread(target=time.sleep, args=[3600], daemon=True).start()",
         "importing the engine left 2 threads"),
        ("from types import SimpleNamespace as S\n"
         "sys.modules['torch'] = S(cuda=S(is_initialized=lambda: True))",
         "importing the engine initialised CUDA"),
        ("import os\nos._exit(7)", "the fork server ended with exit code 7"),
        ("raise RuntimeError('no such driver')", "RuntimeError: no such driver"),
    ],
    ids=["thread", "cuda", "exit", "error"],
)  # fmt: skip
def test_a_worker_is_spawned_where_a_forked_one_could_not_work_and_the_result_says_why(
    forked: Workers, top: str, reason: str
) -> None:
    indented = "\n".join(f"    {line}" for line in top.splitlines())
    forked.install(backend("pass", f"import sys, time\nif {IN_SERVER}:\n{indented}"))

    result = forked.run(forked.runner("thirdparty"), backend="thirdparty")

    assert isinstance(result, ExperimentResult), result
    assert result.resolved.start_method == "spawn"
    assert reason in (result.resolved.start_reason or "")
    assert forked.job.start.reason == result.resolved.start_reason


def interrupt_in(phase: str, seen: list[str]):
    def listener(event: Event) -> None:
        seen.append(event.phase)
        if event.phase == phase:
            raise KeyboardInterrupt

    return listener


@BOTH
def test_an_interrupt_has_the_worker_end_in_good_order(each: Workers) -> None:
    slow = {"ttft_ms": 200.0, "itl_ms": 1000.0, "batch_size": 1}
    calls = Callbacks(interrupt_in("warmup", []))

    with pytest.raises(KeyboardInterrupt, match="in phase 'warmup'; no result was written"):
        each.run(each.runner(), calls=calls, scripted=slow, max_new_tokens=100)

    assert each.job.wait(0) == 130
    assert (each.kept()["code"], each.kept()["phase"]) == ("interrupted", "warmup")


@BOTH
def test_a_second_interrupt_does_not_wait_for_a_worker_that_will_not_end(each: Workers) -> None:
    load = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    calls = Callbacks(interrupt_in("load", []), stop=lambda: True)

    with pytest.raises(KeyboardInterrupt, match="in phase 'load'; no result was written"):
        each.misbehave(load, calls)

    assert each.job.wait(0) == -signal.SIGKILL
    assert (each.kept()["code"], each.kept()["phase"]) == ("interrupted", "load")


def test_preflight_runs_where_the_experiments_will(each: Workers) -> None:
    good, bad = each.order(), each.order(dataset="absent.jsonl")

    problems = each.runner().problems([good, bad, bad, good])

    assert [problem.where for problem in problems] == ["dataset"]
    assert "absent.jsonl" in str(problems[0])


def test_preflight_of_a_large_study_asks_the_backend_once_for_experiments_that_are_alike_to_it(
    each: Workers,
) -> None:
    path = each.file("asked")
    count = f"with open({str(path)!r}, 'a') as file: file.write('asked\\n')"
    body = f"    def problems(self, config):\n        {count}\n        return []\n"
    each.install(backend("pass") + body)
    orders = [each.order(backend="thirdparty", random_seed=seed) for seed in range(300)]

    assert each.runner("thirdparty").problems(orders) == []

    assert path.read_text() == "asked\n"


def test_a_preflight_that_breaks_is_a_problem_too(each: Workers) -> None:
    each.install(backend("pass") + "    def problems(self, config):\n        os._exit(5)\n")

    (problem,) = each.runner("thirdparty").problems([each.order(backend="thirdparty")])

    assert "exit code 5" in problem.what


def test_a_preflight_that_hangs_is_ended_and_a_problem(each: Workers) -> None:
    said = "print('asking the share', flush=True)"
    hangs = f"    def problems(self, config):\n        {said}\n        time.sleep(3600)\n"
    each.install(backend("pass") + hangs)
    runner = each.runner("thirdparty", preflight_within_s=1)

    (problem,) = runner.problems([each.order(backend="thirdparty")])

    assert "took longer than 1 s and was ended" in problem.what
    assert "does not answer" in problem.remedy


def test_a_worker_whose_directory_another_one_has_says_so(each: Workers) -> None:
    order = each.order()
    directory = each.directory(order)
    with holder(directory.worker_lock) as first:
        job = each.runner().start(directory)
        failure = failed(supervise(job, directory, order, Callbacks(), within_s=LONG_S).outcome)

    assert f"is being measured by pid {first.pid} " in failure.log_tail


def test_another_interpreter_without_the_package_is_named_with_the_line_that_mends_it(
    forked: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = forked.file("python")
    bare.write_text(f'#!/bin/sh\nPYTHONPATH= exec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)

    (problem,) = forked.runner(interpreter=str(bare)).problems([forked.order()])

    assert "has no llenergymeasure" in problem.what
    assert problem.where == "runners.scripted"
    checkout = Path(__file__).parents[2]
    assert problem.remedy in (
        shlex.join([str(bare), "-m", "pip", "install", str(checkout)]),
        shlex.join([str(bare), "-m", "pip", "install", f"llenergymeasure=={__version__}"]),
    ), "where this version can be had: a checkout, where it was installed from one"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "No such file"),
        ("echo 0.0.1", "has llenergymeasure 0.0.1"),
        ("echo broken >&2; exit 3", "cannot be used: broken"),
    ],
)
def test_another_interpreter_that_cannot_be_used(
    forked: Workers, script: str | None, says: str
) -> None:
    path = forked.file("python")
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    (problem,) = forked.runner(interpreter=str(path)).problems([forked.order()])

    assert says in problem.what


@BOTH
def test_another_interpreter_runs_experiments(each: Workers) -> None:
    link = each.file("python")
    link.write_text(f'#!/bin/sh\nPYTHONPATH="{SOURCE}" exec "{sys.executable}" "$@"\n')
    link.chmod(0o755)
    runner = each.runner(interpreter=str(link))

    assert runner.problems([each.order()]) == []
    assert isinstance(each.run(runner), ExperimentResult)


def test_a_worker_runs_from_a_folder_with_modules_named_like_the_librarys(
    each: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    Llem(each.folder).write("json.py", "raise RuntimeError('not this one')")
    monkeypatch.chdir(each.folder)
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))

    assert isinstance(each.run(each.runner()), ExperimentResult)
