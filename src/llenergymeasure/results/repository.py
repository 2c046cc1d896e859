"""Where the files of one experiment go: its directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.domain.samples import RawProcessResult, WindowReadings
from llenergymeasure.results import persistence, tables
from llenergymeasure.results.layout import ExperimentDirectory


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
