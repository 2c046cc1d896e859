"""Columns of text within the width of a terminal: the one place that aligns and wraps."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llenergymeasure.report.format import WIDTH

MARGIN = "  "
_ROOM = WIDTH - len(MARGIN)
_TEXT = 17
_VALUE = 23
_TIE = "\N{NO-BREAK SPACE}"


class Column(NamedTuple):
    """One column.

    Attributes:
        width: Characters it has; a longer cell pushes those after it to the right.
        gap: Spaces before it.
        right: Whether its cells stand at its right edge.
        wraps: Whether a longer cell goes on below instead.
    """

    width: int = 0
    gap: int = 0
    right: bool = False
    wraps: bool = False


def row(cells: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
    """Lay cells out in columns: a line, and those of a cell that goes on below."""
    line, below = "", list[str]()
    for cell, column in zip(cells, columns, strict=False):
        line += " " * column.gap
        shown = cell
        if column.wraps and len(cell) > column.width:
            shown, *more = wrapped(cell, width=column.width)
            below.extend(" " * len(line) + other for other in more)
        line += shown.rjust(column.width) if column.right else shown.ljust(column.width)
    yield line.rstrip()
    yield from below


def wrapped(
    text: str, first: str = "", rest: str = "", *, width: int = WIDTH, whole: bool = False
) -> list[str]:
    """Wrap a text, nowhere at a no-break space; what is not printable becomes a space.

    Args:
        text: What to wrap.
        first: What the first line begins with.
        rest: What the others begin with.
        width: Most columns of a line.
        whole: Whether a word that is too long for a line is left in one piece.
    """
    lines = textwrap.wrap(
        "".join(letter if letter.isprintable() or letter == _TIE else " " for letter in text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=not whole,
    )
    return [line.replace(_TIE, " ") for line in lines]


def beside(head: str, *texts: str) -> Iterator[str]:
    """Give texts beside a head, in the column of texts, each wrapped; no word is broken."""
    for number, text in enumerate(texts):
        start = "" if number else f"{head}{'' if len(head) < _TEXT - 1 else '  '}"
        rest = " " * (_TEXT + 2)
        yield from wrapped(text, start.ljust(_TEXT), rest, width=_ROOM, whole=True)


def command(text: str) -> Iterator[str]:
    """Give a command in the column of texts, or further left where it is long; never broken."""
    yield " " * max(0, min(_TEXT, _ROOM - len(text))) + text


def setting(name: str, value: str, origin: str, width: int) -> Iterator[str]:
    """Give a setting in columns; where it came from moves down if there is no room for it.

    Args:
        name: What it is called.
        value: Its value.
        origin: Where the value came from.
        width: Columns of the name.
    """
    for least in (_VALUE, 0):
        columns = (Column(width), Column(least, gap=1), Column(gap=2))
        (line,) = row((name, value, origin), columns)
        if len(line) <= _ROOM:
            yield line
            return
    start = f"{name:{width}} "
    yield f"{start}{value}"
    yield f"{'':{len(start)}}{origin}"
