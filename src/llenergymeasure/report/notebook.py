"""Sections as HTML for a cell of a notebook: paragraphs and small tables, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape as html_escape

from llenergymeasure.report.section import Fact, Part, Section, Table
from llenergymeasure.report.text import escaped


def html(sections: Iterable[Section]) -> str:
    """Render sections for a notebook, without script or style.

    Args:
        sections: What is said.
    """
    parts = [part for section in sections for part in section.parts]
    return "<div>" + "".join(line for part in parts for line in _lines(part)) + "</div>"


def _lines(part: Part) -> Iterator[str]:
    if isinstance(part, Table):
        count = max(len(part.heads), *map(len, part.rows), 1)
        yield "<table><thead>" + _row("th", part.heads, count) + "</thead><tbody>"
        yield from (_row("td", cells, count) for cells in part.rows)
        yield "</tbody></table>"
    elif isinstance(part, Fact):
        said = "<br>".join(map(_safe, part.lines))
        yield f"<p><b>{_safe(part.label)}</b> {said}</p>"
    else:
        yield f"<p>{_safe(part.text)}</p>"


def _row(tag: str, cells: tuple[str, ...], count: int) -> str:
    """Give a row; heads that are fewer begin with that of several columns, cells end with it."""
    spans = [1] * len(cells)
    if cells:
        spans[0 if tag == "th" else -1] += count - len(cells)
    each = zip(cells, spans, strict=True)
    found = (f'<{tag} colspan="{span}">{_safe(cell)}</{tag}>' for cell, span in each)
    return f"<tr>{''.join(found)}</tr>"


def _safe(text: str) -> str:
    return html_escape(escaped(text))
