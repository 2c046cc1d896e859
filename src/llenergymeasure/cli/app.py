"""The ``llem`` command and the one place that turns errors into messages and exit codes.

Exit codes: 0 all ran; 1 a configuration error or a failed experiment; 2 wrong flags; 130 an
interrupt.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llenergymeasure._version import __version__
from llenergymeasure.exceptions import LLEMError

_COMMANDS = {
    "run": "Measure one experiment, from a YAML file or from flags.",
    "config": "Show this machine, its backends, energy sources and settings.",
}
_INTERRUPTED = 130


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
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Measure what an LLM deployment choice costs in energy, speed and memory.",
)


def _print_versions(asked: bool) -> None:
    if not asked:
        return
    registry = importlib.import_module("llenergymeasure.cli.versions")
    print(registry.versions(__version__))  # noqa: T201 - the command's output
    raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_versions,
            is_eager=True,
            help="Show the version of llem and of the installed engines.",
        ),
    ] = False,
) -> None:
    """Hold the flags that stand before a command."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments, standalone_mode=False, prog_name="llem")
    except LLEMError as error:
        code = _report(error, as_json="--json" in arguments)
    except (KeyboardInterrupt, typer.Abort):
        code = _report(_InterruptedError(), as_json="--json" in arguments)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; nothing more can be said
        code = 1
    except Exception as error:  # noqa: BLE001 - wrong flags come as the parser's own exceptions
        code = _report_usage(error)
    sys.exit(code or 0)


class _InterruptedError(LLEMError):
    code = "interrupted"

    def __init__(self) -> None:
        super().__init__("interrupted; no result was written")


def _report(error: LLEMError, *, as_json: bool) -> int:
    if as_json:
        body = {"code": error.code, "message": error.message, "where": error.where}
        print(json.dumps({"error": body}, ensure_ascii=False))  # noqa: T201
    print(f"llem: {error.message}", file=sys.stderr)  # noqa: T201
    return _INTERRUPTED if isinstance(error, _InterruptedError) else 1


def _report_usage(error: Exception) -> int:
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return int(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
