"""Where the files of one experiment go: its directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from llenergymeasure.config.models import STORED
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.domain.samples import RawProcessResult, WindowReadings
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results import persistence, tables
from llenergymeasure.results.layout import ExperimentDirectory


def read_failure(path: Path) -> FailedExperiment:
    """Read an ``error.json``.

    The experiment in it was valid when it ran; it is not held against the rules of this version.

    Raises:
        ExperimentError: It cannot be read, or is not of a failed experiment.
    """
    try:
        return FailedExperiment.model_validate_json(path.read_bytes(), context=STORED)
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError:
        reason = "it is damaged, or not of a failed experiment"
    raise ExperimentError(f"{path} cannot be read: {reason}", where=str(path))


@dataclass(frozen=True, slots=True)
class DirectoryRepository:
    """Keeps an experiment in a directory; every method raises ``ExperimentError`` when it cannot.

    Attributes:
        directory: The paths of the directory.
    """

    directory: ExperimentDirectory

    def save_samples(
        self, processes: Sequence[RawProcessResult], windows: Sequence[WindowReadings]
    ) -> None:
        """Write ``requests.parquet`` and ``timeseries.parquet``."""
        tables.write_requests(processes, self.directory.requests)
        tables.write_timeseries(windows, self.directory.timeseries)

    def save_result(self, result: ExperimentResult) -> None:
        """Write ``result.json``; once this returns, the experiment is complete."""
        persistence.to_json(result, self.directory.root)

    def save_failure(self, failure: FailedExperiment) -> None:
        """Write ``error.json``."""
        text = failure.model_dump_json(indent=2) + "\n"
        persistence.write_json_atomically(self.directory.error, text)
