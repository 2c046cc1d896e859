"""What the tables that translate the errors of engines have in common."""

from __future__ import annotations

import traceback

_PACKAGE = __name__.partition(".")[0]
SLIPS = (LookupError, AttributeError, TypeError, AssertionError)
"""Signs of a slip in somebody's code: theirs is translated, ours is left as it is."""


def is_own_slip(error: BaseException) -> bool:
    """Tell whether an error is a slip in a line of this package."""
    innermost = list(traceback.walk_tb(error.__traceback__))[-1][0]
    raised_in = str(innermost.f_globals.get("__name__", ""))
    return isinstance(error, SLIPS) and raised_in.partition(".")[0] == _PACKAGE


def first_lines(error: BaseException, lines: int = 3, characters: int = 500) -> str:
    """Give the beginning of what an error says, in one line."""
    return " ".join(str(error).strip().splitlines()[:lines])[:characters]
