"""Results as one page for a browser: a single file that fetches nothing.

``data`` holds what pictures are drawn from, ``specs`` says how, ``html`` lays out words and puts
the file together. The same result gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from llenergymeasure.domain.experiment_result import ExperimentResult
from llenergymeasure.domain.study_result import StudyResult
from llenergymeasure.report import experiment, study
from llenergymeasure.report.page import data, html
from llenergymeasure.results.files import write


def page(result: StudyResult | ExperimentResult, path: str | Path | None = None) -> str:
    """Lay a result out as one HTML page.

    Args:
        result: Of a study or of one experiment; loaded from its files or just measured.
        path: Where to write it as well, if anywhere.

    Returns:
        The text of the file: data, pictures and libraries are in it, and its content security
        policy allows no request.
    """
    if isinstance(result, ExperimentResult):
        title = f"{result.resolved.model.name}: one experiment"
        text = html.document(title, experiment.sections(result), None)
    else:
        title = f"Study {result.name or 'without a name'}"
        text = html.document(title, study.sections(result), data.of_study(result))
    if path is not None:
        write(Path(path), text.encode())
    return text
