"""What ``llem run`` does once its flags are understood: run, or show the plan."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from llenergymeasure import _api
from llenergymeasure.cli import plan, study_plan
from llenergymeasure.cli.display import Display, make_display
from llenergymeasure.cli.study_display import Quiet, StudyDisplay, make_study_display
from llenergymeasure.config.models import StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain.results import StudyResult
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.study import grid
from llenergymeasure.study.events import Begun, StudyEvent
from llenergymeasure.study.inline import only_experiment
from llenergymeasure.study.runner import Wishes

if TYPE_CHECKING:
    from llenergymeasure.cli.commands.run import Asked


class Ran(NamedTuple):
    """What came of a run.

    Attributes:
        result: The result; of a single experiment a study without a protocol.
        directory: Where it lies; ``None`` where nothing is kept.
    """

    result: StudyResult
    directory: str | None

    def summary(self) -> str:
        """Render it for a terminal."""
        single = self.result.protocol is None
        return self.result.experiments[0].summary() if single else self.result.summary()

    def to_json(self) -> str:
        """Give the JSON of an experiment, or of a study without the experiments themselves."""
        if self.result.protocol is None:
            return self.result.experiments[0].to_json()
        return self.result.model_dump_json(indent=2, exclude={"experiments"}) + "\n"


def run(
    study: StudyConfig | None, settings: EffectiveSettings, asked: Asked, *, may_ask: bool
) -> Ran:
    """Run an experiment or a study and show its progress.

    Args:
        study: What to run; ``None`` goes on with the design of the study that is resumed.
        settings: The user's settings.
        asked: What flags say about running.
        may_ask: Whether the user may be asked before something large.
    """
    if may_ask and study is not None and not asked.allow_large and _at_a_terminal():
        asked = asked._replace(allow_large=confirmed(study, _ask))
    with contextlib.closing(_display(study, settings, asked)) as display:
        places: list[str | None] = []

        def listen(event: StudyEvent) -> None:
            if isinstance(event, Begun):
                places.append(event.directory)
            display(event)  # type: ignore[arg-type] # a single experiment has events alone

        wishes = Wishes(listen, *asked)
        result = _api.run(study, settings, settings.config.results_path(), wishes)
    return Ran(result, places[0] if places else _directory(result))


def confirmed(study: StudyConfig, ask: Callable[[str], bool]) -> bool:
    """Ask before a grid that is larger than usual; ``False`` without asking of any other.

    Args:
        study: The design.
        ask: Puts a question that is answered by yes or no.
    """
    count = grid.combinations(study)
    if count <= grid.MAX_COMBINATIONS:
        return False
    experiments = count * study.execution.n_cycles
    return ask(f"llem: the design has {count:,} combinations; run {experiments:,} experiments?")


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(question: str) -> bool:
    return typer.confirm(question, err=True)


def _display(
    study: StudyConfig | None, settings: EffectiveSettings, asked: Asked
) -> Display | StudyDisplay | Quiet:
    verbosity = settings.config.ui.verbosity
    single = only_experiment(study) if study is not None and asked.resume is None else None
    if single is None:
        return make_study_display(verbosity)
    return make_display(verbosity, single.window.min_duration_seconds)


def show_plan(
    study: StudyConfig, settings: EffectiveSettings, *, as_json: bool, allow_large: bool
) -> None:
    """Print what would be run."""
    experiment = only_experiment(study)
    if experiment is None:
        study_plan.show(study, settings, as_json=as_json, allow_large=allow_large)
    else:
        plan.show(WorkOrder.of(experiment, settings), settings, as_json=as_json)


def _directory(result: StudyResult) -> str | None:
    (path,) = result.result_files
    return None if path is None else str(Path(path).parent)
