"""``llem run``: an experiment or a study, from a YAML file, from flags, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llenergymeasure.config.introspection import describe
from llenergymeasure.config.loader import is_study, load_study_config
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.registry import load_object
from llenergymeasure.config.user_config import EffectiveSettings, load_settings, runner_problem
from llenergymeasure.exceptions import ConfigError

if TYPE_CHECKING:
    from llenergymeasure.domain.results import StudyResult

# What does the work is imported once there is work to do, so that help stays quick.
_RUN = "llenergymeasure.cli.execute:run"
_SHOW_PLAN = "llenergymeasure.cli.execute:show_plan"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _field(name: str, *flags: str) -> Any:
    return typer.Option(*flags, help=describe(ExperimentConfig, name), show_default=False)


def _execution(name: str, *flags: str) -> Any:
    return typer.Option(*flags, help=describe(ExecutionConfig, name), show_default=False)


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file of an experiment or a study.", show_default=False),
    ] = None,
    model: Annotated[str | None, _field("model", "--model", "-m")] = None,
    backend: Annotated[str | None, _field("backend", "--backend", "-b")] = None,
    dataset: Annotated[str | None, _field("dataset", "--dataset", "-d")] = None,
    n: Annotated[int | None, _field("n", "-n")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Requests served at once, in the backend's own section.", show_default=False
        ),
    ] = None,
    precision: Annotated[str | None, _field("precision", "--precision")] = None,
    max_new_tokens: Annotated[int | None, _field("max_new_tokens", "--max-new-tokens")] = None,
    energy_backend: Annotated[str | None, _field("energy_backend", "--energy-backend")] = None,
    cycles: Annotated[int | None, _execution("n_cycles", "--cycles")] = None,
    order: Annotated[str | None, _execution("cycle_order", "--order")] = None,
    no_gaps: Annotated[
        bool, typer.Option("--no-gaps", help="No pauses between experiments and cycles.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the study in this directory: what is missing, and what failed.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm a grid of more than 200,000 combinations.")
    ] = False,
    runner: Annotated[
        str | None, typer.Option(help="Where the backend executes.", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Directory for results.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; load nothing, ask no network.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result, or the error, as JSON.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for every step.")
    ] = False,
) -> None:
    """Measure an experiment or a study, from a YAML file or from flags; a flag overrides it."""
    overrides = {
        "model": model,
        "backend": backend,
        "dataset": dataset,
        "n": n,
        "batch_size": batch_size,
        "precision": precision,
        "max_new_tokens": max_new_tokens,
        "energy_backend": energy_backend,
        "execution.n_cycles": cycles,
        "execution.cycle_order": order,
        "execution.config_gap_seconds": 0.0 if no_gaps else None,
        "execution.cycle_gap_seconds": 0.0 if no_gaps else None,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    if runner is not None and (reason := runner_problem(runner)):
        raise ConfigError(f"--runner: {reason}", where="--runner")
    study = _study(config, given, resume)
    settings = _settings(study, runner, output, _verbosity(quiet=quiet, verbose=verbose))
    if dry_run:
        load_object(_SHOW_PLAN)(study, settings, as_json=as_json, allow_large=yes)
        return
    execution = {name.partition(".")[2]: value for name, value in given.items() if "." in name}
    outcome = load_object(_RUN)(
        study,
        settings,
        stop=_stop(context),
        resume=resume,
        execution=execution if study is None else {},
        allow_large=yes,
    )
    whole = resume is not None or (config is not None and is_study(config)) or "execution" in study
    _print(outcome, as_json=as_json, quiet=quiet, whole=whole)
