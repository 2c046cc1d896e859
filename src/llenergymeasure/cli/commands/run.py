"""``llem run``: an experiment or a study, from a YAML file, from flags, or both.

What reads files and what does the work is imported where it is used, so that help stays quick and
the first line is on the screen before an engine is imported.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

import typer

from llenergymeasure.cli.failure import FAILED, Interrupts, columns_of, say, tell
from llenergymeasure.config.base import as_unicode
from llenergymeasure.config.energy_sources import AUTO, ENERGY_SOURCES
from llenergymeasure.config.introspection import describe
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.names import PRECISIONS
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.config.study import CycleOrder
from llenergymeasure.exceptions import (
    ConfigError,
    FlagError,
    PreFlightError,
    lost_folder,
    shortened,
)

if TYPE_CHECKING:
    from llenergymeasure.config.user_config import EffectiveSettings
    from llenergymeasure.domain.results import ExperimentResult, StudyResult

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SHOWN = 80


def _option(
    flags: Sequence[str],
    said: str,
    *,
    choices: Sequence[str] = (),
    kind: str | None = None,
    read: Callable[[str], Any] | None = None,
) -> Any:
    """Make the option of a flag that takes a value; what it can be is listed and completed."""
    return typer.Option(
        *flags,
        help=said,
        show_default=False,
        metavar=f"<{'|'.join(choices)}>" if choices else kind,
        autocompletion=(lambda: list(choices)) if choices else None,
        parser=read,
    )


def _field(*flags: str, several: str = "", choices: Sequence[str] = ()) -> Any:
    """Make the option of a field of an experiment that takes text."""
    field = flags[0].removeprefix("--").replace("-", "_")
    read = _one(flags[0], several) if several else None
    return _option(flags, describe(ExperimentConfig, field), choices=choices, read=read)


def _number(*flags: str, said: str, several: str = "") -> Any:
    """Make the option of a whole number."""
    return _option(flags, said, kind="<int>", read=_one(flags[0], several, int))


def _one(flag: str, several: str = "", read: Callable[[str], Any] = str) -> Callable[[str], Any]:
    """Give what reads the one value of a flag.

    Args:
        flag: Its name.
        several: What takes several values, with ``{}`` for them; empty where nothing does.
        read: Makes the value of its text, or raises ``ValueError``.
    """

    def value(text: str) -> Any:
        if several and "," in text:
            instead = several.format(text[:_SHOWN])
            raise FlagError(f"{flag} takes one value; {instead} measures each", where=flag)
        try:
            return read(text)
        except ValueError:
            said = f"{flag}: '{text[:_SHOWN]}' is not a whole number"
            raise FlagError(said, where=flag) from None

    return value


def _time_s(text: str) -> float:
    """Read a time such as ``90``, ``90s``, ``10m`` or ``1.5h``, s."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|m|min|h|)", text.strip())
    if found is None:
        said = f"--wait: '{text[:_SHOWN]}' is no time; write it as 90s, 10m or 2h"
        raise FlagError(said, where="--wait")
    return float(found[1]) * _UNITS_S[found[2]]


@app.command(context_settings={"help_option_names": ["--help", "-h"]})
def run(  # noqa: PLR0913, PLR0917 - one parameter a flag
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(help="YAML file of an experiment or a study.", show_default=False),
    ] = None,
    example: Annotated[
        str | None,
        _option(
            ("--example",),
            "Run an example that comes with the package in place of a file; 'list' names them.",
            kind="<name>",
        ),
    ] = None,
    model: Annotated[str | None, _field("--model", "-m")] = None,
    backend: Annotated[
        str | None,
        _field("--backend", "-b", several="--set 'backend=[{}]'", choices=tuple(BACKENDS)),
    ] = None,
    dataset: Annotated[str | None, _field("--dataset", "-d")] = None,
    n: Annotated[
        int | None, _number("-n", said=describe(ExperimentConfig, "n"), several="--sweep n={}")
    ] = None,
    batch_size: Annotated[
        int | None,
        _number(
            "--batch-size",
            said="Requests served at once, in the backend's own section.",
            several="--sweep pytorch.batch_size={} (or the field of another backend)",
        ),
    ] = None,
    precision: Annotated[
        str | None, _field("--precision", several="--sweep precision={}", choices=PRECISIONS)
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        _number(
            "--max-new-tokens",
            said=describe(ExperimentConfig, "max_new_tokens"),
            several="--sweep max_new_tokens={}",
        ),
    ] = None,
    energy_backend: Annotated[
        str | None,
        _field(
            "--energy-backend",
            several="--sweep energy_backend={}",
            choices=(AUTO, *ENERGY_SOURCES),
        ),
    ] = None,
    assign: Annotated[
        list[str] | None,
        _option(
            ("--set",),
            "Set any other field by its dotted name, such as window.min_duration_seconds=10. May "
            "be repeated.",
            kind="<field=value>",
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        _option(
            ("--sweep",),
            "Measure each of several values of a field, such as pytorch.batch_size=1,2,4; "
            "repeated, every combination.",
            kind="<field=value,...>",
        ),
    ] = None,
    cycles: Annotated[
        int | None, _number("--cycles", said=describe(ExecutionConfig, "n_cycles"))
    ] = None,
    order: Annotated[
        str | None,
        _option(
            ("--order",), describe(ExecutionConfig, "cycle_order"), choices=get_args(CycleOrder)
        ),
    ] = None,
    no_gaps: Annotated[
        bool, typer.Option("--no-gaps", help="No pauses between experiments and cycles.")
    ] = False,
    wait: Annotated[
        float | None,
        _option(
            ("--wait",),
            "Longest wait for a device that another measurement has, such as 90s, 10m or 2h; by "
            "default without limit.",
            kind="<time>",
            read=_time_s,
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail at once where another measurement has it.")
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
    own = {
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
    _refuse_nonsense(output, resume, again, dry_run=dry_run)
    asked = _Asked.of(own, assign or (), sweep or ())
    study = _study(_given(config, example, resume), asked, resume)
    flags = {
        "output.results_dir": output,
        "ui.verbosity": "quiet" if quiet else "verbose" if verbose else None,
        "measurement.calibrate": False if no_calibrate else None,
        "execution.wait_seconds": _longest_wait_s(wait, no_wait=no_wait),
    }
    settings = _settings(study, runner or [], flags)
    if dry_run and study is not None:  # without one, a study goes on: there is no plan
        show_plan(study, settings, as_json=as_json, allow_large=yes)
        return
    if settings.config.ui.verbosity != "quiet":
        tell(f"llem: {_first_words(study, resume)}")
    may_ask = settings.config.ui.prompt and not (yes or as_json or quiet)
    if may_ask and study is not None and sys.stdin.isatty() and sys.stderr.isatty():
        yes = confirmed(study, lambda question: typer.confirm(question, err=True))
    try:
        result, directory = _run(context, study, settings, resume, asked, again, allow_large=yes)
    except KeyboardInterrupt as interrupt:
        _show_finished(interrupt, as_json=as_json)
        raise
    _print(result, directory, as_json=as_json, quiet=quiet)
    if result.failed or result.missing:
        raise typer.Exit(FAILED)


class _Asked(NamedTuple):
    """What flags ask for on top of a file, by dotted fields.

    Attributes:
        given: Those that have a flag of their own.
        assigned: Those that ``--set`` names.
        swept: Those that ``--sweep`` names, with all their values.
    """

    given: dict[str, Any]
    assigned: dict[str, Any]
    swept: dict[str, list[Any]]

    @classmethod
    def of(cls, own: Mapping[str, Any], assign: Iterable[str], sweep: Iterable[str]) -> _Asked:
        """Read what flags say.

        Args:
            own: Fields that have a flag, with ``None`` where it is not given.
            assign: What each ``--set`` says.
            sweep: What each ``--sweep`` says.
        """
        from llenergymeasure.config.assignments import fields_set, fields_swept

        given = {name: value for name, value in own.items() if value is not None}
        return cls(given, fields_set(assign), fields_swept(sweep))

    @property
    def fields(self) -> dict[str, Any]:
        """Each field that has one value."""
        return {**self.given, **self.assigned}


def _given(config: Path | None, name: str | None, resume: Path | None) -> Path | None:
    """Give the file that is asked for: that of an example too; or print which there are."""
    if name is None:
        return config
    from llenergymeasure.config import examples

    if name == "list":
        say("\n".join(examples.names()))
        raise typer.Exit
    if config is not None or resume is not None:
        said = "--example stands in the place of a file or a study; leave one out"
        raise FlagError(said, where="--example")
    return examples.find(name)


def _longest_wait_s(wait_s: float | None, *, no_wait: bool) -> float | None:
    if no_wait and wait_s is not None:
        raise FlagError("--wait and --no-wait contradict each other", where="--no-wait")
    return 0.0 if no_wait else wait_s


def _refuse_nonsense(
    output: str | None, resume: Path | None, again: list[int] | None, *, dry_run: bool
) -> None:
    """Refuse flags that say nothing, or that contradict each other."""
    from llenergymeasure.config.user_config import folder_problem

    if (lost := lost_folder()) is not None:
        raise ConfigError(lost, where="working directory")
    if output is not None:
        problem = folder_problem(output) if output.strip() else "names no directory"
        if problem is not None:
            raise FlagError(f"--output {problem}", where="--output")
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
    from llenergymeasure.config.yaml_file import parsed

    try:
        return parsed(given, Path("--dataset"))[0]
    except ConfigError as error:
        raise FlagError(
            f"--dataset is no YAML mapping: {error.message}; write "
            "'{synthetic: {input_len: 256, output_len: 128}}' in quotes",
            where="--dataset",
        ) from None


def _study(path: Path | None, asked: _Asked, resume: Path | None) -> StudyConfig | None:
    """Read what is asked for; ``None`` where a study goes on with the design it has."""
    from llenergymeasure.config.loader import (
        EXECUTION,
        flag_name,
        load_study_config,
        refuse_overlaps,
    )

    given, assigned, swept = asked
    if path is not None or "model" in {**asked.fields, **swept}:
        try:
            return load_study_config(path, given, assigned=assigned, sweep=swept)
        except ConfigError as error:
            from llenergymeasure.results.recognise import explained

            raise explained(path, error) from None
    if resume is None:
        raise FlagError("give a YAML file, or at least --model", where="command line")
    refuse_overlaps(given, assigned, swept)
    strange = [flag_name(name, assigned) for name in asked.fields if not name.startswith(EXECUTION)]
    for flag in (*strange, *(f"--sweep {name}" for name in swept)):
        raise FlagError(
            f"{flag} would change the design of the study that goes on; leave it out, or give the "
            "YAML file of the study as well",
            where=flag,
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
        return f"{shortened(one.model)}: preparing {one.backend}"
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
    context: typer.Context,
    study: StudyConfig | None,
    settings: EffectiveSettings,
    resume: Path | None,
    asked: _Asked,
    again: list[int] | None,
    *,
    allow_large: bool,
) -> tuple[StudyResult, str | None]:
    """Run an experiment or a study, show its progress, and say where it lies."""
    from llenergymeasure.cli.display import make_display
    from llenergymeasure.config.loader import EXECUTION, load_execution
    from llenergymeasure.study.events import Callbacks, Placed, StudyEvent
    from llenergymeasure.study.runner import StudyRunner

    interrupts: Interrupts | None = context.find_root().obj
    flags = {name: value for name, value in asked.fields.items() if name.startswith(EXECUTION)}
    execution = load_execution(flags, asked.assigned).model_dump(exclude_unset=True)
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
            Callbacks(listen, lambda: interrupts is not None and interrupts.count > 1),
            resume=resume,
            execution=execution,
            allow_large=allow_large,
            again=tuple(again or ()),
        ).run()
    return result, places[-1]


def _show_finished(interrupt: KeyboardInterrupt, *, as_json: bool) -> None:
    """Print the table of what was finished before a study was interrupted, where there is one."""
    finished: StudyResult | None = getattr(interrupt, "study", None)
    if finished is not None and finished.ran and not as_json:
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            say(finished.summary(columns_of(sys.stdout)))


def _print(result: StudyResult, directory: str | None, *, as_json: bool, quiet: bool) -> None:
    """Print a study, or an experiment that is not part of one; where it lies, and the way on."""
    single = result.protocol is None
    if as_json and single:
        say(result.experiments[0].to_json(), end="", as_json=True)
    elif as_json:
        from llenergymeasure.results.files import json_text

        say(json_text(result, exclude={"experiments"}), as_json=True)
    else:
        if not single and sys.stdout.isatty() and sys.stderr.isatty():
            say()  # between the lines of the experiments and the table
        told: ExperimentResult | StudyResult = result.experiments[0] if single else result
        say(told.summary(columns_of(sys.stdout)))
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
