"""``llem report``: what was measured, shown again; reads results and writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from llenergymeasure.cli.failure import columns_of, say, tell

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["--help", "-h"]})
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Directories of experiments or studies, or their JSON files."
        ),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each, instead of tables.")
    ] = False,
) -> None:
    """Show the results of experiments and studies again, also of a study that still runs."""
    from llenergymeasure.domain.results import StudyResult  # pydantic's models take a moment
    from llenergymeasure.results.files import json_text
    from llenergymeasure.study.loading import load_results

    for number, path in enumerate(paths):
        result = load_results(path)
        if as_json:
            exclude = {"experiments"} if isinstance(result, StudyResult) else None
            say(json_text(result, exclude=exclude), as_json=True)
            continue
        if len(paths) > 1:
            say(f"\n{path}" if number else str(path))
        say(result.summary(columns_of(sys.stdout)))
        if isinstance(result, StudyResult) and result.missing:
            count = f"{result.missing:,} of {result.missing + result.ran + len(result.failed):,}"
            tell(f"llem: {count} experiments of {path} have no result yet")
