"""Plain text for a terminal of 80 columns: columns, wrapping, and the layout of sections."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from llenergymeasure.report.format import WIDTH
from llenergymeasure.report.section import Fact, Part, Section, Table

MARGIN = "  "
_ROOM = WIDTH - len(MARGIN)
_TEXT = 17
_VALUE = 23
_TIE = "\N{NO-BREAK SPACE}"


_STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters of C0 and C1 but for tab and line end, and what changes the direction of text
(Unicode, UAX #9) or ends a line unseen."""


def escaped(text: str) -> str:
    r"""Spell what would steer a terminal, or show text as other than it is, e.g. as ``\x1b``.

    What JSON leaves as it is gets the spelling that JSON has for it, ``\u009b``, so the text of a
    JSON document stays one, with the same strings. A line end of Windows becomes a plain one.
    """

    def spelled(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"

    return _STEERS.sub(spelled, text.replace("\r\n", "\n"))


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
    """Wrap a text, nowhere at a no-break space; what would steer a terminal is spelled.

    Args:
        text: What to wrap.
        first: What the first line begins with.
        rest: What the others begin with.
        width: Most columns of a line.
        whole: Whether a word that is too long for a line is left in one piece.
    """
    lines = textwrap.wrap(
        "".join(
            letter if letter.isprintable() or letter == _TIE else " " for letter in escaped(text)
        ),
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


# Sections -----------------------------------------------------------------------------------------

_LABEL = 13
_INDENT = 2
_SPANNING = Column(gap=3)
_VERSUS = Column(gap=2)


def _columns(table: Table, width: int) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Give the columns of a table's heads, and of its cells; names take what figures leave."""
    if table.kind == "ranking":
        narrow = width < WIDTH
        value = 13 if narrow else 17
        said, longest = (max(len(cells[place]) for cells in table.rows) for place in (-1, 2))
        room = max(width - value - 10 - max(said, 24), 8)
        name = Column(room if narrow else min(room, max(longest, 29)), gap=1, wraps=True)
        heads = (Column(7 + name.width, wraps=narrow), Column(value + 1, right=True), _VERSUS)
        return heads, (Column(2), Column(5, right=True), name, Column(value, right=True), _VERSUS)
    if table.kind == "latency":
        times = len(table.heads) - 1
        each = (Column(min(11 if times > 3 else 17, (width - 26) // times), right=True),) * times
        return (Column(26), *each), (Column(24, gap=_INDENT), *each)
    count = len(table.heads) - 1
    size = min(24, (width - 7) // max(count, 3)) - 1
    above = (Column(size, gap=1, right=True, wraps=True),) * count
    figures = (Column(size, gap=1, right=True),) * count
    return (Column(7), *above), (Column(7, right=True), *figures)


def layout(sections: Iterable[Section], width: int = WIDTH) -> str:
    """Lay sections out, a blank line between two: no colour, no final newline.

    Args:
        sections: What is said.
        width: Columns there are, 60 at least.
    """
    return "\n\n".join(
        "\n".join(escaped(line) for part in section.parts for line in _lines(part, width))
        for section in sections
        if section.parts
    )


def _lines(part: Part, width: int) -> Iterator[str]:
    if isinstance(part, Table):
        heads, all_columns = _columns(part, width)
        yield from row(part.heads, heads)
        for cells in part.rows:
            columns = all_columns
            if len(cells) < len(part.heads):
                columns = (*columns[: len(cells) - 1], _SPANNING)
            yield from row(cells, columns)
        return
    indent = " " * (_INDENT * part.level)
    if isinstance(part, Fact):
        label = f"{indent}{part.label}"
        for number, line in enumerate(part.lines):
            start = ("" if number else label).ljust(_LABEL)
            yield from wrapped(line, start, " " * _LABEL, width=width)
    elif part.whole:
        yield f"{indent}{part.text}"
    else:  # a figure stays with its sign
        tied = part.text.replace(" %", f"{_TIE}%")
        yield from wrapped(tied, indent, indent + " " * _INDENT, width=width)
