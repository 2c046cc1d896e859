"""Runs what is left of a study, one experiment after another, and says how it ended."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from llenergymeasure.config.settings_words import labels
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, StudyResult
from llenergymeasure.exceptions import ExperimentError, PreFlightError, StudyError
from llenergymeasure.orchestration.events import Event
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.repository import DirectoryRepository
from llenergymeasure.study import resume
from llenergymeasure.study.breaker import CircuitBreaker
from llenergymeasure.study.closing import Closing
from llenergymeasure.study.estimate import TimeLeft
from llenergymeasure.study.events import Begun, Finished, Noted, Pausing, Started, StudyListener
from llenergymeasure.study.inline import write_order
from llenergymeasure.study.limits import TimeLimits
from llenergymeasure.study.manifest import Slot, StudyPlan
from llenergymeasure.study.order import gap_after, gap_s
from llenergymeasure.study.prepare import as_config
from llenergymeasure.study.progress import ProgressLine, ProgressLog, Status, read_progress
from llenergymeasure.study.resume import Ended, Reader, SlotState, Standing
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.runners.protocol import Job, Start
from llenergymeasure.study.supervise import Progress, Terms, supervise

MOST_AT_ONCE = 200
"""Results that are summed up in a moment; 10,000 take 13 to 20 s (benchmarks/study_summary.py)."""


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
        self._left, self._breaker = TimeLeft(), CircuitBreaker(len(plan.experiments))
        self._reader = Reader(plan)
        self._closing = Closing(plan, directory, self._reader, kept=kept)
        self._reference_start_c: dict[str, float] = {}
        self._session = 1
        self._previous: Slot | None = None
        self._reasons: set[str] = set()
        self._waiting = Progress()

    def look(self) -> Standing:
        """Read every result that is there, and tell what is left to run.

        Raises:
            StudyError: The study's directory cannot be read.
        """
        return resume.look(self._plan, self._directory, self._reader)

    def check(self, configurations: Iterable[int]) -> None:
        """Look for every problem of some configurations, each in the place where it will run.

        Raises:
            PreFlightError: There are some.
        """
        orders = [self._order(number) for number in configurations]
        if orders and (problems := self._runners.problems(orders)):
            raise PreFlightError(problems)

    def run(self, standing: Standing | None = None) -> StudyResult:
        """Run every experiment that has no result, then look at them all.

        Args:
            standing: What :meth:`look` has told; ``None`` looks now.

        Raises:
            StudyError: All fail the same way, the directory is gone, or the disk refuses.
            KeyboardInterrupt: The user interrupted; everything finished is kept.

        However it ends, the summary of what is there is written, as far as the disk lets it.
        """
        found = self.look() if standing is None else standing
        self._left = TimeLeft(self._rest(found.left))
        self._remember(found)
        self._tell_begin(len(found.complete))
        try:
            for state in found.left:
                self._pause(state.slot)
                self._left.begin()
                self._one(state)
        except BaseException as error:
            self._log.close()
            self._leave(interrupted=not isinstance(error, Exception))
            raise
        self._log.close()
        self._keep_progress()
        return self._closing.finish()

    def _leave(self, *, interrupted: bool) -> None:
        """Write what there is to say of a study that is broken off; nothing hides why it is.

        Whoever interrupts waits a moment for it, and no more.
        """
        complete = self._keep_progress()
        at_once = complete is not None and complete <= MOST_AT_ONCE and not self._around.stop()
        if at_once or not interrupted:
            with contextlib.suppress(ExperimentError, StudyError, OSError):
                self._closing.finish()

    def _keep_progress(self) -> int | None:
        """Write the progress; give how many experiments are complete, ``None`` if it cannot be."""
        try:
            return self._closing.write_progress().complete
        except (ExperimentError, StudyError, OSError) as error:
            if self._directory.root.is_dir():  # else whatever comes next says so
                self._around.listener(Noted(f"the progress of the study is not kept: {error}"))
            return None

    def _one(self, state: SlotState) -> None:
        slot = state.slot
        if not resume.make_ready(state.directory, self._plan.config(slot)):
            return
        started_s = time.monotonic()
        self._note(slot, "running")
        try:
            outcome = self._measured(state)
        except KeyboardInterrupt:
            self._note(slot, "interrupted")
            raise
        seconds = time.monotonic() - started_s
        self._previous = slot
        self._learn(slot, outcome, max(0.0, seconds - self._waited_s()))
        self._around.listener(Finished(*self._told(state), outcome, seconds, self._left.seconds()))
        if isinstance(outcome, FailedExperiment):
            self._breaker.failed(slot.configuration, outcome)

    def _measured(self, state: SlotState) -> Ended:
        directory, self._waiting = state.directory, Progress()
        order = self._order(state.slot.configuration).model_copy(
            update={
                "reference_start_c": dict(self._reference_start_c),
                "session": self._session,
            }
        )
        write_order(directory, order)
        terms = Terms(self._limits.of(order.config), self._hear, self._around.stop)
        try:
            job = self._runners.of(order).start(directory)
        except ExperimentError as error:
            return _not_started(directory, order, error)
        with _killed_on_error(job):
            self._tell_start(state, job.start)
            return supervise(job, directory, order, terms)

    def _tell_start(self, state: SlotState, start: Start) -> None:
        """Say that an experiment begins, and once for each reason why not as it was asked."""
        if start.reason is not None and start.reason not in self._reasons:
            self._reasons.add(start.reason)
            asked = self._plan.execution.start_method
            what = "each experiment is spawned, not forked"
            if asked == "forkserver":
                what = "execution.start_method: forkserver cannot be had, so " + what
            self._around.listener(Noted(f"{what}: {start.reason}"))
        self._around.listener(Started(*self._told(state), start.method))

    def _hear(self, event: Event) -> None:
        self._waiting.note(event)
        self._around.listener(event)

    def _waited_s(self) -> float:
        return self._waiting.waited_s(time.monotonic_ns())

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
            self._closing.failed[slot.number] = outcome
            self._note(slot, "failed", seconds, outcome.code)
            return
        self._note(slot, "complete", seconds)
        self._left.learn(slot.configuration, seconds)
        self._breaker.succeeded()
        self._refer_to(outcome)

    def _remember(self, standing: Standing) -> None:
        """Take up what an earlier run of this study has learned."""
        done = {state.slot.number: state.slot.configuration for state, _ in standing.complete}
        for line in read_progress(self._directory.progress):
            if line.status == "complete" and line.duration_s is not None and line.slot in done:
                self._left.learn(done[line.slot], line.duration_s)
        for state, result in standing.complete:
            self._closing.complete[state.slot.number] = result
            self._session = max(self._session, 1 + (result.resolved.session or 1))
            self._breaker.succeeded()
            self._refer_to(result)

    def _refer_to(self, result: ExperimentResult) -> None:
        """Keep how warm each device was when the first experiment on it began."""
        if result.thermal is not None:
            self._reference_start_c = {**result.thermal.device_start_c, **self._reference_start_c}

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

    def _rest(self, left: Iterable[SlotState]) -> Iterator[tuple[int, float]]:
        """Give the configuration of each experiment, and the pause before it, s."""
        settings, slots = self._around.settings.config.execution, [one.slot for one in left]
        for previous, slot in itertools.pairwise([None, *slots]):
            assert slot is not None  # only the first has none before it
            gap = gap_after(previous, slot, self._execution)
            yield slot.configuration, gap_s(gap, self._execution, settings)

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


def _not_started(
    directory: ExperimentDirectory, order: WorkOrder, error: ExperimentError
) -> FailedExperiment:
    failure = FailedExperiment(
        config=order.config, phase="start", code=error.code, message=error.message
    )
    # A disk that is full may refuse this; the summary has the failure all the same.
    with contextlib.suppress(ExperimentError):
        DirectoryRepository(directory).save_failure(failure)
    return failure


@contextlib.contextmanager
def _killed_on_error(job: Job) -> Iterator[None]:
    try:
        yield
    except BaseException:
        job.kill()
        raise
