"""Sections as HTML for a cell of a notebook: paragraphs and small tables, everything escaped."""

from __future__ import annotations

from collections.abc import Iterable

from llenergymeasure.report.page.html import table, text
from llenergymeasure.report.section import Fact, Part, Section, Table


def html(sections: Iterable[Section]) -> str:
    """Render sections for a notebook, without script or style.

    Args:
        sections: What is said.
    """
    parts = (part for section in sections for part in section.parts)
    return f"<div>{''.join(map(_part, parts))}</div>"


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return table(part)
    if isinstance(part, Fact):
        return f"<p><b>{text(part.label)}</b> {'<br>'.join(map(text, part.lines))}</p>"
    return f"<p>{text(part.text)}</p>"
