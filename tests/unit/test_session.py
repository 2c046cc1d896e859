"""What a session does between experiments, on workers that end as a test says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.user_config import EffectiveSettings, UserConfig
from llenergymeasure.domain.result_parts import ThermalResult
from llenergymeasure.domain.results import FailedExperiment
from llenergymeasure.exceptions import ExperimentError, PreFlightError, Problem, StudyError
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import to_json, write_json_atomically
from llenergymeasure.study.events import Begun, Finished, Pausing, Started, StudyEvent
from llenergymeasure.study.manifest import StudyPlan, read_manifest
from llenergymeasure.study.progress import read_progress
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.runners.protocol import Runner, Start
from llenergymeasure.study.session import StudySession, Surroundings
from tests.support.make_result import make_result
from tests.support.study_on_disk import make_execution, make_plan, make_study, scripted

ONE, EIGHT = scripted(1), scripted(8)
GAPS = {"config_gap_seconds": 2.5, "cycle_gap_seconds": 4.0, "timeout_s": 60.0}
NO_GAPS = {"config_gap_seconds": 0.0, "cycle_gap_seconds": 0.0}


class EndedJob:
    """A worker that has ended."""

    start = Start("fork")

    def wait(self, timeout_s: float) -> int | None:
        return 0

    def interrupt(self) -> None:
        return

    def kill(self) -> None:
        return


@dataclass
class Bench(RunnerPool):
    """Runners whose workers end at once, as a test says.

    Attributes:
        fails: Numbers of the starts that fail, from 1.
        interrupted: Number of the start that Ctrl-C breaks into.
        refuses: Whether no process can be started.
        found: Problems of the machine.
    """

    fails: Sequence[int] = ()
    interrupted: int | None = None
    refuses: bool = False
    found: Sequence[Problem] = ()
    orders: list[WorkOrder] = field(default_factory=list)

    def of(self, order: WorkOrder) -> Runner:
        return self  # type: ignore[return-value] # it starts workers itself

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        self.orders += orders
        return list(self.found)

    def start(self, directory: ExperimentDirectory) -> EndedJob:
        if self.refuses:
            raise ExperimentError("no process can be started")
        order = WorkOrder.model_validate_json(directory.config.read_bytes())
        self.orders.append(order)
        number = len(self.orders)
        if number == self.interrupted:
            raise KeyboardInterrupt
        if number in self.fails:
            failure = FailedExperiment(
                config=order.config, phase="load", code="backend", message=f"broke {number}"
            )
            write_json_atomically(directory.error, failure.model_dump_json(indent=2))
        else:
            thermal = ThermalResult(device_start_c={"GPU-0": 40.0 + number})
            update = {
                "config": order.config,
                "measurement_config_hash": order.config.fingerprint(),
                "thermal": thermal,
            }
            to_json(make_result().model_copy(update=update), directory.root)
        return EndedJob()


@dataclass
class Session:
    """A session and what it told."""

    root: Path
    plan: StudyPlan
    bench: Bench
    told: list[StudyEvent] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def run(self) -> None:
        make_study(self.root, self.plan)
        self.make().run()

    def make(self) -> StudySession:
        around = Surroundings(
            EffectiveSettings(UserConfig(), {}),
            self.told.append,
            lambda: False,
            self.slept.append,
            lambda: sum(self.slept),
        )
        return StudySession(self.plan, self.directory, around, self.bench, kept=True)

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
    assert runs == ["Begun", *one, "pause", *one, "pause", *one, "pause", *one]
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
    assert again.of(Begun)[0].done == 2


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
    begun = it.of(Begun)[0]
    assert (begun.total, begun.configurations, begun.done) == (4, 2, 0)
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
    it.bench.refuses = True
    with pytest.raises(StudyError, match="all 3 experiments failed the same way, in phase 'start'"):
        it.run()
    assert len(it.of(Finished)) == 3
    assert read_manifest(it.directory) == it.plan


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
    with pytest.raises(PreFlightError, match="no device"):
        it.make().check(range(2))
    assert [order.config for order in it.bench.orders] == [ONE, EIGHT]
