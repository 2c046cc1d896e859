"""Whether another interpreter can run experiments of this version."""

from __future__ import annotations

import subprocess
import sys

from llenergymeasure._version import __version__
from llenergymeasure.exceptions import Problem

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
    try:
        done = _ask(interpreter)
    except OSError as error:
        return _unusable(interpreter, where, error.strerror or str(error))
    except subprocess.TimeoutExpired:
        return _unusable(interpreter, where, f"no answer within {ANSWER_WITHIN_S:g} s")
    if done.returncode:
        return _refused(interpreter, where, done.stderr.strip())
    return _other_version(interpreter, where, done.stdout.strip())


def _ask(interpreter: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the interpreter that the user chose
        [interpreter, "-P", "-c", _ASK],
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
    return f"{interpreter} -m pip install llenergymeasure=={__version__}"
