"""``llem run``: an experiment or a study, from a YAML file, from flags, or both."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
import yaml

from llenergymeasure.cli.failure import FAILED
from llenergymeasure.config.introspection import describe
from llenergymeasure.config.loader import EXECUTION, flag_name, load_execution, load_study_config
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.user_config import EffectiveSettings, load_settings, named_runners
from llenergymeasure.exceptions import FlagError

if TYPE_CHECKING:
    from llenergymeasure.cli.execute import Ran

# What does the work is imported once there is work to do, so that help stays quick.
_RUN = "llenergymeasure.cli.execute:run"
_SHOW_PLAN = "llenergymeasure.cli.execute:show_plan"


class Asked(NamedTuple):
    """What flags say about running, beside the study and the settings.

    Attributes:
        stop: Asked after an interrupt whether to kill what is running at once.
        resume: A study to go on with.
        execution: Fields of ``execution`` that flags set.
        allow_large: Whether a grid may be larger than is usual.
    """

    stop: Callable[[], bool]
    resume: Path | None
    execution: dict[str, Any]
    allow_large: bool


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
        list[str] | None,
        typer.Option(
            help="Where backends execute: local, python:<interpreter> or docker:<image>; for one "
            "of several <backend>=<runner>. May be repeated.",
            metavar="<str>",
            show_default=False,
        ),
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
        "dataset": _dataset(dataset),
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
    if output is not None and not output.strip():
        raise FlagError("--output names no directory", where="--output")
    _refuse_beside_resume(resume, {"--output": output is not None, "--dry-run": dry_run})
    study = _study(config, given, resume)
    settings = _settings(study, runner or [], output, _verbosity(quiet=quiet, verbose=verbose))
    if dry_run:
        _show_plan(study, settings, as_json=as_json, allow_large=yes)
        return
    asked = Asked(_stop(context), resume, _execution_flags(given), allow_large=yes)
    may_ask = settings.config.ui.prompt and not (as_json or quiet)
    ran = load_object(_RUN)(study, settings, asked, may_ask=may_ask)
    _print(ran, as_json=as_json, quiet=quiet)
    if left := len(ran.result.failed) + ran.result.missing:
        _tell_way_on(left, ran.directory)
        raise typer.Exit(FAILED)


def _dataset(given: str | None) -> object:
    """Read a dataset that is a YAML mapping; all else is a name or a path."""
    if given is None or not given.lstrip().startswith("{"):
        return given
    try:
        return yaml.safe_load(given)
    except (yaml.YAMLError, ValueError) as error:  # the latter of a day that is none
        problem = getattr(error, "problem", None) or "cannot be read"
        raise FlagError(
            f"--dataset is no YAML mapping: {problem}; write "
            "'{synthetic: {input_len: 256, output_len: 128}}' in quotes",
            where="--dataset",
        ) from None


_NOT_BESIDE_RESUME = {
    "--output": "a study goes on in the directory it lies in",
    "--dry-run": "it shows a study that has not begun",
}


def _refuse_beside_resume(resume: Path | None, given: dict[str, bool]) -> None:
    for flag, reason in _NOT_BESIDE_RESUME.items():
        if resume is not None and given[flag]:
            raise FlagError(f"{flag} and --resume: {reason}; leave one out", where=flag)


def _study(path: Path | None, given: dict[str, Any], resume: Path | None) -> StudyConfig | None:
    """Read what is asked for; ``None`` where a study goes on with the design it has."""
    if path is None and "model" not in given:
        if resume is None:
            raise FlagError("give a YAML file, or at least --model", where="command line")
        if strange := [name for name in given if not name.startswith(EXECUTION)]:
            raise FlagError(
                f"{flag_name(strange[0])} would change the design of the study that goes on; "
                "leave it out, or give the YAML file of the study as well",
                where=flag_name(strange[0]),
            )
        return None
    return load_study_config(path, given)


def _execution_flags(given: dict[str, Any]) -> dict[str, Any]:
    flags = {name: value for name, value in given.items() if name.startswith(EXECUTION)}
    return load_execution(flags).model_dump(exclude_unset=True)


def _settings(
    study: StudyConfig | None, runners: list[str], output: str | None, verbosity: str | None
) -> EffectiveSettings:
    flags: dict[str, str | None] = {"output.results_dir": output, "ui.verbosity": verbosity}
    if runners and study is None:
        raise FlagError("--runner needs the YAML file of the study as well", where="--runner")
    if study is not None:
        named = named_runners(runners, study.all_backends)
        flags |= {f"runners.{backend}": runner for backend, runner in named.items()}
    return load_settings(flags=flags)


def _verbosity(*, quiet: bool, verbose: bool) -> str | None:
    return "quiet" if quiet else "verbose" if verbose else None


def _stop(context: typer.Context) -> Callable[[], bool]:
    """Give what tells that Ctrl-C was pressed again."""
    interrupts = context.find_root().obj
    return (lambda: interrupts.count > 1) if interrupts is not None else (lambda: False)


def _show_plan(
    study: StudyConfig | None, settings: EffectiveSettings, *, as_json: bool, allow_large: bool
) -> None:
    if study is None:
        raise FlagError("--dry-run needs the YAML file of the study", where="--dry-run")
    load_object(_SHOW_PLAN)(study, settings, as_json=as_json, allow_large=allow_large)


def _tell_way_on(left: int, directory: str | None) -> None:
    noun = "experiment has" if left == 1 else "experiments have"
    place = "PATH" if directory is None else shlex.quote(directory)
    typer.echo(
        f"llem: {left:,} {noun} no result; mend the cause, then\n"
        f"  go on with: llem run --resume {place}",
        err=True,
    )


def _print(ran: Ran, *, as_json: bool, quiet: bool) -> None:
    if ran.result.protocol is not None and sys.stdout.isatty() and sys.stderr.isatty():
        typer.echo()  # between the lines of the experiments and the table
    typer.echo(ran.to_json() if as_json else ran.summary(), nl=not as_json)
    if ran.directory is None or (as_json and quiet):
        return
    blank = "" if as_json else "\n"
    typer.echo(f"{blank}results in {ran.directory}", err=as_json)
