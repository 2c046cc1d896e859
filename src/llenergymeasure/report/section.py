"""What a report says, apart from how it looks: sections of facts, paragraphs and tables.

A layout reads nothing else, so that a page for a browser is one more layout of the same sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

TableKind = Literal["latency", "ranking", "figures"]


class Fact(NamedTuple):
    """What is known of one thing.

    Attributes:
        label: What it is about.
        lines: What is said of it; at least one.
        level: How far below what stands before it, from 0.
    """

    label: str
    lines: tuple[str, ...]
    level: int = 0


class Text(NamedTuple):
    """A paragraph.

    Attributes:
        text: What it says.
        level: How far below what stands before it, from 0.
        whole: Whether it is to be copied, as a path is, and so must not be broken.
    """

    text: str
    level: int = 0
    whole: bool = False


class Table(NamedTuple):
    """Rows of cells under heads.

    Attributes:
        kind: Which of the tables it is.
        heads: One a column; where they are fewer than cells, the first is that of several columns.
        rows: Cells; the last of a short row has the columns that are left.
    """

    kind: TableKind
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Part = Fact | Text | Table


class Section(NamedTuple):
    """Parts that belong together.

    Attributes:
        name: A stable word, e.g. for a link.
        parts: In the order of reading; a section without any is passed over.
    """

    name: str
    parts: tuple[Part, ...]


def fact(label: str, lines: Iterable[str], level: int = 0) -> Iterator[Fact]:
    """Give a fact, or none where nothing is said of it."""
    if said := tuple(lines):
        yield Fact(label, said, level)
