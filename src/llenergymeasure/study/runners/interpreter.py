"""Whether another interpreter can run experiments of this version, and which backends it has."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from llenergymeasure._version import __version__
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.inventory import Inventory

ANSWER_WITHIN_S = 120.0

_ASK = "import llenergymeasure; print(llenergymeasure.__version__)"


def interpreter_problem(interpreter: str, where: str) -> Problem | None:
    """Say why an interpreter cannot run this version's workers, or ``None`` when it can.

    Args:
        interpreter: Path of a Python, or a command on ``PATH``.
        where: What the user has set it with.
    """
    if interpreter == sys.executable:
        return None
    said = _answer(interpreter, where, "-c", _ASK)
    return said if isinstance(said, Problem) else _other_version(interpreter, where, said)


def interpreter_inventory(interpreter: str, where: str) -> Inventory | Problem:
    """List the backends of an interpreter, or say why it cannot run this version's workers.

    Args:
        interpreter: Path of a Python, or a command on ``PATH``.
        where: What the user has set it with.

    Raises:
        ConfigError: A plugin of this very interpreter is broken.
    """
    if interpreter == sys.executable:
        return inventory.take()
    if problem := interpreter_problem(interpreter, where):
        return problem
    said = _answer(interpreter, where, "-m", inventory.MODULE)
    if isinstance(said, Problem):
        return said
    try:
        found = Inventory.model_validate_json(said.rpartition("\n")[2])
    except ValidationError:
        return _unusable(interpreter, where, "it does not say which backends it has")
    return found.with_remedies(lambda _, remedy: _typed_for(interpreter, remedy))


def _answer(interpreter: str, where: str, *arguments: str) -> str | Problem:
    try:
        done = _ask(interpreter, *arguments)
    except OSError as error:
        return _unusable(interpreter, where, error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return _unusable(interpreter, where, f"no answer within {ANSWER_WITHIN_S:g} s")
    if done.returncode:
        return _refused(interpreter, where, done.stderr.strip())
    return done.stdout.strip()


def _ask(interpreter: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the interpreter that the user chose
        [interpreter, "-P", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=ANSWER_WITHIN_S,
        check=False,
    )


def _unusable(interpreter: str, where: str, reason: str) -> Problem:
    return Problem(
        f"the interpreter {interpreter} cannot be used: {reason}",
        where,
        "give the path of a Python of 3.11 or newer, such as /path/to/venv/bin/python",
    )


def _refused(interpreter: str, where: str, said: str) -> Problem:
    if "No module named 'llenergymeasure'" in said:
        what = f"the interpreter {interpreter} has no llenergymeasure"
        return Problem(what, where, _pip_line(interpreter))
    return _unusable(interpreter, where, said.splitlines()[-1] if said else "it says nothing")


def _other_version(interpreter: str, where: str, version: str) -> Problem | None:
    if version == __version__:
        return None
    what = f"the interpreter {interpreter} has llenergymeasure {version}, and this is {__version__}"
    return Problem(what, where, _pip_line(interpreter))


def _pip_line(interpreter: str) -> str:
    """Install this version there: from where it was installed here, else from the index."""
    folder = _installed_from()
    what = f"llenergymeasure=={__version__}" if folder is None else shlex.quote(str(folder))
    return _typed_for(interpreter, f"pip install {what}")


def _installed_from() -> Path | None:
    """Find the checkout that this package was installed from (PEP 610), where it still is."""
    try:
        told = metadata.distribution("llenergymeasure").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    url = urlsplit(json.loads(told)["url"]) if told else None
    folder = Path(unquote(url.path)) if url is not None and url.scheme == "file" else None
    return folder if folder is not None and (folder / "pyproject.toml").is_file() else None


def _typed_for(interpreter: str, remedy: str) -> str:
    """Let a line of pip install into another interpreter."""
    if not remedy.startswith("pip "):
        return remedy
    return f"{shlex.quote(interpreter)} -m {remedy}"
