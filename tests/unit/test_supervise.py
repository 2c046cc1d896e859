from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.orchestration.events import Event
from llenergymeasure.orchestration.order import Start, WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import DirectoryRepository
from llenergymeasure.study.events import Callbacks, Outcome
from llenergymeasure.study.supervise import EventReader, WorkerProgress, supervise
from tests.support.make_result import make_result
from tests.support.scripted_run import make_order, scripted_config

S = 1_000_000_000
CALLS = Callbacks()


class Worker:
    """A job that ends with the next of its codes each time it is waited for."""

    def __init__(self, *codes: int | None, method: str = "spawn") -> None:
        self.codes = list(codes)
        self.asked: list[str] = []
        self.start = Start(method)
        self.fate: str | None = None

    def wait(self, timeout_s: float) -> int | None:
        if "kill" in self.asked:
            return -signal.SIGKILL
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]

    def interrupt(self) -> None:
        self.asked.append("interrupt")

    def kill(self) -> None:
        self.asked.append("kill")


@pytest.fixture
def directory(tmp_path: Path) -> ExperimentDirectory:
    return ExperimentDirectory(tmp_path)


@pytest.fixture
def order(tmp_path: Path) -> WorkOrder:
    return make_order(scripted_config(), tmp_path)


def line(phase: str, t_ns: int) -> str:
    return json.dumps(Event(t_ns, "initialising", phase)._asdict()) + "\n"


def outcome_of(
    job: Worker,
    directory: ExperimentDirectory,
    order: WorkOrder,
    within_s: float = 60,
    calls: Callbacks = CALLS,
) -> Outcome:
    return supervise(job, directory, order, calls, within_s=within_s).outcome  # type: ignore[arg-type] # as much of a job as is asked for


def failed(outcome: object) -> FailedExperiment:
    assert isinstance(outcome, FailedExperiment)
    return outcome


def test_lines_are_read_once_and_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert list(reader.fresh()) == []
    whole, half = line("load", 1), line("measure", 2)

    path.write_text(whole + half[:20])
    assert [event.phase for event in reader.fresh()] == ["load"]
    with path.open("a") as file:
        file.write(half[20:])
    assert [event.phase for event in reader.fresh()] == ["measure"]
    assert list(reader.fresh()) == []


@pytest.mark.parametrize("bad", ["{", "[]", "7", '{"t_ns": 1}', '{"strange": 1}', "\x00\x00", ""])
def test_a_line_that_says_nothing_is_passed_over(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{bad}\n{line('load', 1)}")

    assert [event.phase for event in EventReader(path).fresh()] == ["load"]


def test_time_spent_waiting_for_a_device_is_summed() -> None:
    progress = WorkerProgress()
    for phase, at_s in [("wait", 1), ("wait", 3), ("load", 5), ("wait", 7)]:
        progress.note(Event(at_s * S, "initialising", phase))

    assert progress.phase == "wait"
    assert progress.waited_s(10 * S) == pytest.approx(4 + 3)


def test_a_worker_that_waits_for_a_device_is_not_timed_out(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    directory.events.write_text(line("wait", time.monotonic_ns()))
    job = Worker(None, None, 0)

    failure = failed(outcome_of(job, directory, order, within_s=0.0))

    assert (failure.code, failure.phase, job.asked) == ("no_result", "wait", [])


def test_the_same_worker_is_timed_out_once_it_has_the_device(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    now_ns = time.monotonic_ns()
    directory.events.write_text(line("wait", now_ns) + line("load", now_ns))
    job = Worker(None, None, 0)

    failure = failed(outcome_of(job, directory, order, within_s=0.0))

    assert (failure.code, failure.phase, job.asked) == ("timeout", "load", ["kill"])


def test_a_result_counts_whatever_the_exit_code(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    make_result().to_json(directory.result)

    outcome = outcome_of(Worker(-signal.SIGSEGV), directory, order)

    assert isinstance(outcome, ExperimentResult)
    assert not directory.error.exists()


def test_what_the_engine_printed_last_is_told_with_the_workers_own_error(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    own = FailedExperiment(config=order.config, phase="load", code="backend", message="no memory")
    directory.error.write_text(own.model_dump_json())
    directory.log.write_text("first\nlast words\n")

    failure = failed(outcome_of(Worker(1), directory, order))

    assert failure == own.model_copy(update={"log_tail": "first\nlast words"})


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (-signal.SIGKILL, "SIGKILL"),
        (-signal.SIGABRT, "SIGABRT"),
        (-40, "signal 40"),
        (127, "exit code 127"),
    ],
)
def test_the_message_names_how_it_ended(
    directory: ExperimentDirectory, order: WorkOrder, code: int, says: str
) -> None:
    assert says in failed(outcome_of(Worker(code), directory, order)).message


def test_a_container_that_docker_could_not_start_is_told_as_that(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    directory.log.write_text("docker: Error response from daemon: no space left\n")

    told = failed(outcome_of(Worker(125, method="docker"), directory, order))
    other = failed(outcome_of(Worker(125), ExperimentDirectory(directory.root / "x"), order))

    assert "docker could not start the container" in told.message
    assert str(directory.log) in told.message
    assert "no space left" in (told.log_tail or "")
    assert "exit code 125" in other.message


def test_a_directory_that_is_gone_still_gives_a_failure(tmp_path: Path, order: WorkOrder) -> None:
    directory = ExperimentDirectory(tmp_path / "gone")

    assert failed(outcome_of(Worker(0), directory, order)).code == "no_result"


def test_an_interrupt_after_the_result_says_that_it_was_written(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    make_result().to_json(directory.result)
    directory.events.write_text(line("save", 1))
    job = Worker(None, 0)

    def listener(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="after the result was written"):
        outcome_of(job, directory, order, calls=Callbacks(listener))

    assert job.asked[0] == "interrupt"
    assert not directory.error.exists()


def test_a_listener_that_breaks_does_not_leave_the_worker_running(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    directory.events.write_text(line("load", 1))
    job = Worker(None)

    def listener(event: Event) -> None:
        raise LookupError(event.phase)

    with pytest.raises(LookupError, match="load"):
        outcome_of(job, directory, order, calls=Callbacks(listener))

    assert job.asked == ["kill"]


def test_a_failure_that_the_directory_did_not_take_is_read_where_the_worker_left_it(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    order = order.model_copy(update={"rescue": "llem-rescued-of-this-test"})
    *_, place = order.rescues()
    told = FailedExperiment(config=order.config, phase="save", code="experiment", message="full")
    place.root.mkdir(parents=True)
    DirectoryRepository(place).save_failure(told.model_copy(update={"rescued": str(place.root)}))
    place.result.write_text("{}")

    failure = failed(outcome_of(Worker(1), directory, order))

    assert (failure.message, failure.rescued) == ("full", str(place.root))
    assert [path.name for path in place.root.iterdir()] == ["result.json"], "it keeps what counts"
    assert directory.error.is_file(), "it has room again"


def test_a_directory_that_vanished_with_everything_is_said(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    gone = ExperimentDirectory(directory.root / "gone")
    failure = failed(outcome_of(Worker(1), gone, order))
    assert failure.message.endswith(f"its directory {gone.root} is gone, and what it said with it")


def test_loading_has_a_limit_of_its_own(directory: ExperimentDirectory, order: WorkOrder) -> None:
    directory.events.write_text(line("load", time.monotonic_ns() - 10 * S))
    job = Worker(None, None)

    outcome = supervise(job, directory, order, CALLS, within_s=60, loading_within_s=5).outcome  # type: ignore[arg-type] # as much of a job as is asked for

    failure = failed(outcome)
    assert (failure.code, failure.phase, job.asked) == ("timeout", "load", ["kill"])
    assert failure.message.startswith("loading the model and preparing its prompts took longer")
    assert "execution.timeout_s" in failure.message


def test_what_comes_after_loading_is_not_held_to_its_limit(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    then_ns = time.monotonic_ns() - 10 * S
    directory.events.write_text(line("load", then_ns) + line("warmup", then_ns + S))
    job = Worker(None, None, 0)

    outcome = supervise(job, directory, order, CALLS, within_s=60, loading_within_s=5).outcome  # type: ignore[arg-type] # as much of a job as is asked for

    assert (failed(outcome).code, job.asked) == ("no_result", [])


def test_loading_is_counted_over_its_phases_and_from_its_beginning() -> None:
    progress = WorkerProgress()
    for phase, at_s in [("load", 2), ("prepare", 5)]:
        progress.note(Event(at_s * S, "initialising", phase))
    assert progress.loading_s(8 * S) == pytest.approx(6)
    progress.note(Event(9 * S, "initialising", "warmup"))
    assert progress.loading_s(20 * S) == 0


COUNTED = {"the control group /job": 3, "this machine": 7}


def killed(
    directory: ExperimentDirectory, order: WorkOrder, *counts: dict[str, int], code: int = -9
) -> str:
    """What is said of a worker that was killed, by what the kernel counts before and after."""
    told = iter(counts)
    ended = supervise(
        Worker(code),  # type: ignore[arg-type] # as much of a job as is asked for
        directory,
        order,
        CALLS,
        within_s=60,
        oom_kills=lambda: next(told),
    )
    assert failed(ended.outcome).code == "killed"
    return failed(ended.outcome).message


@pytest.mark.parametrize("rose", COUNTED)
def test_memory_ran_out_where_the_kernel_says_so(
    directory: ExperimentDirectory, order: WorkOrder, rose: str
) -> None:
    said = killed(directory, order, COUNTED, {**COUNTED, rose: COUNTED[rose] + 1})
    assert f"memory ran out, as the kernel's count of kills in {rose} says" in said
    assert "lower scripted.batch_size or max_new_tokens" in said


def test_who_killed_a_worker_is_left_open_where_the_kernel_did_not(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    said = killed(directory, order, COUNTED, COUNTED)
    assert "SIGKILL, and not by the kernel for want of memory" in said
    assert "lower" not in said


def test_where_the_kernel_counts_nothing_that_is_said(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    said = killed(directory, order, {}, {})
    assert "this system does not tell why; if memory ran out, lower" in said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SIGSEGV", "the engine, or native code it uses, crashed"),
        ("SIGABRT", "the engine, or native code it uses, crashed"),
        ("SIGTERM", "which a person, a scheduler or a time limit sent"),
        ("SIGHUP", "which a person, a scheduler or a time limit sent"),
        ("SIGXCPU", "ulimit -t"),
        ("SIGXFSZ", "ulimit -f"),
    ],
)
def test_each_signal_says_what_it_means(
    directory: ExperimentDirectory, order: WorkOrder, name: str, says: str
) -> None:
    said = killed(directory, order, COUNTED, COUNTED, code=-signal.Signals[name])
    assert f"ended by {name}" in said
    assert says in said
    assert "memory" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("left_word", [True, False])
def test_a_worker_that_ended_in_good_order_at_somebodys_signal_was_not_interrupted_by_the_user(
    directory: ExperimentDirectory, order: WorkOrder, number: signal.Signals, left_word: bool
) -> None:
    if left_word:
        own = {"config": order.config, "phase": "load", "message": "interrupted by the user"}
        failure = FailedExperiment(code="interrupted", **own)
        DirectoryRepository(directory).save_failure(failure)

    said = killed(directory, order, COUNTED, COUNTED, code=128 + number)

    assert (
        said == f"the worker was ended by {number.name}, which a person, a scheduler or a time "
        "limit sent"
    )
    kept = json.loads(directory.error.read_bytes())
    assert (kept["code"], kept["message"]) == ("killed", said)


def test_a_worker_that_went_down_with_its_server_is_told_as_that(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    job = Worker(-signal.SIGKILL)
    job.fate = "the fork server was killed by signal 9 (Killed)"
    said = failed(outcome_of(job, directory, order)).message
    assert said == f"the worker went down with what had started it: {job.fate}"


def test_a_directory_that_went_while_it_was_written_to_is_named(
    tmp_path: Path, order: WorkOrder
) -> None:
    directory = ExperimentDirectory(tmp_path / "gone")
    for code in (1, -signal.SIGSEGV):
        said = failed(outcome_of(Worker(code), directory, order)).message
        assert f"its directory {directory.root} is gone" in said


def test_a_directory_in_the_place_of_the_result_does_not_end_a_worker(
    directory: ExperimentDirectory, order: WorkOrder
) -> None:
    directory.result.mkdir()
    own = FailedExperiment(config=order.config, phase="save", code="experiment", message="told")
    directory.error.write_text(own.model_dump_json())

    assert failed(outcome_of(Worker(1), directory, order)).message == "told"
    assert directory.result.is_dir()
