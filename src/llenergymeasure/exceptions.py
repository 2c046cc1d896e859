"""Every error this package raises on purpose.

    LLEMError
    ├── ConfigError        a file, a field or a flag asks for something that cannot be
    │   └── FlagError      a flag has a value that it does not take, or no place here
    ├── PreFlightError     this machine cannot do it; holds every problem that was found
    ├── NotUnderstoodError a file is there that cannot be judged; nothing may replace it
    ├── BackendError       an inference engine failed to load or to generate
    ├── ExperimentError    an experiment started and broke; holds its config and its cause
    └── StudyError         a collection of experiments cannot go on

A message says what went wrong, where (file, line, field or phase), and what to type to mend it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

ProblemKind = Literal["hardware", "backend", "energy", "model", "dataset"]
"""What a problem is about, in the order in which problems are reported."""

_KINDS: tuple[ProblemKind, ...] = get_args(ProblemKind)
_MOST_LISTED = 10
_ROOM = 3_000


def shortened(text: str, most: int = 80) -> str:
    """Give a name, or what else somebody wrote, as messages show it: the beginning if it is long.

    Args:
        text: The name.
        most: Characters that are shown.
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def first_few(problems: Sequence[object]) -> Iterator[str]:
    """Give the problems that a message has room for, and how many more there are."""
    left = _ROOM
    for number, text in enumerate(map(str, problems)):
        if number == _MOST_LISTED or (number and len(text) > left):
            yield f"and {len(problems) - number:,} more"
            return
        left -= len(text)
        yield shortened(text, _ROOM)


class LLEMError(Exception):
    """Root of the tree.

    Attributes:
        code: A stable word for programs, e.g. ``"config"``.
        where: The file, line, field or phase the message is about, or ``None``.
    """

    code = "error"

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where


class ConfigError(LLEMError):
    """A configuration file, a field or a flag asks for something that cannot be."""

    code = "config"


class FlagError(ConfigError):
    """A flag has a value that it does not take, or no place beside the others.

    What a right value makes of the rest of the configuration is no matter of flags.
    """

    code = "usage"


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why an experiment cannot start.

    Attributes:
        what: What is wrong, with the value that is wrong.
        where: The field, file or device it is about.
        remedy: What to type or change.
        kind: What part of the experiment stops it.
    """

    what: str
    where: str
    remedy: str
    kind: ProblemKind = "backend"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}\n    {self.remedy}"


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Give distinct problems by kind: hardware, backends, energy, models, datasets."""
    return sorted(dict.fromkeys(problems), key=lambda problem: _KINDS.index(problem.kind))


class PreFlightError(LLEMError):
    """This machine cannot run the experiment; every problem is reported at once."""

    code = "preflight"

    def __init__(self, problems: Sequence[Problem]) -> None:
        listed = "\n".join(f"  - {problem}" for problem in first_few(problems))
        noun = "problem" if len(problems) == 1 else "problems"
        super().__init__(
            f"{len(problems)} {noun} before anything was loaded:\n{listed}",
            where=", ".join(problem.where for problem in problems),
        )
        self.problems = tuple(problems)


class NotUnderstoodError(LLEMError):
    """A file is there and cannot be judged: it may not be read, or a later version wrote it.

    It may be whole for all that is known, so nothing may take its place.
    """

    code = "not_understood"


class BackendError(LLEMError):
    """An inference engine failed to load or to generate."""

    code = "backend"


class ExperimentError(LLEMError):
    """An experiment started and broke.

    Attributes:
        config: The configuration that was asked for, as plain data.
        cause: What the failing part said, or ``None``.
        rescued: Folder that holds what was measured, where its own directory did not take it.
    """

    code = "experiment"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        config: dict[str, object] | None = None,
        cause: str | None = None,
        rescued: str | None = None,
    ) -> None:
        super().__init__(message, where=where)
        self.config = config
        self.cause = cause
        self.rescued = rescued


class StudyError(LLEMError):
    """A collection of experiments cannot start or go on."""

    code = "study"


# What the system refuses --------------------------------------------------------------------------

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "mend the permissions"),
}
PUT_ELSEWHERE = "put results elsewhere with --output (output_dir in Python)"


def cause_and_remedy(error: OSError, path: Path) -> str:
    """Say why the system does not take a file or a folder, and what mends that, in that order.

    It says "File exists" of a link that leads nowhere, and "No such file" of a folder that went, so
    this looks what stands in the way.

    Args:
        error: What the system said.
        path: What was to be written or made.
    """
    if error.errno in _REMEDIES:
        return f"{error.strerror}; {_REMEDIES[error.errno]}"
    return _obstacle(error, path) or f"{error.strerror or error}; mend that"


def _obstacle(error: OSError, path: Path) -> str | None:
    if not path.is_absolute() and (lost := lost_folder()):
        return lost
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), path)
    if astray := link_that_leads_nowhere(there):
        return f"{astray}; mend the link"
    if error.errno == errno.EISDIR:
        return f"{path} is a directory; take it away"
    wants_folder = there != path or error.errno in (errno.EEXIST, errno.ENOTDIR)
    if wants_folder and not os.path.isdir(there):  # noqa: PTH112 - Path raises
        return f"{there} is no directory; take it away"
    if error.errno == errno.ENOENT and not os.path.isdir(path.parent):  # noqa: PTH112 - too
        return f"{path.parent} is not there any more; put it back"
    return None


def link_that_leads_nowhere(path: Path) -> str | None:
    """Say where a link points that leads to nothing, or round in a circle; ``None`` of all else."""
    if not path.is_symlink() or os.path.exists(path):  # noqa: PTH110 - Path raises
        return None
    return f"{path} is a link to {path.readlink()}, which leads nowhere"


def lost_folder() -> str | None:
    """Say that the working directory is gone; ``None`` while it is there."""
    try:
        os.getcwd()  # noqa: PTH109 - this module is imported where pathlib is not needed
    except FileNotFoundError:
        return (
            "the working directory is gone, removed or replaced by another of its name; change to "
            "one that is there (cd)"
        )
    return None
