"""``llem config``: this machine, its backends, energy sources and settings, and what to do next."""

from __future__ import annotations

from typing import Annotated

import typer

from llenergymeasure.cli.failure import tell

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(context_settings={"help_option_names": ["--help", "-h"]})
def config(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also list every installed package.")
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="First calibrate the energy sensors of every GPU (about 100 s each, with load).",
        ),
    ] = False,
) -> None:
    """Show this machine, its backends, energy sources and settings, and what to do next."""
    tell("llem: looking at this machine")
    from llenergymeasure.cli import machine  # takes a moment, in which the line is there

    machine.show(verbose=verbose, calibrate=calibrate)
