"""What a session does between experiments, on workers that end as a test says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.user_config import EffectiveSettings, UserConfig
from llenergymeasure.domain.experiment_result import ThermalResult
from llenergymeasure.domain.results import FailedExperiment
from llenergymeasure.exceptions import ExperimentError, PreFlightError, Problem, StudyError
from llenergymeasure.orchestration.events import Event
from llenergymeasure.orchestration.order import Start, WorkOrder
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import to_json
from llenergymeasure.study.events import (
    Begun,
    Callbacks,
    Finished,
    Noted,
    Pausing,
    Started,
    StudyEvent,
    read_progress,
)
from llenergymeasure.study.manifest import StudyPlan, read_plan
from llenergymeasure.study.resume import look
from llenergymeasure.study.runner import StudyRunner
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.runners.protocol import Runner
from llenergymeasure.study.session import MOST_AT_ONCE, StudySession
from tests.support.edits import rewrite
from tests.support.make_result import make_result, make_window
from tests.support.study_on_disk import CREATED, make_execution, make_plan, make_study, scripted

ONE, EIGHT = scripted(1), scripted(8)
GAPS = {"config_gap_seconds": 2.5, "cycle_gap_seconds": 4.0, "timeout_s": 60.0}
NO_GAPS = {"config_gap_seconds": 0.0, "cycle_gap_seconds": 0.0}


class EndedJob:
    """A worker that has ended."""

    fate = None

    def wait(self, timeout_s: float) -> int | None:
        return 0

    def interrupt(self) -> None:
        return

    def __init__(self, start: Start) -> None:
        self.start, self.killed = start, False

    def kill(self) -> None:
        self.killed = True


@dataclass
class Bench(RunnerPool):
    """Runners whose workers end at once, as a test says.

    Attributes:
        fails: Numbers of the starts that fail, from 1.
        interrupted: Number of the start that Ctrl-C breaks into.
        refuses: Numbers of the starts at which no process can be started; ``None`` for all.
        found: Problems of the machine.
        devices: Device of each start, where it is not the first one.
        waits_s: How long each worker waits for a device.
        start_as: How workers are started.
        disturb: Done at each start, before the worker does anything.
    """

    fails: Sequence[int] = ()
    interrupted: int | None = None
    refuses: Sequence[int] | None = ()
    found: Sequence[Problem] = ()
    devices: Mapping[int, str] = field(default_factory=dict)
    waits_s: float = 0.0
    start_as: Start = field(default_factory=lambda: Start("fork"))
    disturb: Callable[[], None] = lambda: None
    jobs: list[EndedJob] = field(default_factory=list)
    orders: list[WorkOrder] = field(default_factory=list)

    def of(self, order: WorkOrder) -> Runner:
        return self  # type: ignore[return-value] # it starts workers itself

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        self.orders += orders
        return list(self.found)

    def start(self, directory: ExperimentDirectory) -> EndedJob:
        order = WorkOrder.model_validate_json(directory.config.read_bytes())
        self.orders.append(order)
        number = len(self.orders)
        self.disturb()
        if self.refuses is None or number in self.refuses:
            raise ExperimentError("no process can be started")
        if number == self.interrupted:
            raise KeyboardInterrupt
        if number in self.fails:
            failure = FailedExperiment(
                config=order.config, phase="load", code="backend", message=f"broke {number}"
            )
            write_json_atomically(directory.error, failure.model_dump_json(indent=2))
        else:
            device = self.devices.get(number, "GPU-0")
            thermal = ThermalResult(device_start_c={device: 40.0 + number})
            made = make_result(
                config=order.config, thermal=thermal, place=order.place, window=make_window(number)
            )
            to_json(made, directory.root)
            waited_ns = round(self.waits_s * 1e9)
            events = [("load", 0), ("wait", 0), ("load", waited_ns)] if waited_ns else []
            lines = [json.dumps(Event(t_ns, "s", phase)._asdict()) + "\n" for phase, t_ns in events]
            directory.events.write_text("".join(lines))
        self.jobs.append(EndedJob(self.start_as))
        return self.jobs[-1]


@dataclass
class Session:
    """A session and what it told."""

    root: Path
    plan: StudyPlan
    bench: Bench
    told: list[StudyEvent] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    impatient: bool = False

    def run(self) -> None:
        make_study(self.root, self.plan)
        self.make().run()

    def make(self) -> StudySession:
        calls = Callbacks(
            self.told.append,
            lambda: self.impatient,
            self.slept.append,
            lambda: sum(self.slept),
        )
        settings = EffectiveSettings(UserConfig(), {})
        return StudySession(self.plan, self.directory, self.bench, settings, calls, kept=True)

    @property
    def directory(self) -> StudyDirectory:
        return StudyDirectory(self.root)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


def session(tmp_path: Path, *, cold_start: bool = False, **fields: Any) -> Session:
    execution = make_execution(**{"n_cycles": 2, **GAPS, **fields})
    plan = make_plan([ONE, EIGHT], execution=execution, cold_start=cold_start)
    return Session(tmp_path / "study", plan, Bench())


def test_a_pause_comes_between_experiments_and_a_longer_one_between_cycles(tmp_path: Path) -> None:
    it = session(tmp_path)
    it.run()
    kinds = ["pause" if isinstance(event, Pausing) else type(event).__name__ for event in it.told]
    runs = [kind for place, kind in enumerate(kinds) if kind != "pause" or kinds[place - 1] != kind]
    one = ["Started", "Finished"]
    assert runs == [*one, "pause", *one, "pause", *one, "pause", *one]
    begun = [event for event in it.of(Pausing) if event.left_s == event.total_s]
    assert [(event.kind, event.total_s) for event in begun] == [
        ("experiment", 2.5), ("cycle", 4.0), ("experiment", 2.5),
    ]  # fmt: skip


def test_a_pause_is_counted_down_at_most_a_second_at_a_time(tmp_path: Path) -> None:
    it = session(tmp_path)
    it.run()
    assert [event.left_s for event in it.of(Pausing)] == [2.5, 1.5, 0.5, 4, 3, 2, 1, 2.5, 1.5, 0.5]
    assert it.slept == [1, 1, 0.5, 1, 1, 1, 1, 1, 1, 0.5]


def test_no_pause_is_told_where_there_is_none(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.run()
    assert it.of(Pausing) == []
    assert it.slept == []


def test_later_experiments_know_how_warm_the_first_one_began(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.run()
    assert [order.reference_start_c for order in it.bench.orders] == [
        {}, {"GPU-0": 41.0}, {"GPU-0": 41.0}, {"GPU-0": 41.0},
    ]  # fmt: skip


def test_a_resume_refers_to_the_temperature_and_the_durations_of_before(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.run()
    for number in (3, 4):
        it.plan.directory(it.directory, it.plan.slots[number - 1]).result.unlink()
    again = Session(it.root, it.plan, Bench())

    again.make().run()

    assert [order.reference_start_c for order in again.bench.orders] == [{"GPU-0": 41.0}] * 2
    first, last = again.of(Finished)
    assert (first.number, last.number) == (3, 4)
    assert first.left_s > 0
    assert last.left_s == 0


def test_the_time_that_is_left_holds_the_pauses(tmp_path: Path) -> None:
    it = session(tmp_path)
    it.run()
    left = [event.left_s for event in it.of(Finished)]
    assert left[0] > 4.0 + 2.5
    assert 2.5 < left[2] < left[0]
    assert left[3] == 0


@pytest.mark.parametrize("cold", [True, False])
def test_workers_are_told_whether_to_start_cold(tmp_path: Path, cold: bool) -> None:
    it = session(tmp_path, cold_start=cold, **NO_GAPS)
    it.run()
    assert {order.cold_start for order in it.bench.orders} == {cold}


def test_each_experiment_is_told_with_its_place_and_how_it_was_started(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.run()
    assert [(one.number, one.total, one.configuration) for one in it.of(Started)] == [
        (1, 4, 1), (2, 4, 2), (3, 4, 1), (4, 4, 2),
    ]  # fmt: skip
    assert {one.method for one in it.of(Started)} == {"fork"}


def test_a_failure_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.fails = (2,)
    it.run()
    said = [(line.slot, line.status, line.code) for line in read_progress(it.directory.progress)]
    assert (2, "failed", "backend") in said
    assert [line[1] for line in said].count("complete") == 3
    summary = json.loads(it.directory.summary.read_bytes())
    assert (summary["ran"], len(summary["failed"])) == (3, 1)
    view = json.loads(it.directory.manifest.read_bytes())["progress"]
    assert (view["complete"], view["failed"], view["missing"]) == (3, 1, 0)


def test_where_no_process_can_be_started_it_stops_after_three(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.refuses = None
    with pytest.raises(StudyError, match="all 3 experiments failed the same way, in phase 'start'"):
        it.run()
    assert len(it.of(Finished)) == 3
    assert read_plan(it.directory).plan == it.plan


def test_a_study_with_a_result_is_not_stopped_by_the_failures_of_a_resume(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    make_study(it.root, it.plan, complete=[1])
    it.bench.fails = (1, 2, 3)
    it.make().run()
    assert len(it.of(Finished)) == 3


def test_an_interrupt_while_a_worker_runs_is_noted(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.interrupted = 2
    with pytest.raises(KeyboardInterrupt):
        it.run()
    assert [line.status for line in read_progress(it.directory.progress)] == [
        "running", "complete", "running", "interrupted",
    ]  # fmt: skip
    view = json.loads(it.directory.manifest.read_bytes())["progress"]
    assert (view["complete"], view["missing"]) == (1, 3)


def test_every_problem_of_the_machine_is_found_before_the_first_experiment(tmp_path: Path) -> None:
    it = session(tmp_path)
    it.bench.found = [Problem("no device", "scripted", "plug one in")]
    settings = EffectiveSettings(UserConfig(), {})
    with pytest.raises(PreFlightError, match="no device"):
        it.bench.check([it.plan.order(number, settings) for number in range(2)])
    assert [order.config for order in it.bench.orders] == [ONE, EIGHT]


def test_a_finished_study_gives_its_table_without_its_engine(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    make_study(it.root, it.plan, complete=[1, 2, 3, 4])
    user = UserConfig(runners={"scripted": "python:/absent/python"})
    calls = Callbacks(it.told.append)
    again = StudyRunner(None, EffectiveSettings(user, {}), None, calls, resume=it.root)
    assert again.run().ran == 4
    (begun,) = it.of(Begun)
    assert (begun.total, begun.configurations, begun.done) == (4, 2, 4)
    it.plan.directory(it.directory, it.plan.slots[2]).result.unlink()
    with pytest.raises(PreFlightError, match="/absent/python"):
        again.run()
    assert it.of(Begun)[1].done == 3, "told before anything is looked for"
    view = json.loads(it.directory.manifest.read_bytes())["progress"]
    assert (view["complete"], view["missing"]) == (4, 0), "nothing was begun"


def test_the_manifest_of_a_study_that_goes_on_counts_what_is_there(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    make_study(it.root, it.plan, complete=[1, 3])
    view = look(it.plan, it.directory).progress(CREATED)
    assert (view.complete, view.failed, view.missing) == (2, 0, 2)


def test_a_result_damaged_inside_is_run_again_and_kept(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    make_study(it.root, it.plan, complete=[1, 2, 3, 4])
    first = it.plan.directory(it.directory, it.plan.slots[0])
    text = first.result.read_text().replace('"energy"', '"enemy"', 1)
    first.result.write_text(text)

    it.make().run()

    assert [one.number for one in it.of(Started)] == [1]
    assert (first.root / "result.malformed.1.json").read_text() == text
    assert json.loads(it.directory.summary.read_bytes())["ran"] == 4


def test_a_resume_keeps_results_whose_hash_was_made_by_other_rules(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    make_study(it.root, it.plan, complete=[1, 2, 3, 4])
    for path in it.directory.experiments.glob("*/result.json"):
        rewrite(path, lambda data: data.update(measurement_config_hash="f" * 16))
    before = sorted(path.name for path in it.directory.experiments.rglob("*"))

    it.make().run()

    assert it.of(Started) == []
    assert sorted(path.name for path in it.directory.experiments.rglob("*")) == before
    assert json.loads(it.directory.summary.read_bytes())["ran"] == 4


def test_each_device_is_referred_to_by_the_first_experiment_on_it(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.devices = {2: "GPU-1", 4: "GPU-1"}
    it.run()
    both = {"GPU-0": 41.0, "GPU-1": 42.0}
    assert [one.reference_start_c for one in it.bench.orders] == [{}, {"GPU-0": 41.0}, both, both]

    it.plan.directory(it.directory, it.plan.slots[3]).result.unlink()
    again = Session(it.root, it.plan, Bench())
    again.make().run()
    assert [one.reference_start_c for one in again.bench.orders] == [both]


def test_waiting_for_a_device_is_not_taken_for_work(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.waits_s = 1e6
    it.run()
    assert all(one.left_s < 1e5 for one in it.of(Finished))
    lines = read_progress(it.directory.progress)
    assert all(line.duration_s < 1e5 for line in lines if line.status == "complete")


def test_where_a_process_cannot_be_started_it_is_in_the_summary_and_on_disk(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.refuses = (2,)
    it.run()
    summary = json.loads(it.directory.summary.read_bytes())
    assert (summary["ran"], summary["missing"]) == (3, 0)
    assert [one["message"] for one in summary["failed"]] == ["no process can be started"]
    error = it.plan.directory(it.directory, it.plan.slots[1]).error
    assert json.loads(error.read_bytes())["phase"] == "start"


def test_a_failure_that_no_disk_has_taken_is_in_the_summary(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    second = it.plan.directory(it.directory, it.plan.slots[1])

    def lose_the_second() -> None:
        if len(it.bench.orders) == 2:
            shutil.rmtree(second.root)

    it.bench.refuses, it.bench.disturb = (2,), lose_the_second
    it.run()
    assert not second.error.exists()
    summary = json.loads(it.directory.summary.read_bytes())
    assert (summary["ran"], len(summary["failed"]), summary["missing"]) == (3, 1, 0)


def test_a_study_that_is_deleted_while_it_runs_is_not_made_anew(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.refuses = (1,)
    it.bench.disturb = lambda: shutil.rmtree(it.root)
    with pytest.raises(StudyError, match="study is gone; put it back"):
        it.run()
    assert not it.root.exists()
    assert it.of(Noted) == [], "it is said once"


def test_why_a_study_stopped_is_not_hidden_by_a_disk_that_refuses(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.interrupted = 2

    def deny() -> None:
        if len(it.bench.orders) == 1:
            it.directory.manifest.unlink()
            it.directory.manifest.mkdir()

    it.bench.disturb = deny
    with pytest.raises(KeyboardInterrupt):
        it.run()


def test_a_study_that_stops_leaves_the_summary_of_what_is_there(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.refuses = None
    with pytest.raises(StudyError, match="failed the same way"):
        it.run()
    summary = json.loads(it.directory.summary.read_bytes())
    assert (summary["ran"], len(summary["failed"]), summary["missing"]) == (0, 3, 1)
    assert [one["slot"] for one in summary["failed"]] == [1, 2, 3]
    assert it.directory.table.is_file()


def test_an_interrupted_study_leaves_the_summary_of_what_is_there(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.interrupted = 3
    with pytest.raises(KeyboardInterrupt):
        it.run()
    summary = json.loads(it.directory.summary.read_bytes())
    assert (summary["ran"], summary["missing"]) == (2, 2)


def test_an_impatient_user_does_not_wait_for_a_summary(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.interrupted, it.impatient = 3, True
    with pytest.raises(KeyboardInterrupt):
        it.run()
    assert not it.directory.summary.exists()


def test_an_interrupt_does_not_wait_until_many_results_are_read(tmp_path: Path) -> None:
    experiments, execution = [ONE, EIGHT], make_execution(n_cycles=102, **NO_GAPS)
    it = Session(tmp_path / "study", make_plan(experiments, execution=execution), Bench())
    make_study(it.root, it.plan, complete=range(1, MOST_AT_ONCE + 2))
    it.bench.interrupted = 1
    with pytest.raises(KeyboardInterrupt):
        it.make().run()
    assert not it.directory.summary.exists()


def test_a_summary_that_cannot_be_written_does_not_hide_why_the_study_stopped(
    tmp_path: Path,
) -> None:
    it = session(tmp_path, **NO_GAPS)
    it.bench.refuses = None
    it.bench.disturb = lambda: it.directory.summary.mkdir(exist_ok=True)
    with pytest.raises(StudyError, match="failed the same way"):
        it.run()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("auto", "each experiment is spawned, not forked: it has 3 threads"),
        ("forkserver", "execution.start_method: forkserver cannot be had, so each experiment"),
    ],
)
def test_why_experiments_are_not_forked_is_told_once(tmp_path: Path, asked: str, said: str) -> None:
    it = session(tmp_path, start_method=asked, **NO_GAPS)
    it.bench.start_as = Start("spawn", "it has 3 threads")
    it.run()
    (note,) = it.of(Noted)
    assert note.text.startswith(said)


def test_a_worker_does_not_outlive_a_listener_that_breaks(tmp_path: Path) -> None:
    it = session(tmp_path, **NO_GAPS)

    class Broken(list[StudyEvent]):
        def append(self, event: StudyEvent) -> None:
            if isinstance(event, Started):
                raise RuntimeError("the terminal is gone")

    it.told = Broken()
    with pytest.raises(RuntimeError, match="the terminal is gone"):
        it.run()
    assert [job.killed for job in it.bench.jobs] == [True]
