"""A study of one experiment that runs once: in this process, and without a study's directory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import FailedExperiment, StudyResult
from llenergymeasure.exceptions import ExperimentError, PreFlightError
from llenergymeasure.orchestration import preflight, worker
from llenergymeasure.orchestration.events import Listener
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.filenames import claim_directory, experiment_name
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import write_json_atomically
from llenergymeasure.study.grid import design_hash, expand
from llenergymeasure.study.limits import TimeLimits
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.supervise import Terms, supervise


def only_experiment(study: StudyConfig) -> ExperimentConfig | None:
    """Give the experiment of a study that is one experiment, run once; ``None`` of any other.

    A time limit, or a way to start a process, asks for a process; that is any other study.
    """
    execution = study.execution
    in_process = execution.timeout_s is None and execution.start_method is None
    if study.sweep or execution.n_cycles > 1 or not in_process or len(study.experiments) != 1:
        return None
    if not isinstance(study.experiments[0], ExperimentConfig):
        return None
    (experiment,) = expand(study).experiments
    return experiment


class SingleExperiment:
    """Runs one experiment: here, or through the runner that the user's configuration names.

    Args:
        experiment: What to measure.
        settings: How to run it on this machine.
        results_dir: Where its directory goes; ``None`` keeps nothing.
        listener: Told of every event.
        stop: Asked after an interrupt whether to kill what is running at once.
    """

    def __init__(
        self,
        experiment: ExperimentConfig,
        settings: EffectiveSettings,
        results_dir: Path | None,
        listener: Listener,
        stop: Callable[[], bool],
    ) -> None:
        self._experiment, self._settings = experiment, settings
        self._results_dir, self._listener, self._stop = results_dir, listener, stop

    def run(self, study: StudyConfig) -> StudyResult:
        """Run it.

        Raises:
            PreFlightError: This machine cannot run it.
            ExperimentError: It started and broke.
        """
        order = WorkOrder.of(self._experiment, self._settings).model_copy(
            update={"cold_start": study.cold_start}
        )
        with self._running(order) as run, self._directory() as directory:
            write_order(directory, order)
            kept = self._results_dir is not None
            result = worker.collect(directory, run(directory), kept=kept)
        return StudyResult(
            name=study.name,
            study_design_hash=design_hash(
                [self._experiment.fingerprint()], cold_start=study.cold_start
            ),
            generated=1,
            ran=1,
            result_files=(str(directory.result) if kept else None,),
            experiments=(result,),
        )

    @contextlib.contextmanager
    def _running(
        self, order: WorkOrder
    ) -> Iterator[Callable[[ExperimentDirectory], FailedExperiment | None]]:
        """Check that it can run, and give the way to run it."""
        if order.runner == "local":
            preflight.check(order)
            yield lambda directory: worker.run(directory, self._listener)
            return
        limit_s = TimeLimits(self._settings, None).of(order.config)
        terms = Terms(limit_s, self._listener, self._stop)
        with RunnerPool("auto") as runners:
            if problems := runners.problems([order]):
                raise PreFlightError(problems)

            def run(directory: ExperimentDirectory) -> FailedExperiment | None:
                job = runners.of(order).start(directory)
                outcome = supervise(job, directory, order, terms)
                return outcome if isinstance(outcome, FailedExperiment) else None

            yield run

    @contextlib.contextmanager
    def _directory(self) -> Iterator[ExperimentDirectory]:
        if self._results_dir is None:
            with tempfile.TemporaryDirectory(prefix="llem-") as path:
                yield ExperimentDirectory(Path(path))
            return
        experiment, now = self._experiment, datetime.now().astimezone()
        name = experiment_name(experiment.model, experiment.backend, now)
        yield ExperimentDirectory(claim_directory(self._results_dir, name))


def write_order(directory: ExperimentDirectory, order: WorkOrder) -> None:
    """Write ``config.json``; leave no empty directory where that fails.

    Raises:
        ExperimentError: It cannot be written.
    """
    try:
        write_json_atomically(directory.config, order.model_dump_json(indent=2) + "\n")
    except ExperimentError:
        with contextlib.suppress(OSError):
            directory.root.rmdir()  # nothing has started, so nothing is left
        raise
