"""``llem report``: what was measured, shown again, exported, compared; reads results only."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llenergymeasure.cli.failure import columns_of, say, tell
from llenergymeasure.exceptions import FlagError

if TYPE_CHECKING:
    from llenergymeasure.domain.results import ExperimentResult, StudyResult

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["--help", "-h"]})
def report(  # noqa: PLR0913, PLR0917 - one parameter a flag
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Directories of experiments or studies, or their JSON files."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each, instead of tables.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables for a pull request or a paper.")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write one row a configuration.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page that shows one result."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="BASE",
            help="Compare a study with an earlier one; with --limit: exit 0 pass, 1 fail, 3 open.",
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit", metavar="FIGURE=PERCENT", help="By how much it may be worse: energy=5%."
        ),
    ] = None,
) -> None:
    """Show the results of experiments and studies again, also of a study that still runs."""
    from llenergymeasure.results.files import write  # pydantic's models take a moment
    from llenergymeasure.study.loading import load_results

    if limits and against is None:
        raise FlagError(
            "--limit needs --against BASE, the study that may not get worse", where="--limit"
        )
    for flag, given in (("--html", html), ("--against", against)):
        if given is not None and len(paths) > 1:
            raise FlagError(f"{flag} takes one PATH, not {len(paths)}", where=flag)
    results = [load_results(path) for path in paths]
    if html is not None:
        results[0].to_html(html)
        tell(f"llem: page in {html}")
    if csv is not None:
        from llenergymeasure.report.exports import csv_text

        write(csv, csv_text(results).encode())
        tell(f"llem: table in {csv}")
    if against is not None:
        _compare(results[0], load_results(against), limits or ())
    elif markdown:
        from llenergymeasure.report.exports import markdown_text

        say(markdown_text(results), end="")
    elif as_json or (html is None and csv is None):
        _print(paths, results, as_json=as_json)


def _print(
    paths: Sequence[Path], results: Sequence[ExperimentResult | StudyResult], *, as_json: bool
) -> None:
    from llenergymeasure.domain.results import StudyResult
    from llenergymeasure.results.files import json_text

    for number, (path, result) in enumerate(zip(paths, results, strict=True)):
        if as_json:
            exclude = {"experiments"} if isinstance(result, StudyResult) else None
            say(json_text(result, exclude=exclude), as_json=True)
        else:
            if len(paths) > 1:
                say(f"\n{path}" if number else str(path))
            say(result.summary(columns_of(sys.stdout)))
        if isinstance(result, StudyResult) and result.missing:
            count = f"{result.missing:,} of {result.missing + result.ran + len(result.failed):,}"
            tell(f"llem: {count} experiments of {path} have no result yet")


def _compare(
    now: ExperimentResult | StudyResult,
    base: ExperimentResult | StudyResult,
    limits: Sequence[str],
) -> None:
    """Print what changed since an earlier study; with limits end with the code of the gate.

    Raises:
        FlagError: One of them is no study, or they are not comparable.
    """
    from llenergymeasure.domain.results import StudyResult
    from llenergymeasure.report.comparing import comparison_lines, gate_lines
    from llenergymeasure.study.comparing import compare
    from llenergymeasure.study.gate import gate, margin_of

    if not (isinstance(now, StudyResult) and isinstance(base, StudyResult)):
        raise FlagError(
            "--against compares two studies; an experiment has no cycles that tell what is chance",
            where="--against",
        )
    width = columns_of(sys.stdout)
    if not limits:
        say("\n".join(comparison_lines(compare(base, now), width)))
        return
    found = gate(base, now, [margin_of(text) for text in limits])
    say("\n".join(gate_lines(found, width)))
    raise typer.Exit(found.exit_code)
