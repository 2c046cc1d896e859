"""``llem run``: an experiment or a study, from a YAML file, from flags, or both.

What reads files and what does the work is imported where it is used, so that help stays quick and
the first line is on the screen before an engine is imported.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llenergymeasure.cli.failure import FAILED, say, tell
from llenergymeasure.config.base import as_unicode
from llenergymeasure.config.introspection import describe
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.exceptions import ConfigError, FlagError, PreFlightError, lost_folder

if TYPE_CHECKING:
    from llenergymeasure.config.user_config import EffectiveSettings
    from llenergymeasure.domain.results import StudyResult

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
    again: Annotated[
        list[int] | None,
        typer.Option(
            help="With --resume: run this slot again although it is finished, and keep its old "
            "result beside the new one. May be repeated.",
            metavar="<int>",
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
    no_calibrate: Annotated[
        bool,
        typer.Option(
            "--no-calibrate", help="Run no bursts of load on a GPU that was never calibrated."
        ),
    ] = False,
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
    if (lost := lost_folder()) is not None:
        raise ConfigError(lost, where="working directory")
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
    _refuse_nonsense(output, resume, again, dry_run=dry_run)
    study = _study(config, given, resume)
    flags = {
        "output.results_dir": output,
        "ui.verbosity": "quiet" if quiet else "verbose" if verbose else None,
        "measurement.calibrate": False if no_calibrate else None,
    }
    settings = _settings(study, runner or [], flags)
    if dry_run and study is not None:  # without, a study goes on, beside which there is no plan
        show_plan(study, settings, as_json=as_json, allow_large=yes)
        return
    if settings.config.ui.verbosity != "quiet":
        tell(f"llem: {_first_words(study, resume)}")
    may_ask = settings.config.ui.prompt and not (yes or as_json or quiet)
    if may_ask and study is not None and sys.stdin.isatty() and sys.stderr.isatty():
        yes = confirmed(study, lambda question: typer.confirm(question, err=True))
    interrupts = context.find_root().obj

    def pressed_again() -> bool:
        return interrupts is not None and interrupts.count > 1

    result, directory = _run(study, settings, pressed_again, resume, given, again, allow_large=yes)
    _print(result, directory, as_json=as_json, quiet=quiet)
    if result.failed or result.missing:
        raise typer.Exit(FAILED)


def _refuse_nonsense(
    output: str | None, resume: Path | None, again: list[int] | None, *, dry_run: bool
) -> None:
    """Refuse flags that say nothing, or that contradict each other."""
    if output is not None and not output.strip():
        raise FlagError("--output names no directory", where="--output")
    if again and resume is None:
        raise FlagError(
            "--again runs a slot of a finished study again: add --resume and its directory",
            where="--again",
        )
    beside_resume = {
        "--output": output is not None and "a study goes on in the directory it lies in",
        "--dry-run": dry_run and "it shows a study that has not begun",
    }
    for flag, reason in beside_resume.items():
        if resume is not None and reason:
            raise FlagError(f"{flag} and --resume: {reason}; leave one out", where=flag)


def _dataset(given: str | None) -> object:
    """Read a dataset that is a YAML mapping; all else is a name or a path."""
    if given is None or not given.lstrip().startswith("{"):
        return given
    import yaml

    try:
        return yaml.safe_load(given)
    except (yaml.YAMLError, ValueError) as error:  # the latter of a day that is none
        problem = getattr(error, "problem", None) or "cannot be read"
        raise FlagError(
            f"--dataset is no YAML mapping: {problem}; write "
            "'{synthetic: {input_len: 256, output_len: 128}}' in quotes",
            where="--dataset",
        ) from None


def _study(path: Path | None, given: dict[str, Any], resume: Path | None) -> StudyConfig | None:
    """Read what is asked for; ``None`` where a study goes on with the design it has."""
    from llenergymeasure.config.loader import EXECUTION, flag_name, load_study_config

    if path is not None or "model" in given:
        try:
            return load_study_config(path, given)
        except ConfigError as error:
            from llenergymeasure.results.recognise import explained

            raise explained(path, error) from None
    if resume is None:
        raise FlagError("give a YAML file, or at least --model", where="command line")
    if strange := [name for name in given if not name.startswith(EXECUTION)]:
        raise FlagError(
            f"{flag_name(strange[0])} would change the design of the study that goes on; "
            "leave it out, or give the YAML file of the study as well",
            where=flag_name(strange[0]),
        )
    return None


def _settings(
    study: StudyConfig | None, runners: list[str], flags: Mapping[str, Any]
) -> EffectiveSettings:
    from llenergymeasure.config.user_config import load_settings, named_runners

    if runners and study is None:
        raise FlagError("--runner needs the YAML file of the study as well", where="--runner")
    if study is not None:
        named = named_runners(runners, study.all_backends)
        flags = {**flags} | {f"runners.{backend}": runner for backend, runner in named.items()}
    return load_settings(flags=flags)


def show_plan(
    study: StudyConfig,
    settings: EffectiveSettings,
    *,
    as_json: bool = False,
    allow_large: bool = False,
) -> None:
    """Print the plan that would be run; nothing is loaded and no network is asked.

    Args:
        study: The study.
        settings: How it would be run on this machine.
        as_json: Whether to print JSON instead of text.
        allow_large: Whether its grid may be larger than is usual.

    Raises:
        StudyError: The grid is too large, or none of it can run.
        PreFlightError: It could not be run here; printed after the plan.
    """
    from llenergymeasure.report import plan as written
    from llenergymeasure.study import grid
    from llenergymeasure.study.forecast import forecast
    from llenergymeasure.study.prepare import new_plan

    single = study.single is not None
    if not allow_large:
        grid.check_size(study)
    plan = new_plan(study, settings.config)
    found = forecast(plan, settings, single=single)
    if as_json and not found.problems:
        data = written.experiment_data(found) if single else written.study_data(found)
        say(as_unicode(json.dumps(data, indent=2, ensure_ascii=False)), as_json=True)
    elif not as_json:
        lines = written.experiment_lines(found) if single else written.study_lines(found)
        say("\n".join(lines))
    if found.problems:
        raise PreFlightError(found.problems)


def _first_words(study: StudyConfig | None, resume: Path | None) -> str:
    """Say what is about to be done, from what is known before anything is imported for it."""
    if study is None:
        return f"going on with {resume}"
    if (one := study.single) is not None:
        return f"{one.model}: preparing {one.backend}"
    engines = study.all_backends if study.sweep or not study.experiments else ()
    what = f"study {study.name}" if study.name else "a study"
    return f"{what}: preparing {', '.join(engines) or 'its engines'}"


def confirmed(study: StudyConfig, ask: Callable[[str], bool]) -> bool:
    """Ask before a grid that is larger than usual; ``False`` without asking of any other.

    Args:
        study: The design.
        ask: Puts a question that is answered by yes or no.
    """
    from llenergymeasure.study import grid

    count = grid.combinations(study)
    if count <= grid.MAX_COMBINATIONS:
        return False
    experiments = count * study.execution.n_cycles
    return ask(f"llem: the design has {count:,} combinations; run {experiments:,} experiments?")


def _run(  # noqa: PLR0913, PLR0917 - what flags say about running is given by name
    study: StudyConfig | None,
    settings: EffectiveSettings,
    stop: Callable[[], bool],
    resume: Path | None,
    given: dict[str, Any],
    again: list[int] | None,
    *,
    allow_large: bool,
) -> tuple[StudyResult, str | None]:
    """Run an experiment or a study, show its progress, and say where it lies."""
    from llenergymeasure.cli.display import make_display
    from llenergymeasure.config.loader import EXECUTION, load_execution
    from llenergymeasure.study.events import Callbacks, Placed, StudyEvent
    from llenergymeasure.study.runner import StudyRunner

    flags = {name: value for name, value in given.items() if name.startswith(EXECUTION)}
    execution = load_execution(flags).model_dump(exclude_unset=True)
    single = study.single if study is not None and resume is None else None
    places: list[str | None] = [None]
    with contextlib.closing(make_display(settings.config.ui.verbosity, single)) as display:

        def listen(event: StudyEvent) -> None:
            if isinstance(event, Placed):
                places.append(event.directory)
            display(event)

        result = StudyRunner(
            study,
            settings,
            settings.config.results_path(),
            Callbacks(listen, stop),
            resume=resume,
            execution=execution,
            allow_large=allow_large,
            again=tuple(again or ()),
        ).run()
    return result, places[-1]


def _print(result: StudyResult, directory: str | None, *, as_json: bool, quiet: bool) -> None:
    """Print a study, or an experiment that is not part of one; where it lies, and the way on."""
    single = result.protocol is None
    if as_json and single:
        say(result.experiments[0].to_json(), end="", as_json=True)
    elif as_json:
        say(result.model_dump_json(indent=2, exclude={"experiments"}), as_json=True)
    else:
        if not single and sys.stdout.isatty() and sys.stderr.isatty():
            say()  # between the lines of the experiments and the table
        say(result.experiments[0].summary() if single else result.summary())
    if directory is not None and not (as_json and quiet):
        where = f"results in {directory}"
        if as_json:
            tell(where)
        else:
            say(f"\n{where}")
    if left := len(result.failed) + result.missing:
        noun = "experiment has" if left == 1 else "experiments have"
        place = "PATH" if directory is None else shlex.quote(directory)
        tell(
            f"llem: {left:,} {noun} no result; mend the cause, then\n"
            f"  go on with: llem run --resume {place}"
        )
