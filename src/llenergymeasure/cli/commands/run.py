"""``llem run``: one experiment, from a YAML file, from flags, or both."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llenergymeasure.cli.display import make_display
from llenergymeasure.config.introspection import describe
from llenergymeasure.config.loader import load_experiment_config
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.registry import backend_entry, load_object
from llenergymeasure.config.user_config import EffectiveSettings, load_settings, runner_problem
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.orchestration.order import WorkOrder

if TYPE_CHECKING:
    from llenergymeasure.domain.results import StudyResult

# What does the work is imported once there is work to do, so that help stays quick.
_RUN = "llenergymeasure._api:run"
_SHOW_PLAN = "llenergymeasure.cli.plan:show"

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _field(name: str, *flags: str) -> Any:
    return typer.Option(*flags, help=describe(ExperimentConfig, name), show_default=False)


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter a flag
    config: Annotated[
        Path | None, typer.Argument(help="YAML file of an experiment.", show_default=False)
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
    """Measure one experiment, from a YAML file or from flags; a flag overrides the file."""
    overrides = {
        "model": model,
        "backend": backend,
        "dataset": dataset,
        "n": n,
        "precision": precision,
        "max_new_tokens": max_new_tokens,
        "energy_backend": energy_backend,
    }
    if runner is not None and (reason := runner_problem(runner)):
        raise ConfigError(f"--runner: {reason}", where="--runner")
    experiment = _experiment(config, overrides, batch_size)
    verbosity = "quiet" if quiet else "verbose" if verbose else None
    flags = {
        "output.results_dir": output,
        "ui.verbosity": verbosity,
        f"runners.{experiment.backend}": runner,
    }
    settings = load_settings(flags=flags)
    if dry_run:
        load_object(_SHOW_PLAN)(WorkOrder.of(experiment, settings), settings, as_json=as_json)
    else:
        _measure(experiment, settings, as_json=as_json)


def _experiment(
    path: Path | None, overrides: dict[str, Any], batch_size: int | None
) -> ExperimentConfig:
    given = {name: value for name, value in overrides.items() if value is not None}
    if path is None and "model" not in given:
        raise ConfigError("give a YAML file, or at least --model", where="command line")
    if batch_size is not None:
        # The file, or the default, decides the backend when no flag does.
        named = given.get("backend") or load_experiment_config(path, given).backend
        given[f"{named}.{backend_entry(named).batch_field}"] = batch_size
    return load_experiment_config(path, given)


def _measure(experiment: ExperimentConfig, settings: EffectiveSettings, *, as_json: bool) -> None:
    results_dir = settings.config.results_path()
    with contextlib.closing(make_display(settings.config.ui.verbosity)) as display:
        study = StudyConfig(experiments=(experiment,))
        outcome = load_object(_RUN)(study, settings, results_dir, display)
    _print(outcome, as_json=as_json, quiet=settings.config.ui.verbosity == "quiet")


def _print(outcome: StudyResult, *, as_json: bool, quiet: bool) -> None:
    (result,), (path,) = outcome.experiments, outcome.result_files
    typer.echo(result.to_json() if as_json else result.summary(), nl=not as_json)
    if path is None or (as_json and quiet):
        return
    blank = "" if as_json else "\n"
    typer.echo(f"{blank}results in {Path(path).parent}", err=as_json)
