"""A study of one experiment that runs once: in this process, and without a study's directory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.backends.shared.answering import no_answer_later_than
from llenergymeasure.domain.results import FailedExperiment, StudyResult
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.orchestration import preflight, worker
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.filenames import claim_directory, experiment_name
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.events import Callbacks, Placed
from llenergymeasure.study.limits import TimeLimits
from llenergymeasure.study.manifest import StudyPlan
from llenergymeasure.study.runners.pool import RunnerPool
from llenergymeasure.study.supervise import supervise

Run = Callable[[ExperimentDirectory], FailedExperiment | None]


def run_single(
    plan: StudyPlan, settings: EffectiveSettings, results_dir: Path | None, calls: Callbacks
) -> StudyResult:
    """Run one experiment: here, or through the runner that the user's configuration names.

    Args:
        plan: A plan of one experiment.
        settings: How to run it on this machine.
        results_dir: Where its directory goes; ``None`` keeps nothing.
        calls: What is called meanwhile.

    Raises:
        PreFlightError: This machine cannot run it.
        ExperimentError: It started and broke.
    """
    order, kept = plan.order(0, settings), results_dir is not None
    with (
        _checked(order, settings, calls) as run,
        _directory(order.config, results_dir) as directory,
    ):
        if kept:
            calls.listener(Placed(str(directory.root)))
        write_order(directory, order)
        result = worker.collect(directory, run(directory), kept=kept)
    return StudyResult(
        name=plan.name,
        study_design_hash=plan.study_design_hash,
        generated=1,
        ran=1,
        result_files=(str(directory.result) if kept else None,),
        experiments=(result,),
    )


@contextlib.contextmanager
def _checked(order: WorkOrder, settings: EffectiveSettings, calls: Callbacks) -> Iterator[Run]:
    """Check that an experiment can run, and give the way to run it."""
    limits = TimeLimits(settings, None)
    if order.runner == "local":
        preflight.check(order)

        def run_here(directory: ExperimentDirectory) -> FailedExperiment | None:
            with no_answer_later_than(lambda: limits.of(order.config)):
                return worker.run(directory, calls.listener)

        yield run_here
        return
    within_s = limits.of(order.config)
    with RunnerPool("auto") as runners:
        runners.check([order])

        def run(directory: ExperimentDirectory) -> FailedExperiment | None:
            job = runners.of(order).start(directory)
            outcome, _ = supervise(job, directory, order, calls, within_s=within_s)
            return outcome if isinstance(outcome, FailedExperiment) else None

        yield run


@contextlib.contextmanager
def _directory(
    experiment: ExperimentConfig, results_dir: Path | None
) -> Iterator[ExperimentDirectory]:
    if results_dir is None:
        with tempfile.TemporaryDirectory(prefix="llem-") as path:
            yield ExperimentDirectory(Path(path))
        return
    name = experiment_name(experiment.model, experiment.backend, datetime.now().astimezone())
    yield ExperimentDirectory(claim_directory(results_dir, name))


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
