"""What a notebook shows of a result."""

from __future__ import annotations

from llenergymeasure.report.notebook import html
from llenergymeasure.report.section import Fact, Section, Table, Text
from tests.support.make_result import make_result


def test_names_and_texts_of_others_are_escaped_in_a_notebook():
    script = "<script>alert(1)</script>"
    shown = html(
        [
            Section(
                "a",
                (Text(script), Fact(script, (script,)), Table("figures", (script,), ((script,),))),
            )
        ]
    )
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") == 5


def test_short_rows_of_a_table_fill_its_width():
    table = Table("ranking", ("all", "b"), (("1", "2", "3"), ("1", "rest")))
    assert html([Section("a", (table,))]) == (
        '<div><table><thead><tr><th colspan="2">all</th><th colspan="1">b</th></tr></thead><tbody>'
        '<tr><td colspan="1">1</td><td colspan="1">2</td><td colspan="1">3</td></tr>'
        '<tr><td colspan="1">1</td><td colspan="2">rest</td></tr></tbody></table></div>'
    )


def test_a_result_is_short_in_a_cell_and_has_the_facts_of_its_summary():
    result = make_result()
    assert len(repr(result)) < 200
    assert "\n" not in repr(result)
    assert result._repr_html_().startswith("<div><p><b>")
