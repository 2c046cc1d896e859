"""Runs a study: one experiment here, a collection in processes of their own, or the rest of one."""

from __future__ import annotations

import contextlib
import importlib
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.config.models import StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import StudyResult
from llenergymeasure.exceptions import ExperimentError, StudyError
from llenergymeasure.locks import owned
from llenergymeasure.results.filenames import claim_directory, study_directory_name
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study import prepare
from llenergymeasure.study.continuation import find_study
from llenergymeasure.study.events import Noted, StudyListener, tell_nobody
from llenergymeasure.study.inline import SingleExperiment, only_experiment
from llenergymeasure.study.manifest import StudyPlan, write_manifest, write_plan
from llenergymeasure.study.resume import Standing
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.session import StudySession, Surroundings

AT_THE_END = ("pyarrow.parquet",)


class Wishes(NamedTuple):
    """How the caller wants a study to be run.

    Attributes:
        listener: Told of everything that happens.
        stop: Asked after an interrupt whether to kill what is running at once.
        resume: A study to go on with.
        execution: Fields of ``execution`` that flags set; a study that is given holds them already.
        allow_large: Whether a grid may be larger than is usual.
    """

    listener: StudyListener = tell_nobody
    stop: Callable[[], bool] = lambda: False
    resume: Path | None = None
    execution: Mapping[str, Any] = {}
    allow_large: bool = False


class StudyRunner:
    """Runs a study.

    Args:
        study: What to run; ``None`` goes on with the design of the study that is resumed.
        settings: How to run it on this machine.
        results_dir: Where its directory goes; ``None`` keeps nothing.
        wishes: How the caller wants it.
    """

    def __init__(
        self,
        study: StudyConfig | None,
        settings: EffectiveSettings,
        results_dir: Path | None,
        wishes: Wishes | None = None,
    ) -> None:
        self._study, self._settings = study, settings
        self._results_dir, self._wishes = results_dir, wishes or Wishes()

    def run(self) -> StudyResult:
        """Run it.

        Raises:
            PreFlightError: This machine cannot run it.
            ExperimentError: A single experiment started and broke.
            StudyError: The study cannot be planned, resumed or gone on with; what is finished is
                kept.
            KeyboardInterrupt: The user interrupted; what is finished is kept.
        """
        if self._wishes.resume is not None:
            return self._resume(find_study(self._wishes.resume))
        if self._study is None:
            raise StudyError("there is no study to run", where="study")
        if (experiment := only_experiment(self._study)) is not None:
            single = SingleExperiment(
                experiment,
                self._settings,
                self._results_dir,
                self._wishes.listener,
                self._wishes.stop,
            )
            return single.run(self._study)
        return self._begin(self._study)

    def _begin(self, study: StudyConfig) -> StudyResult:
        now = datetime.now().astimezone()
        plan = prepare.new_plan(
            study, self._settings.config, allow_large=self._wishes.allow_large, now=now
        )
        with self._runners(plan) as runners:
            # The checks come first, so that a study that cannot run leaves no directory.
            nowhere = self._session(plan, StudyDirectory(Path()), runners)
            with _imported_meanwhile(AT_THE_END):
                nowhere.check(range(len(plan.experiments)))
            with self._directory(plan) as directory, owned(directory):
                session = self._session(plan, directory, runners)
                return self._run(session, plan, directory, session.look())

    def _resume(self, directory: StudyDirectory) -> StudyResult:
        with owned(directory):
            plan, notes = prepare.continuation(
                directory,
                self._study,
                self._settings.config,
                self._wishes.execution,
                allow_large=self._wishes.allow_large,
            )
            for note in notes:
                self._wishes.listener(Noted(note))
            with self._runners(plan) as runners:
                session = self._session(plan, directory, runners)
                standing = session.look()
                # What is finished needs no engine any more.
                with _imported_meanwhile(AT_THE_END):
                    session.check(sorted({state.slot.configuration for state in standing.left}))
                return self._run(session, plan, directory, standing)

    def _run(
        self,
        session: StudySession,
        plan: StudyPlan,
        directory: StudyDirectory,
        standing: Standing,
    ) -> StudyResult:
        write_plan(directory, plan)
        write_manifest(directory, plan, standing.progress(datetime.now().astimezone()))
        try:
            return session.run(standing)
        except KeyboardInterrupt as interrupt:
            message = (str(interrupt) or "interrupted") + self._advice(directory)
            raise KeyboardInterrupt(message) from None
        except (StudyError, ExperimentError) as error:
            raise StudyError(error.message + self._advice(directory), where=error.where) from error

    def _advice(self, directory: StudyDirectory) -> str:
        """Say how a study that is still there goes on."""
        if not self._keeps() or not directory.root.is_dir():
            return ""
        return f"\n  go on with: llem run --resume {shlex.quote(str(directory.root))}"

    def _session(
        self, plan: StudyPlan, directory: StudyDirectory, runners: RunnerPool
    ) -> StudySession:
        around = Surroundings(self._settings, self._wishes.listener, self._wishes.stop)
        return StudySession(plan, directory, around, runners, kept=self._keeps())

    def _keeps(self) -> bool:
        return self._results_dir is not None or self._wishes.resume is not None

    @staticmethod
    def _runners(plan: StudyPlan) -> RunnerPool:
        return RunnerPool(plan.execution.start_method)

    @contextlib.contextmanager
    def _directory(self, plan: StudyPlan) -> Iterator[StudyDirectory]:
        if self._results_dir is None:
            with tempfile.TemporaryDirectory(prefix="llem-study-") as path:
                yield StudyDirectory(Path(path))
            return
        name = study_directory_name(plan.name, plan.created_at)
        directory = StudyDirectory(claim_directory(self._results_dir, name))
        try:
            yield directory
        finally:
            _remove_unless_begun(directory)


@contextlib.contextmanager
def _imported_meanwhile(modules: Sequence[str]) -> Iterator[None]:
    """Import what the end of a study needs while this process only waits, and not while measuring.

    An engine that is loading leaves a core free for it.
    """

    def read() -> None:
        for module in modules:
            with contextlib.suppress(ImportError):  # whoever needs it says so
                importlib.import_module(module)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield
    finally:
        reading.join()


def _remove_unless_begun(directory: StudyDirectory) -> None:
    """Leave no directory of a study that was broken off before it had a plan."""
    if directory.manifest.exists() or directory.experiments.exists():
        return
    with contextlib.suppress(OSError):
        for path in (directory.lock, directory.plan):
            path.unlink(missing_ok=True)
        directory.root.rmdir()
