"""Runs what is left of a study, one experiment after another, and says how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, StudyResult
from llenergymeasure.exceptions import ExperimentError, PreFlightError
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study import resume
from llenergymeasure.study.breaker import CircuitBreaker
from llenergymeasure.study.collect import Outcome, study_result, write_summary
from llenergymeasure.study.eta import DurationsSeen
from llenergymeasure.study.events import Begun, Finished, Pausing, Started, StudyListener
from llenergymeasure.study.inline import write_order
from llenergymeasure.study.labels import labels
from llenergymeasure.study.limits import TimeLimits
from llenergymeasure.study.manifest import StudyPlan, write_manifest
from llenergymeasure.study.order import gap_after, gap_s
from llenergymeasure.study.plan import Slot
from llenergymeasure.study.prepare import as_config, design
from llenergymeasure.study.progress import ProgressLine, ProgressLog, Status, read_progress
from llenergymeasure.study.resume import SlotState
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.supervise import Terms, supervise

Ended = ExperimentResult | FailedExperiment


class Surroundings(NamedTuple):
    """What a study runs with.

    Attributes:
        settings: The user's settings.
        listener: Told of everything that happens.
        stop: Asked after an interrupt whether to kill what is running at once.
        sleep: Sleeps some seconds.
        clock_s: Monotonic clock that pauses are held against, s.
    """

    settings: EffectiveSettings
    listener: StudyListener
    stop: Callable[[], bool]
    sleep: Callable[[float], None] = time.sleep
    clock_s: Callable[[], float] = time.monotonic


class StudySession:
    """Owns a study's directory while it runs what is missing.

    Args:
        plan: The plan of the study.
        directory: Where it lies.
        surroundings: What it runs with.
        runners: How workers get started.
        kept: Whether the directory stays.
    """

    def __init__(
        self,
        plan: StudyPlan,
        directory: StudyDirectory,
        surroundings: Surroundings,
        runners: RunnerPool,
        *,
        kept: bool,
    ) -> None:
        self._plan, self._directory, self._kept = plan, directory, kept
        self._around, self._runners = surroundings, runners
        self._execution = as_config(plan.execution)
        self._limits = TimeLimits(surroundings.settings, plan.execution.timeout_s)
        self._log = ProgressLog(directory.progress)
        self._seen, self._breaker = DurationsSeen(), CircuitBreaker(len(plan.experiments))
        self._reference_start_c: dict[str, float] = {}
        self._kept_nowhere: dict[int, FailedExperiment] = {}
        self._previous: Slot | None = None

    def run(self) -> StudyResult:
        """Run every experiment that has no result, then look at them all.

        Raises:
            PreFlightError: This machine cannot run one of them; none was started.
            StudyError: All fail the same way, or the disk refuses.
            KeyboardInterrupt: The user interrupted; everything finished is kept.
        """
        states = resume.scan(self._plan, self._directory)
        left = [state for state in states if state.status != "complete"]
        self._remember([state for state in states if state.status == "complete"])
        self._tell_begin(len(states) - len(left))
        try:
            for place, state in enumerate(left):
                self._pause(state.slot)
                self._one(state, left[place + 1 :])
        finally:
            self._log.close()
            self._write_progress()
        return self._result()

    def check(self) -> None:
        """Look for every problem of every experiment, each in the place where it will run.

        Raises:
            PreFlightError: There are some.
        """
        orders = [self._order(number) for number in range(len(self._plan.experiments))]
        if problems := self._runners.problems(orders):
            raise PreFlightError(problems)

    def _one(self, state: SlotState, rest: list[SlotState]) -> None:
        if not resume.make_ready(state.directory):
            return
        slot, started_s = state.slot, time.monotonic()
        self._note(slot, "running")
        try:
            outcome = self._measured(state)
        except KeyboardInterrupt:
            self._note(slot, "interrupted")
            raise
        seconds = time.monotonic() - started_s
        self._previous = slot
        self._learn(slot, outcome, seconds)
        left_s = self._left_s(rest)
        self._around.listener(Finished(*self._told(state), outcome, seconds, left_s))
        if isinstance(outcome, FailedExperiment):
            if not state.directory.error.is_file():  # the disk is full, or the directory gone
                self._kept_nowhere[slot.number] = outcome
            self._breaker.failed(slot.configuration, outcome)

    def _measured(self, state: SlotState) -> Ended:
        slot, directory = state.slot, state.directory
        order = self._order(slot.configuration).model_copy(
            update={"reference_start_c": self._reference_start_c}
        )
        write_order(directory, order)
        try:
            job = self._runners.of(order).start(directory)
        except ExperimentError as error:
            return FailedExperiment(
                config=order.config, phase="start", code=error.code, message=error.message
            )
        self._around.listener(Started(*self._told(state), job.start.method))
        terms = Terms(self._limits.of(order.config), self._around.listener, self._around.stop)
        return supervise(job, directory, order, terms)

    def _told(self, state: SlotState) -> tuple[int, int, int, str]:
        """Give what is told of every experiment."""
        slot, total = state.slot, len(self._plan.slots)
        return slot.number, total, slot.configuration + 1, state.directory.root.name

    def _order(self, configuration: int) -> WorkOrder:
        config = self._plan.experiments[configuration]
        order = WorkOrder.of(config, self._around.settings)
        return order.model_copy(update={"cold_start": self._plan.cold_start})

    def _learn(self, slot: Slot, outcome: Ended, seconds: float) -> None:
        if isinstance(outcome, FailedExperiment):
            self._note(slot, "failed", seconds, outcome.code)
            return
        self._note(slot, "complete", seconds)
        self._seen.add(slot.configuration, seconds)
        self._breaker.succeeded()
        self._refer_to(outcome)

    def _remember(self, complete: list[SlotState]) -> None:
        """Take up what an earlier run of this study has learned."""
        done = {state.slot.number: state.slot.configuration for state in complete}
        for line in read_progress(self._directory.progress):
            if line.status == "complete" and line.duration_s is not None and line.slot in done:
                self._seen.add(done[line.slot], line.duration_s)
        for state in complete:
            found = resume.outcome(state, self._plan.config(state.slot))
            if isinstance(found, ExperimentResult):
                self._breaker.succeeded()
                self._refer_to(found)
                return

    def _refer_to(self, result: ExperimentResult) -> None:
        if not self._reference_start_c and result.thermal is not None:
            self._reference_start_c = dict(result.thermal.device_start_c)

    def _pause(self, slot: Slot) -> None:
        gap = gap_after(self._previous, slot, self._execution)
        total_s = gap_s(gap, self._execution, self._around.settings.config.execution)
        if gap is None or total_s <= 0:
            return
        kind = "cycle" if gap == "cycle" else "experiment"
        end_s, left_s = self._around.clock_s() + total_s, total_s
        while left_s > 0:
            self._around.listener(Pausing(kind, left_s, total_s))
            self._around.sleep(min(1.0, left_s))
            left_s = end_s - self._around.clock_s()

    def _left_s(self, rest: list[SlotState]) -> float | None:
        work_s = self._seen.expected_s(state.slot.configuration for state in rest)
        if work_s is None:
            return None
        settings, previous = self._around.settings.config.execution, self._previous
        for state in rest:
            gap = gap_after(previous, state.slot, self._execution)
            work_s += gap_s(gap, self._execution, settings)
            previous = state.slot
        return work_s

    def _note(
        self, slot: Slot, status: Status, seconds: float | None = None, code: str | None = None
    ) -> None:
        now = datetime.now(UTC)
        self._log.note(
            ProgressLine(slot=slot.number, status=status, at=now, duration_s=seconds, code=code)
        )

    def _tell_begin(self, done: int) -> None:
        plan = self._plan
        self._around.listener(
            Begun(
                name=plan.name or "without a name",
                directory=str(self._directory.root) if self._kept else None,
                configurations=len(plan.experiments),
                total=len(plan.slots),
                done=done,
                skipped=len(plan.skipped),
                merged=plan.merged,
                labels=tuple(labels(plan.experiments)),
            )
        )

    def _write_progress(self) -> None:
        if self._directory.root.is_dir():
            states = resume.scan(self._plan, self._directory)
            progress = resume.count(states, datetime.now(UTC))
            write_manifest(self._directory, self._plan, progress)

    def _result(self) -> StudyResult:
        states = resume.scan(self._plan, self._directory)
        outcomes = (self._outcome(state) for state in states)
        result = study_result(design(self._plan), outcomes)
        write_summary(result, self._directory.root)
        return result

    def _outcome(self, state: SlotState) -> Outcome:
        found = resume.outcome(state, self._plan.config(state.slot))
        found = found or self._kept_nowhere.get(state.slot.number)
        done = isinstance(found, ExperimentResult) and self._kept
        return Outcome(state.slot, found, str(state.directory.result) if done else None)
