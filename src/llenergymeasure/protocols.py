"""Every seam of the package on one page.

- :class:`ModelLoader` and :data:`InferenceEngine`, which is a :class:`BatchEngine` or a
  :class:`RequestEngine`: an inference backend.
- :class:`EnergyBackend`: an energy source.
- :class:`MetricsCollector`: raw samples to the figures of a result.
- :class:`ResultsRepository`: where an experiment's files go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from llenergymeasure.core.backends.protocol import (
    BatchEngine,
    InferenceEngine,
    ModelLoader,
    RequestEngine,
)
from llenergymeasure.core.energy.protocol import EnergyBackend
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.domain.samples import RawProcessResult, WindowReadings

__all__ = [
    "BatchEngine",
    "EnergyBackend",
    "InferenceEngine",
    "MetricsCollector",
    "ModelLoader",
    "RequestEngine",
    "ResultsRepository",
]


class MetricsCollector(Protocol):
    """Turns the raw samples of every process into one result."""

    def __call__(self, processes: Sequence[RawProcessResult]) -> ExperimentResult:
        """Pool the samples, then compute every figure from the pool."""
        ...


class ResultsRepository(Protocol):
    """Keeps the files of one experiment."""

    def save_samples(
        self, processes: Sequence[RawProcessResult], windows: Sequence[WindowReadings]
    ) -> Mapping[str, str]:
        """Write the raw samples: the requests of every process, the readings of every window.

        Returns:
            The SHA-256 of each file that was written, by its name.
        """
        ...

    def save_result(self, result: ExperimentResult) -> None:
        """Write the result; once this returns, the experiment is complete."""
        ...

    def save_failure(self, failure: FailedExperiment) -> None:
        """Write that the experiment failed, and how."""
        ...
