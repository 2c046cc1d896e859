"""Runs what is left of a study, one experiment after another, and says how it ended."""

from __future__ import annotations

import contextlib
import re
import time
from datetime import UTC, datetime
from pathlib import Path

from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import (
    ExperimentResult,
    FailedExperiment,
    Outcome,
    StudyResult,
)
from llenergymeasure.exceptions import ExperimentError, StudyError
from llenergymeasure.locks import check_owned
from llenergymeasure.orchestration.order import Start, new_rescue
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study import resume
from llenergymeasure.study.collect import SlotOutcome, study_result, write_summary
from llenergymeasure.study.estimate import TimeLeft
from llenergymeasure.study.events import (
    Callbacks,
    Finished,
    Noted,
    Pausing,
    ProgressLine,
    ProgressLog,
    Started,
    Status,
    StudyInterrupted,
    read_progress,
)
from llenergymeasure.study.forecast import TimeLimits
from llenergymeasure.study.likeness import Inputs, inputs_of
from llenergymeasure.study.manifest import Slot, StudyPlan, write_manifest
from llenergymeasure.study.resume import SlotState, StudyState
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.supervise import Ended, kept, supervise

MOST_AT_ONCE = 200
"""Results that are summed up in a moment; 10,000 take 13 to 20 s (benchmarks/study_summary.py)."""
ENOUGH = 3
"""Failures, and different configurations that failed where there are as many, before it stops."""


class StudySession:
    """Owns a study's directory while it runs what is missing.

    Args:
        plan: The plan of the study.
        directory: Where it lies.
        runners: How workers get started.
        settings: The user's settings.
        calls: What is called meanwhile.
        kept: Whether the directory stays.
    """

    def __init__(  # noqa: PLR0913 - what it works with is given by name
        self,
        plan: StudyPlan,
        directory: StudyDirectory,
        runners: RunnerPool,
        settings: EffectiveSettings,
        calls: Callbacks,
        *,
        kept: bool,
    ) -> None:
        self._plan, self._directory, self._runners = plan, directory, runners
        self._settings, self._calls, self._kept = settings, calls, kept
        self._limits = TimeLimits(settings, plan.execution.timeout_s)
        self._log = ProgressLog(directory.progress)
        self._left, self._breaker = TimeLeft(), CircuitBreaker(len(plan.experiments))
        self._reader = resume.ResultReader(plan)
        self._known: dict[int, Outcome] = {}  # by slot; the disk may have refused to keep a failure
        self._reference_start_c: dict[str, float] = {}
        self._inputs = Inputs(plan.inputs)
        self._session = 1
        self._previous: Slot | None = None
        self._reasons: set[str] = set()

    def run(self, state: StudyState | None = None) -> StudyResult:
        """Run every experiment that has no result, then look at them all.

        Args:
            state: What :func:`resume.look` has told; ``None`` looks now.

        Raises:
            StudyError: All fail the same way, the directory is gone, or the disk refuses.
            KeyboardInterrupt: The user interrupted; everything finished is kept.

        However it ends, the summary of what is there is written, as far as the disk lets it.
        """
        found = resume.look(self._plan, self._directory) if state is None else state
        slots = [one.slot for one in found.left]
        gaps_s = self._plan.execution.gaps_s(slots)
        self._left = TimeLeft(zip((slot.configuration for slot in slots), gaps_s, strict=True))
        self._remember(found)
        try:
            for one in found.left:
                self._pause(one.slot)
                check_owned(self._directory)
                self._left.begin()
                self._one(one)
        except BaseException as error:
            self._log.close()
            # Nothing hides why it is broken off. Whoever interrupts waits a moment, and no more.
            complete = self._keep_progress()
            at_once = complete is not None and complete <= MOST_AT_ONCE and not self._calls.stop()
            finished: StudyResult | None = None
            if at_once or isinstance(error, Exception):
                with contextlib.suppress(ExperimentError, StudyError, OSError):
                    finished = self._summarise()
            if isinstance(error, KeyboardInterrupt):
                raise StudyInterrupted(str(error) or "interrupted", finished) from None
            raise
        self._log.close()
        self._keep_progress()
        return self._summarise()

    def rescued(self) -> list[tuple[Path, str]]:
        """List experiments whose directory took nothing, and where what they measured is kept."""
        return [
            (self._plan.directory(self._directory, slot).root, failure.rescued)
            for slot in self._plan.slots
            if isinstance(failure := self._known.get(slot.number), FailedExperiment)
            and failure.rescued is not None
        ]

    def _summarise(self) -> StudyResult:
        """Read every experiment, and write the summary.

        Raises:
            StudyError: The study's directory cannot be read.
            ExperimentError: The summary cannot be written.
        """
        states = resume.scan(self._plan, self._directory)
        found = (SlotOutcome.of(one, self._outcome(one), kept=self._kept) for one in states)
        result = study_result(self._plan, found)
        write_summary(result, self._directory)
        return result

    def _outcome(self, state: SlotState) -> Outcome | None:
        known = self._known.get(state.slot.number)
        if state.status == "complete" and isinstance(known, ExperimentResult):
            return known
        return self._reader.read(state) or known

    def _keep_progress(self) -> int | None:
        """Write the progress; give how many experiments are complete, ``None`` if it cannot be."""
        try:
            states = resume.scan(self._plan, self._directory)
            progress = resume.count(states, datetime.now(UTC))
            write_manifest(self._directory, self._plan, progress)
        except (ExperimentError, StudyError, OSError) as error:
            if self._directory.root.is_dir():  # else whatever comes next says so
                self._calls.listener(Noted(f"the progress of the study is not kept: {error}"))
            return None
        return progress.complete

    def _one(self, state: SlotState) -> None:
        slot = state.slot
        config, place = self._plan.config(slot), self._plan.place(slot)
        again = state.status == "complete"  # and yet it is to be run
        if not resume.make_ready(state.directory, config, place, again=again):
            return
        started_s = time.monotonic()
        self._note(slot, "running")
        try:
            outcome, waited_s = self._measured(state)
        except KeyboardInterrupt:
            self._note(slot, "interrupted")
            raise
        seconds = time.monotonic() - started_s
        self._previous = slot
        self._learn(slot, outcome, max(0.0, seconds - waited_s))
        self._calls.listener(Finished(*self._told(state), outcome, seconds, self._left.seconds()))
        if isinstance(outcome, FailedExperiment):
            self._breaker.failed(slot.configuration, outcome)

    def _measured(self, state: SlotState) -> Ended:
        directory = state.directory
        order = self._plan.order(state.slot.configuration, self._settings).model_copy(
            update={
                "reference_start_c": dict(self._reference_start_c),
                "session": self._session,
                "inputs": self._inputs.of(self._plan.config(state.slot)),
                "rescue": new_rescue(),
                "place": self._plan.place(state.slot),
            }
        )
        order.write(directory)
        within_s = self._limits.of(order.config)
        loading_within_s = self._limits.of_loading(order.config)
        try:
            job = self._runners.of(order).start(directory)
        except ExperimentError as error:
            failure = FailedExperiment(
                config=order.config, phase="start", code=error.code, message=error.message
            )
            return Ended(kept(directory, failure), 0.0)
        try:
            self._tell_start(state, job.start)
            return supervise(
                job,
                directory,
                order,
                self._calls,
                within_s=within_s,
                loading_within_s=loading_within_s,
            )
        except BaseException:
            job.kill()
            raise

    def _tell_start(self, state: SlotState, start: Start) -> None:
        """Say that an experiment begins, and once for each reason why not as it was asked."""
        if start.reason is not None and start.reason not in self._reasons:
            self._reasons.add(start.reason)
            what = "each experiment is spawned, not forked"
            if self._plan.execution.start_method == "forkserver":
                what = "execution.start_method: forkserver cannot be had, so " + what
            self._calls.listener(Noted(f"{what}: {start.reason}"))
        self._calls.listener(Started(*self._told(state), start.method))

    def _told(self, state: SlotState) -> tuple[int, int, int, str]:
        slot, total = state.slot, len(self._plan.slots)
        return slot.number, total, slot.configuration + 1, state.directory.root.name

    def _learn(self, slot: Slot, outcome: Outcome, seconds: float) -> None:
        if isinstance(outcome, FailedExperiment):
            self._known[slot.number] = outcome
            self._note(slot, "failed", seconds, outcome.code)
            return
        self._note(slot, "complete", seconds)
        self._left.learn(slot.configuration, seconds)
        self._breaker.succeeded()
        self._refer_to(outcome)

    def _remember(self, found: StudyState) -> None:
        """Take up what an earlier run of this study has learned."""
        done = {state.slot.number: state.slot.configuration for state, _ in found.complete}
        for line in read_progress(self._directory.progress):
            if line.status == "complete" and line.duration_s is not None and line.slot in done:
                self._left.learn(done[line.slot], line.duration_s)
        for state, result in found.complete:
            self._known[state.slot.number] = result
            self._session = max(self._session, 1 + (result.resolved.session or 1))
            self._breaker.succeeded()
            self._refer_to(result)

    def _refer_to(self, result: ExperimentResult) -> None:
        """Keep what later results are held against: inputs, and how warm each device was first."""
        self._inputs.learn(result.config, inputs_of(result))
        if result.thermal is not None:
            self._reference_start_c = {**result.thermal.device_start_c, **self._reference_start_c}

    def _pause(self, slot: Slot) -> None:
        execution, previous = self._plan.execution, self._previous
        total_s = execution.gap_s(previous, slot)
        if previous is None or total_s <= 0:
            return
        kind = "cycle" if execution.between_cycles(previous, slot) else "experiment"
        end_s, left_s = self._calls.clock_s() + total_s, total_s
        while left_s > 0:
            self._calls.listener(Pausing(kind, left_s, total_s))
            self._calls.sleep(min(1.0, left_s))
            left_s = end_s - self._calls.clock_s()

    def _note(
        self, slot: Slot, status: Status, seconds: float | None = None, code: str | None = None
    ) -> None:
        now = datetime.now(UTC)
        self._log.note(
            ProgressLine(slot=slot.number, status=status, at=now, duration_s=seconds, code=code)
        )


class CircuitBreaker:
    """Trips once every experiment so far has failed alike; one success disarms it for good.

    Args:
        configurations: Distinct configurations of the study.
    """

    def __init__(self, configurations: int) -> None:
        self._needed = min(ENOUGH, configurations)
        self._ways: set[tuple[str, str | None, str]] = set()
        self._failed: set[int] = set()
        self._count = 0
        self._armed = True

    def succeeded(self) -> None:
        """Note a success."""
        self._armed = False

    def failed(self, configuration: int, failure: FailedExperiment) -> None:
        """Note a failure.

        Raises:
            StudyError: Nothing else is to be expected of the rest.
        """
        self._ways.add(way_of_failing(failure))
        self._failed.add(configuration)
        self._count += 1
        alike = self._armed and len(self._ways) == 1
        if alike and self._count >= ENOUGH and len(self._failed) >= self._needed:
            raise StudyError(
                f"stopped: all {self._count} experiments failed the same way, in phase "
                f"'{failure.phase}': {failure.message}\n"
                "  mend that first: the others would fail as well",
                where=failure.phase,
            )


def way_of_failing(failure: FailedExperiment) -> tuple[str, str | None, str]:
    """Tell failures apart by code, phase and the words of their first line, figures aside."""
    line = failure.message.partition("\n")[0]
    return failure.code, failure.phase, re.sub(r"\d+", "#", line)
