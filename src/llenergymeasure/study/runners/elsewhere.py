"""What runners ask of an interpreter that is not this one: version, backends, and pre-flight."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from llenergymeasure._version import __version__
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration import inventory, preflight
from llenergymeasure.orchestration.capture import tail
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.processes import how_it_ended
from llenergymeasure.study.runners.protocol import Job

PREFLIGHT_WITHIN_S = 1800.0
"""Longest time for looking for problems; a file system or a Hub that never answers hangs it."""

ANSWER_WITHIN_S = 120.0
_ASK_VERSION = "import llenergymeasure; print(llenergymeasure.__version__)"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An interpreter in another environment, or in an image.

    Attributes:
        name: What a message calls it.
        where: What the user has set it with.
        run: Runs it with arguments to its end; may give a problem in place of what came of it.
        install: How this version comes there.
        otherwise: Gives the problem of one that cannot be used, from the reason.
    """

    name: str
    where: str
    run: Callable[..., subprocess.CompletedProcess[str] | Problem]
    install: str
    otherwise: Callable[[str], Problem]

    def version_problem(self) -> Problem | None:
        """Say why it cannot run this version's workers, or ``None`` when it can."""
        version = self._answer("-c", _ASK_VERSION)
        if isinstance(version, Problem) or version == __version__:
            return version if isinstance(version, Problem) else None
        what = f"{self.name} has llenergymeasure {version}, and this is {__version__}"
        return Problem(what, self.where, self.install)

    def inventory(self, remedy: Callable[[str, str], str]) -> Inventory | Problem:
        """List its backends, or say why it cannot run this version's workers.

        Args:
            remedy: Puts the remedy of a backend into words that hold there.
        """
        said = self.version_problem() or self._answer("-m", inventory.MODULE)
        if isinstance(said, Problem):
            return said
        try:
            return Inventory.model_validate_json(said).with_remedies(remedy)
        except ValidationError:
            return self.otherwise("it does not say which backends it has")

    def _answer(self, *call: str) -> str | Problem:
        """Give the last line that it prints."""
        done = self.run(*call)
        if isinstance(done, Problem):
            return done
        said = done.stderr.strip()
        if "No module named 'llenergymeasure'" in said:
            return Problem(f"{self.name} has no llenergymeasure", self.where, self.install)
        if done.returncode:
            return self.otherwise(said.splitlines()[-1] if said else "it says nothing")
        return done.stdout.strip().rpartition("\n")[2]


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


def problems_there(
    start: Callable[[str, tuple[str, ...], Path], Job],
    orders: Sequence[WorkOrder],
    folder: Path,
    where: str,
    within_s: float = PREFLIGHT_WITHIN_S,
) -> list[Problem]:
    """Look for what stops some experiments, in the place where they will run.

    Args:
        start: Starts a module with arguments and a log there.
        orders: The experiments.
        folder: Where questions and answers lie.
        where: What the user has set the place with.
        within_s: Longest time.

    Raises:
        OSError: The folder cannot be written to.
    """
    asked, answer, log = (folder / name for name in ("orders", "problems", "log"))
    preflight.write_orders(orders, asked)
    job = start(preflight.MODULE, (str(asked), str(answer)), log)
    code = None
    try:
        code = job.wait(within_s)
    finally:
        if code is None:
            job.kill()
    if answer.is_file():
        return preflight.read_problems(answer)
    how = f"took longer than {within_s:g} s and was ended"
    if code is not None:
        how = how_it_ended(code)
    said = tail(log)
    return [
        Problem(
            f"looking for problems {how}" + (f":\n{said}" if said else ""),
            where,
            "mend what is named there, or see whether a file system or the Hub does not answer; "
            "'llem config' shows what is installed",
        )
    ]
