"""What is written of a study when it ends, however it ends."""

from __future__ import annotations

from datetime import UTC, datetime

from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, StudyResult
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study import resume
from llenergymeasure.study.collect import Outcome, study_result, write_summary
from llenergymeasure.study.manifest import ProgressView, StudyPlan, write_manifest
from llenergymeasure.study.prepare import design
from llenergymeasure.study.resume import Ended, Reader, SlotState


class Closing:
    """Reads the directories of a study's experiments and writes what they come to.

    Args:
        plan: The plan of the study.
        directory: Where it lies.
        reader: Reads what experiments left.
        kept: Whether the directory stays.

    Attributes:
        complete: Results by slot that were read before the study went on.
        failed: Failures by slot of this run; the disk may have refused to keep one.
    """

    def __init__(
        self, plan: StudyPlan, directory: StudyDirectory, reader: Reader, *, kept: bool
    ) -> None:
        self._plan, self._directory, self._reader, self._kept = plan, directory, reader, kept
        self.complete: dict[int, ExperimentResult] = {}
        self.failed: dict[int, FailedExperiment] = {}

    def write_progress(self) -> ProgressView:
        """Bring the view in the manifest up to date, and give it.

        Raises:
            StudyError: The study's directory cannot be read.
            ExperimentError: The manifest cannot be written.
        """
        states = resume.scan(self._plan, self._directory)
        progress = resume.count(states, datetime.now(UTC))
        write_manifest(self._directory, self._plan, progress)
        return progress

    def finish(self) -> StudyResult:
        """Read every experiment, and write the summary.

        Raises:
            StudyError: The study's directory cannot be read.
            ExperimentError: The summary cannot be written.
        """
        states = resume.scan(self._plan, self._directory)
        outcomes = (self._outcome(state) for state in states)
        result = study_result(design(self._plan), outcomes)
        write_summary(result, self._directory.root)
        return result

    def _outcome(self, state: SlotState) -> Outcome:
        number = state.slot.number
        if state.status == "complete" and number in self.complete:
            found: Ended | None = self.complete[number]
        else:  # a failure that the disk would not take is known here alone
            found = self._reader.read(state) or self.failed.get(number)
        directory = state.directory if self._kept else None
        return Outcome(state.slot, found, directory)
