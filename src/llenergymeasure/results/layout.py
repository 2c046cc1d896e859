"""Where everything of an experiment lies; no other module spells these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llenergymeasure.domain.files import ERROR_NAME, RESULT_NAME


@dataclass(frozen=True, slots=True)
class ExperimentDirectory:
    """The paths of one experiment's directory; none needs to exist.

    Attributes:
        root: The directory itself.
    """

    root: Path

    @property
    def config(self) -> Path:
        """What was asked, resolved."""
        return self.root / "config.json"

    @property
    def result(self) -> Path:
        """The result; once it is there, the experiment is complete."""
        return self.root / RESULT_NAME

    @property
    def error(self) -> Path:
        """Why it failed; there instead of the result."""
        return self.root / ERROR_NAME

    @property
    def timeseries(self) -> Path:
        """Every reading of energy, power, temperature and clocks."""
        return self.root / "timeseries.parquet"

    @property
    def requests(self) -> Path:
        """One row a request."""
        return self.root / "requests.parquet"

    @property
    def log(self) -> Path:
        """What the engine printed."""
        return self.root / "log.txt"

    def process(self, index: int) -> Path:
        """The raw samples that one of several processes left."""
        return self.root / f"process_{index}.json"

    def process_log(self, index: int) -> Path:
        """What the engine of one of several processes printed."""
        return self.root / f"process_{index}.log"

    @property
    def events(self) -> Path:
        """Phases and progress while it runs, one JSON object a line."""
        return self.root / "events.jsonl"
