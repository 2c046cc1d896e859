"""Runs a study: one experiment here, a collection in processes of their own, or the rest of one."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from llenergymeasure import temporary
from llenergymeasure.config.canonical import design_hash
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.config.settings_words import labels
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.backends.shared.answering import no_answer_later_than
from llenergymeasure.datasets import loader as datasets
from llenergymeasure.domain.prompts import unused_words
from llenergymeasure.domain.results import FailedExperiment, Outcome, StudyResult
from llenergymeasure.exceptions import (
    BackendError,
    ExperimentError,
    StudyError,
    cause_and_remedy,
)
from llenergymeasure.locks import owned
from llenergymeasure.orchestration import preflight, worker
from llenergymeasure.orchestration.events import Event, Listener
from llenergymeasure.orchestration.order import WorkOrder, new_rescue
from llenergymeasure.overtime import Guard, LastWords
from llenergymeasure.results.filenames import claim_directory, experiment_name, study_directory_name
from llenergymeasure.results.files import remove_unfinished, set_aside
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.study import grid, prepare
from llenergymeasure.study.events import Begun, Callbacks, Noted, Placed, StudyInterrupted
from llenergymeasure.study.forecast import TimeLimits
from llenergymeasure.study.likeness import Inputs
from llenergymeasure.study.manifest import StudyPlan, write_manifest, write_plan
from llenergymeasure.study.prepare import find_study
from llenergymeasure.study.resume import MALFORMED, StudyState, look
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.session import StudySession
from llenergymeasure.study.supervise import LOADING, loads_too_long, supervise

_IMPORTED_WITHIN_S = 60.0  # a file system may not answer; whoever needs it waits where it is said


@dataclass(frozen=True)
class StudyRunner:
    """Runs a study.

    Attributes:
        study: What to run; ``None`` goes on with the design of the study that is resumed.
        settings: How to run it on this machine.
        results_dir: Where its directory goes; ``None`` keeps nothing.
        calls: What is called meanwhile.
        resume: A study to go on with.
        execution: Fields of ``execution`` that flags set; a study that is given holds them already.
        allow_large: Whether a grid may be larger than is usual.
        again: Numbers of finished slots that are run again, of a study that is resumed.
    """

    study: StudyConfig | None
    settings: EffectiveSettings
    results_dir: Path | None
    calls: Callbacks = field(default_factory=Callbacks)
    resume: Path | None = None
    execution: Mapping[str, Any] = field(default_factory=dict)
    allow_large: bool = False
    again: tuple[int, ...] = ()

    def run(self) -> StudyResult:
        """Run it.

        Raises:
            PreFlightError: This machine cannot run it.
            ExperimentError: A single experiment started and broke.
            StudyError: The study cannot be planned, resumed or gone on with; what is finished is
                kept.
            KeyboardInterrupt: The user interrupted; what is finished is kept.
        """
        study = self.study
        if study is not None and self.resume is None and (one := study.single) is not None:
            return self._one(study, one)
        if study is not None and not self.allow_large:
            grid.check_size(study)
        if self.resume is not None:
            return self._go_on(find_study(self.resume))
        if study is None:
            raise StudyError("there is no study to run", where="study")
        return self._begin(prepare.new_plan(study, self.settings.config))

    def _one(self, study: StudyConfig, experiment: ExperimentConfig) -> StudyResult:
        """Run a study of one experiment, which needs no plan: here, or where its backend runs."""
        config = grid.cold(experiment) if study.cold_start else experiment
        order = WorkOrder.of(config, self.settings, cold_start=study.cold_start)
        if order.runner != preflight.LOCAL:
            order = order.model_copy(update={"rescue": new_rescue()})
        kept = self.results_dir is not None
        with (
            _checked(order, self.settings, self.calls) as run,
            _claimed(
                self.results_dir,
                lambda: experiment_name(config.model, config.backend, datetime.now()),
            ) as root,
        ):
            directory = ExperimentDirectory(root)
            if kept:
                self.calls.listener(Placed(str(directory.root)))
            order.write(directory)
            outcome = run(directory)
            if isinstance(outcome, FailedExperiment):
                raise worker.error_of(outcome, directory, kept=kept)
        return StudyResult(
            name=study.name,
            study_design_hash=design_hash([config.fingerprint()], cold_start=study.cold_start),
            generated=1,
            ran=1,
            result_files=(directory.result.name if kept else None,),
            experiments=(outcome,),
            directory=str(directory.root) if kept else None,
        )

    def _begin(self, plan: StudyPlan) -> StudyResult:
        self._tell(plan, done=0)
        with RunnerPool(plan.execution.start_method) as runners:
            # The checks come first, so that a study that cannot run leaves no directory.
            self._check(runners, plan, range(len(plan.experiments)))
            inputs = Inputs()
            inputs.look(plan.experiments, self.settings.config.model_cache_path())
            plan = plan.model_copy(update={"inputs": inputs.as_data()})
            with self._directory(plan) as directory, owned(directory):
                return self._run(plan, directory, runners, look(plan, directory))

    def _go_on(self, directory: StudyDirectory) -> StudyResult:
        with owned(directory):
            plan, notes, rejected = prepare.continuation(
                directory, self.study, self.settings.config, self.execution
            )
            for note in notes:
                self.calls.listener(Noted(note))
            with RunnerPool(plan.execution.start_method) as runners:
                found = look(plan, directory).again(self.again)
                self._tell(plan, done=len(found.complete))
                for note in found.notes():
                    self.calls.listener(Noted(note))
                # What is finished needs no engine any more, and no prompts.
                left = sorted({one.slot.configuration for one in found.left})
                self._check(runners, plan, left)
                inputs = Inputs(plan.inputs, (result for _, result in found.complete))
                configs = [plan.experiments[number] for number in left]
                inputs.refuse_others(configs, self.settings.config.model_cache_path())
                try:
                    set_aside(rejected, MALFORMED)
                except OSError as error:
                    why = cause_and_remedy(error, Path(error.filename))
                    said = f"cannot keep {error.filename} under a number: {why}, then resume"
                    raise StudyError(said) from None
                return self._run(plan, directory, runners, found)

    def _tell(self, plan: StudyPlan, *, done: int) -> None:
        self.calls.listener(
            Begun(
                name=plan.name or "without a name",
                configurations=len(plan.experiments),
                total=len(plan.slots),
                done=done,
                skipped=len(plan.skipped),
                merged=plan.merged,
                labels=tuple(labels(plan.experiments)),
            )
        )

    def _check(self, runners: RunnerPool, plan: StudyPlan, configurations: Sequence[int]) -> None:
        with _parquet_imported_meanwhile():
            runners.check([plan.order(number, self.settings) for number in configurations])
        configs = [plan.experiments[number] for number in configurations]
        for dataset, n in dict.fromkeys((one.dataset, one.n) for one in configs):
            seen = datasets.look(dataset, n)
            if seen is not None and seen.unused:
                name = getattr(dataset, "path", dataset)
                self.calls.listener(Noted(f"{name}: {unused_words(seen.unused)}"))

    def _run(
        self,
        plan: StudyPlan,
        directory: StudyDirectory,
        runners: RunnerPool,
        found: StudyState,
    ) -> StudyResult:
        remove_unfinished(directory.root)
        write_plan(directory, plan)
        write_manifest(directory, plan, found.progress(datetime.now().astimezone()))
        kept = self._keeps()
        if kept:
            self.calls.listener(Placed(str(directory.root)))
        session = StudySession(plan, directory, runners, self.settings, self.calls, kept=kept)
        try:
            return session.run(found)
        except KeyboardInterrupt as interrupt:
            message = str(interrupt) or "interrupted"
            finished = interrupt.study if isinstance(interrupt, StudyInterrupted) else None
            if finished is not None:
                message += f"\n  done: {finished.ran:,} of {len(plan.slots):,} experiments"
            message += self._advice(session, directory)
            raise StudyInterrupted(message, finished) from None
        except (StudyError, ExperimentError) as error:
            message = error.message + self._advice(session, directory)
            raise StudyError(message, where=error.where) from error

    def _advice(self, session: StudySession, directory: StudyDirectory) -> str:
        """Say where else something is kept, and how a study that is still there goes on."""
        lines = []
        for root, rescued in session.rescued():
            counts = f"; copied into {shlex.quote(str(root))} it counts" if self._keeps() else ""
            lines.append(f"what {root.name} measured is kept in {shlex.quote(rescued)}{counts}")
        if self._keeps() and directory.root.is_dir():
            lines.append(f"go on with: llem run --resume {shlex.quote(str(directory.root))}")
        return "".join(f"\n  {line}" for line in lines)

    def _keeps(self) -> bool:
        return self.results_dir is not None or self.resume is not None

    @contextlib.contextmanager
    def _directory(self, plan: StudyPlan) -> Iterator[StudyDirectory]:
        with _claimed(
            self.results_dir, lambda: study_directory_name(plan.name, plan.created_at)
        ) as root:
            directory = StudyDirectory(root)
            try:
                yield directory
            finally:  # a study that was broken off before it had a plan leaves no directory
                if not (directory.manifest.exists() or directory.experiments.exists()):
                    with contextlib.suppress(OSError):
                        for file in (directory.lock, directory.plan):
                            file.unlink(missing_ok=True)
                        directory.root.rmdir()


@contextlib.contextmanager
def _claimed(results_dir: Path | None, name: Callable[[], str]) -> Iterator[Path]:
    """Make a directory of a name, or one that is gone after the block where nothing is kept."""
    if results_dir is not None:
        yield claim_directory(results_dir, name())
        return
    with temporary.folder("study") as path:
        yield path


@contextlib.contextmanager
def _parquet_imported_meanwhile() -> Iterator[None]:
    """Import what the end of a study needs while this process only waits, and not while measuring.

    An engine that is loading leaves a core free for it.
    """

    def read() -> None:
        with contextlib.suppress(ImportError):  # whoever needs it says so
            importlib.import_module("pyarrow.parquet")

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield
    finally:
        reading.join(_IMPORTED_WITHIN_S)


@contextlib.contextmanager
def _checked(
    order: WorkOrder, settings: EffectiveSettings, calls: Callbacks
) -> Iterator[Callable[[ExperimentDirectory], Outcome]]:
    """Check that an experiment can run, and give the way to run it."""
    limits = cache(lambda: TimeLimits(settings, None))
    limit_s = cache(lambda: limits().of(order.config))
    if order.runner == "local":
        preflight.check(order)

        def run_here(directory: ExperimentDirectory) -> Outcome:
            bounded: contextlib.AbstractContextManager[Listener]
            if backend_entry(order.config.backend).runs_a_model:
                loading_s = limits().of_loading(order.config)
                bounded = loading_bounded(directory, order, calls.listener, loading_s)
            else:
                bounded = contextlib.nullcontext(calls.listener)
            with no_answer_later_than(limit_s), bounded as listener:
                return worker.run(directory, listener)

        yield run_here
        return
    within_s, loading_within_s = limit_s(), limits().of_loading(order.config)
    with RunnerPool("auto") as runners:
        runners.check([order])

        def run(directory: ExperimentDirectory) -> Outcome:
            job = runners.of(order).start(directory)
            return supervise(
                job,
                directory,
                order,
                calls,
                within_s=within_s,
                loading_within_s=loading_within_s,
            ).outcome

        yield run


@contextlib.contextmanager
def loading_bounded(
    directory: ExperimentDirectory, order: WorkOrder, listener: Listener, within_s: float
) -> Iterator[Listener]:
    """Bound the loading of an experiment that runs in this process, whatever it does.

    Args:
        directory: Where it writes.
        order: What it is told.
        listener: Told of every event.
        within_s: Longest time for loading the model and preparing its prompts, s.

    Yields:
        What the experiment has to tell of every event instead.
    """
    late = BackendError(loads_too_long(within_s), where="load")
    late.code = "timeout"
    failure = FailedExperiment(
        config=order.config, phase="load", code=late.code, message=late.message
    )
    words = LastWords(
        directory.error.absolute(),
        failure.model_dump_json(indent=2) + "\n",
        f"\nllem: {late.message}\n",
    )
    guard = Guard(within_s, lambda: late, words)

    def listen(event: Event) -> None:
        if event.phase in LOADING:
            guard.begin()
        else:
            guard.end()
        listener(event)

    try:
        yield listen
    finally:
        guard.end()
