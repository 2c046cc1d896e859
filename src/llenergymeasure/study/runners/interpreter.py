"""An interpreter of another environment, as a place for experiments."""

from __future__ import annotations

import json
import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llenergymeasure._version import __version__
from llenergymeasure.exceptions import Problem
from llenergymeasure.study.runners.elsewhere import Elsewhere

ANSWER_WITHIN_S = 120.0


def other_interpreter(interpreter: str, where: str) -> Elsewhere:
    """Give what can be asked of an interpreter.

    Args:
        interpreter: Path of a Python, or a command on ``PATH``.
        where: What the user has set it with.
    """

    def unusable(reason: str) -> Problem:
        return Problem(
            f"the interpreter {interpreter} cannot be used: {reason}",
            where,
            "give the path of a Python of 3.11 or newer, such as /path/to/venv/bin/python",
        )

    def run(*arguments: str) -> subprocess.CompletedProcess[str] | Problem:
        try:
            return subprocess.run(  # noqa: S603 - the interpreter that the user chose
                [interpreter, "-P", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=ANSWER_WITHIN_S,
                check=False,
            )
        except OSError as error:
            return unusable(error.strerror or str(error))
        except subprocess.TimeoutExpired:
            return unusable(f"no answer within {ANSWER_WITHIN_S:g} s")

    # This version comes from where it was installed here, else from the index.
    folder = _installed_from()
    this = f"llenergymeasure=={__version__}" if folder is None else shlex.quote(str(folder))
    install = typed_for(interpreter, f"pip install {this}")
    return Elsewhere(f"the interpreter {interpreter}", where, run, install, unusable)


def _installed_from() -> Path | None:
    """Find the checkout that this package was installed from (PEP 610), where it still is."""
    try:
        told = metadata.distribution("llenergymeasure").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlsplit(json.loads(told)["url"]) if told else None
    folder = Path(unquote(url.path)) if url is not None and url.scheme == "file" else None
    return folder if folder is not None and (folder / "pyproject.toml").is_file() else None


def typed_for(interpreter: str, remedy: str) -> str:
    """Let a line of pip install into another interpreter."""
    if not remedy.startswith("pip "):
        return remedy
    return f"{shlex.quote(interpreter)} -m {remedy}"
