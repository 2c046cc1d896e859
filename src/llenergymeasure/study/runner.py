"""Runs the experiments of a study: pre-flight, a directory each, the worker, its result."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import StudyResult
from llenergymeasure.exceptions import ExperimentError, StudyError
from llenergymeasure.orchestration import preflight, worker
from llenergymeasure.orchestration.events import Listener
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.filenames import claim_directory, experiment_name
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import write_json_atomically
from llenergymeasure.study.grid import design_hash, expand
from llenergymeasure.study.plan import Expansion


class StudyRunner:
    """Runs a study of one experiment inline, in this process.

    Args:
        study: What to run.
        settings: How to run it on this machine.
        results_dir: Where the experiment's directory goes; ``None`` keeps nothing.
        listener: Told of every event.
    """

    def __init__(
        self,
        study: StudyConfig,
        settings: EffectiveSettings,
        results_dir: Path | None,
        listener: Listener | None = None,
    ) -> None:
        self._study, self._settings = study, settings
        self._results_dir, self._listener = results_dir, listener

    def run(self) -> StudyResult:
        """Run it.

        Raises:
            PreFlightError: This machine cannot run it.
            ExperimentError: It started and broke.
            StudyError: It holds more than one experiment.
        """
        expansion = expand(self._study)
        experiment = _only_one(expansion)
        order = WorkOrder.of(experiment, self._settings)
        preflight.check(order)
        with self._directory(experiment) as directory:
            _write_order(directory, order)
            failure = worker.run(directory, self._listener)
            result = worker.collect(directory, failure, kept=self._results_dir is not None)
        kept = None if self._results_dir is None else str(directory.result)
        return StudyResult(
            name=self._study.name,
            study_design_hash=design_hash(
                expansion.fingerprints, cold_start=self._study.cold_start
            ),
            generated=1,
            ran=1,
            result_files=(kept,),
            experiments=(result,),
        )

    @contextlib.contextmanager
    def _directory(self, experiment: ExperimentConfig) -> Iterator[ExperimentDirectory]:
        if self._results_dir is None:
            with tempfile.TemporaryDirectory(prefix="llem-") as path:
                yield ExperimentDirectory(Path(path))
            return
        name = experiment_name(experiment.model, experiment.backend, datetime.now().astimezone())
        yield ExperimentDirectory(claim_directory(self._results_dir, name))


def _only_one(expansion: Expansion) -> ExperimentConfig:
    count = len(expansion.experiments)
    if count != 1:
        raise StudyError(
            f"this study has {count} experiments; this version runs one at a time: "
            "call run_experiment for each",
            where="experiments",
        )
    return expansion.experiments[0]


def _write_order(directory: ExperimentDirectory, order: WorkOrder) -> None:
    try:
        write_json_atomically(directory.config, order.model_dump_json(indent=2) + "\n")
    except ExperimentError:
        with contextlib.suppress(OSError):
            directory.root.rmdir()  # nothing has started, so nothing is left
        raise
