"""The file itself: words laid out as HTML, and everything that pictures need put into it.

Whatever comes from a result is escaped: text as HTML, data as JSON without a ``<``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from llenergymeasure.report.section import Fact, Part, Section, Table
from llenergymeasure.report.text import escaped

LIBRARIES = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
"""In the order of loading, below ``vendor``; versions and hashes: ``scripts/vendor_js.py``."""

_PICTURES = """\
<section><h2>Speed against cost</h2>
<figure><div id="plane" class="picture" role="img" aria-labelledby="plane-said"></div>
<figcaption id="plane-said"></figcaption></figure>
<details id="points"><summary>The same as a table</summary></details></section>
<section id="compared"><h2>Differences</h2>
<p><label>Figure <select id="metric"></select></label></p>
<figure><div id="differences" class="picture" role="img" aria-labelledby="differences-said"></div>
<figcaption id="differences-said"></figcaption></figure>
<details id="pairs"><summary>The same as a table</summary></details></section>
"""


def document(title: str, sections: Iterable[Section], data: Mapping[str, Any] | None) -> str:
    """Put a page together.

    Args:
        title: What it is about.
        sections: What is said.
        data: What pictures are drawn from, or ``None`` for a page of words.
    """
    style = _own("page.css")
    scripts = [] if data is None else [*map(_library, LIBRARIES), _own("page.js")]
    allowed = " ".join(map(_source, scripts)) or "'none'"
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_source(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    name = text(title)
    inside, pictures = "", ""
    if data is not None:
        inside = f'<script type="application/json" id="data">{json_in_html(data)}</script>'
        pictures = _PICTURES
    code = "".join(f"<script>{one}</script>\n" for one in scripts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{style}</style></head>\n"
        f"<body><main><h1>{name}</h1>\n{pictures}{layout(sections)}</main>\n"
        f"{inside}\n{code}</body></html>\n"
    )


def layout(sections: Iterable[Section]) -> str:
    """Lay sections out as HTML."""
    return "".join(
        f'<section id="{escape(one.name)}">{"".join(map(_part, one.parts))}</section>\n'
        for one in sections
        if one.parts
    )


def text(said: str) -> str:
    """Escape text; what would change its direction or hide in it is spelled."""
    return escape(escaped(said))


def json_in_html(data: Mapping[str, Any]) -> str:
    """Write data as JSON that nothing in it can end: no ``<``, ``>`` or ``&``."""
    plain = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        plain = plain.replace(sign, f"\\u{ord(sign):04x}")
    return plain


def _part(part: Part) -> str:
    if isinstance(part, Fact):
        lines = "".join(f"<dd>{text(line)}</dd>" for line in part.lines)
        return f'<dl class="level{part.level}"><dt>{text(part.label)}</dt>{lines}</dl>'
    if isinstance(part, Table):
        return f'<div class="wide" tabindex="0">{table(part)}</div>'
    tag = "pre" if part.whole else "p"
    return f'<{tag} class="level{part.level}">{text(part.text)}</{tag}>'


def table(part: Table) -> str:
    """Lay a table out; a row that is shorter than others begins wide in the head, and ends so."""
    columns = max(map(len, (part.heads, *part.rows)))
    heads = _row("th", part.heads, columns, wide=0)
    rows = (_row("td", cells, columns, wide=len(cells) - 1) for cells in part.rows)
    return f"<table><thead>{heads}</thead><tbody>{''.join(rows)}</tbody></table>"


def _row(tag: str, cells: Sequence[str], columns: int, *, wide: int) -> str:
    spans = [columns - len(cells) + 1 if place == wide else 1 for place in range(len(cells))]
    each = zip(cells, spans, strict=True)
    found = (f'<{tag} colspan="{span}">{text(cell)}</{tag}>' for cell, span in each)
    return f"<tr>{''.join(found)}</tr>"


def _own(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _library(name: str) -> str:
    """Read a library, without the name of a source map that does not come along."""
    code = (files(__package__) / "vendor" / name).read_text("utf-8")
    return code.partition("//# sourceMappingURL")[0]


def _source(code: str) -> str:
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return f"'sha256-{digest}'"
