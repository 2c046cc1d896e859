"""Where everything of an experiment and of a study lies; no other module spells these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass
class ExperimentDirectory:
    """The paths of one experiment's directory; none needs to exist.

    Attributes:
        root: The directory itself.
        config: What was asked, resolved.
        result: The result; once it is there, the experiment is complete.
        error: Why it failed; there instead of the result.
        timeseries: Every reading of energy, power, temperature and clocks.
        requests: One row a request.
        log: What the engine printed.
        events: Phases and progress while it runs, one JSON object a line.
        worker_lock: Held by the worker; there only while it runs.
    """

    root: Path

    def __post_init__(self) -> None:
        self.config = self.root / "config.json"
        self.result = self.root / "result.json"
        self.error = self.root / "error.json"
        self.timeseries = self.root / "timeseries.parquet"
        self.requests = self.root / "requests.parquet"
        self.log = self.root / "log.txt"
        self.events = self.root / "events.jsonl"
        self.worker_lock = self.root / ".worker.lock"

    def process(self, index: int) -> Path:
        """The raw samples that one of several processes left."""
        return self.root / f"process_{index}.json"

    def process_log(self, index: int) -> Path:
        """What the engine of one of several processes printed."""
        return self.root / f"process_{index}.log"


@dataclass
class StudyDirectory:
    """The paths of one study's directory; none needs to exist.

    Attributes:
        root: The directory itself.
        manifest: The plan, and a view of progress that may lag.
        plan: The plan alone, written once, should the manifest be damaged.
        progress: One JSON object a line, for each experiment that starts or ends.
        summary: The result of the study.
        table: One flat row an experiment.
        lock: Held by the process that runs the study.
        experiments: The directories of the experiments.
    """

    root: Path

    def __post_init__(self) -> None:
        self.manifest = self.root / "study_manifest.json"
        self.plan = self.root / "study_plan.json"
        self.progress = self.root / "study_progress.jsonl"
        self.summary = self.root / "study_summary.json"
        self.table = self.root / "summary.parquet"
        self.lock = self.root / ".study.lock"
        self.experiments = self.root / "experiments"

    @classmethod
    def of(cls, experiment: ExperimentDirectory) -> Self:
        """Give the directory of the study that an experiment lies in."""
        return cls(experiment.root.parent.parent)

    def experiment(self, name: str) -> ExperimentDirectory:
        """Give the directory of an experiment by its name."""
        return ExperimentDirectory(self.experiments / name)
