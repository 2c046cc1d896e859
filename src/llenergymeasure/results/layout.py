"""Where everything of an experiment and of a study lies; no other module spells these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
        return self.root / "result.json"

    @property
    def error(self) -> Path:
        """Why it failed; there instead of the result."""
        return self.root / "error.json"

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

    @property
    def worker_lock(self) -> Path:
        """Held by the worker; there only while it runs."""
        return self.root / ".worker.lock"


@dataclass(frozen=True, slots=True)
class StudyDirectory:
    """The paths of one study's directory; none needs to exist.

    Attributes:
        root: The directory itself.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """The plan, and a view of progress that may lag."""
        return self.root / "study_manifest.json"

    @property
    def plan(self) -> Path:
        """The plan alone, written once, should the manifest be damaged."""
        return self.root / "study_plan.json"

    @property
    def progress(self) -> Path:
        """One JSON object a line, for each experiment that starts or ends."""
        return self.root / "study_progress.jsonl"

    @property
    def summary(self) -> Path:
        """The result of the study."""
        return self.root / "study_summary.json"

    @property
    def table(self) -> Path:
        """One flat row an experiment."""
        return self.root / "summary.parquet"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the study."""
        return self.root / ".study.lock"

    @property
    def experiments(self) -> Path:
        """The directories of the experiments."""
        return self.root / "experiments"

    def experiment(self, name: str) -> ExperimentDirectory:
        """Give the directory of an experiment by its name."""
        return ExperimentDirectory(self.experiments / name)
