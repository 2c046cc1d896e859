"""Load what was measured: an experiment, or a study as far as it has come. Nothing is written."""

from __future__ import annotations

import shlex
from pathlib import Path

from llenergymeasure.domain.results import ExperimentResult, StudyResult
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.recognise import study_of, what_it_is
from llenergymeasure.study.collect import SlotOutcome, study_result
from llenergymeasure.study.manifest import read_plan
from llenergymeasure.study.resume import ResultReader, scan


def load_results(path: Path) -> ExperimentResult | StudyResult:
    """Load the results that lie somewhere.

    Args:
        path: The directory of an experiment or of a study, or one of its files of JSON.

    Raises:
        StudyError: There are no results, or what is there is not understood.
        LLEMError: The result of an experiment is damaged or contradicts itself.
    """
    folder = path if path.is_dir() else path.parent
    if ExperimentDirectory(folder).result.exists():
        return ExperimentResult.from_json(folder)
    return load_study(path)


def load_study(path: Path) -> StudyResult:
    """Make the figures of a study anew from the results in its directory.

    Every result is checked as a resume checks it; one that is damaged is told as a failure. Of a
    study that still runs, or that broke, the figures are those of what is finished.

    Args:
        path: Its directory, or its summary, plan or manifest.

    Raises:
        StudyError: That is no study, or its plan is lost or not understood.
    """
    directory = study_of(path if path.is_dir() else path.parent)
    if directory is None:
        raise StudyError(_no_results(path), where=str(path))
    plan = read_plan(directory).plan
    reader = ResultReader(plan)
    return study_result(
        plan, (SlotOutcome.of(one, reader.read(one)) for one in scan(plan, directory))
    )


def _no_results(path: Path) -> str:
    if not path.exists():
        return f"there is no {path}; give the directory of an experiment or of a study"
    if (told := what_it_is(path)) is not None:
        return f"{path} holds no results: it is {told}"
    return (
        f"{path} holds no results of an experiment or of a study; those lie where llem run said "
        f"'results in ...' (find {shlex.quote(str(path))} -name study_manifest.json lists studies)"
    )
