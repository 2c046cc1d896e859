"""Sections as plain text for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llenergymeasure.report.section import Fact, Part, Section, Table, TableKind
from llenergymeasure.report.table import Column, row, wrapped

_LABEL = 13
_INDENT = 2
_TIED = "\N{NO-BREAK SPACE}%"
_TIME = Column(11, right=True)
_FIGURE = Column(24, right=True)
_SPANNING = Column(gap=3)
_VERSUS = Column(gap=2)
_HEADS: dict[TableKind, tuple[Column, ...]] = {
    "latency": (Column(26), _TIME, _TIME, _TIME, _TIME),
    "ranking": (Column(36), Column(18, right=True), _VERSUS),
    "figures": (Column(7), _FIGURE, _FIGURE, _FIGURE),
}
_CELLS: dict[TableKind, tuple[Column, ...]] = {
    "latency": (Column(24, gap=_INDENT), _TIME, _TIME, _TIME, _TIME),
    "ranking": (
        Column(1),
        Column(6, right=True),
        Column(29, gap=1, wraps=True),
        Column(17, right=True),
        _VERSUS,
    ),
    "figures": (Column(7, right=True), _FIGURE, _FIGURE, _FIGURE),
}


def layout(sections: Iterable[Section]) -> str:
    """Lay sections out, a blank line between two: no colour, no final newline."""
    return "\n\n".join(
        "\n".join(line for part in section.parts for line in _lines(part))
        for section in sections
        if section.parts
    )


def _lines(part: Part) -> Iterator[str]:
    if isinstance(part, Table):
        yield from row(part.heads, _HEADS[part.kind])
        for cells in part.rows:
            columns = _CELLS[part.kind]
            if len(cells) < len(part.heads):
                columns = (*columns[: len(cells) - 1], _SPANNING)
            yield from row(cells, columns)
        return
    indent = " " * (_INDENT * part.level)
    if isinstance(part, Fact):
        label = f"{indent}{part.label}"
        for number, line in enumerate(part.lines):
            yield from wrapped(line, ("" if number else label).ljust(_LABEL), " " * _LABEL)
    elif part.whole:
        yield f"{indent}{part.text}"
    else:  # a figure stays with its sign
        yield from wrapped(part.text.replace(" %", _TIED), indent, indent + " " * _INDENT)
