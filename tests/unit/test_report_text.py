"""Sections are data without widths, and text is one layout of them."""

from __future__ import annotations

from llenergymeasure.report.section import Fact, Section, Table, Text, fact
from llenergymeasure.report.study import sections
from llenergymeasure.report.text import layout
from tests.support.make_study import make_configs, make_run, make_study


def laid_out(*parts: Fact | Text | Table) -> list[str]:
    return layout([Section("any", parts)]).split("\n")


def test_sections_are_parted_by_a_blank_line_and_an_empty_one_is_passed_over() -> None:
    parts = [Section(name, (Text(name),)) for name in ("first", "last")]
    assert layout([parts[0], Section("empty", ()), parts[1]]) == "first\n\nlast"


def test_lines_of_a_fact_stand_beside_its_label() -> None:
    assert laid_out(Fact("Trust", ("caution",)), Fact("info", ("a", "b"), 1)) == [
        "Trust        caution",
        "  info       a",
        " " * 13 + "b",
    ]


def test_a_fact_of_which_nothing_is_said_is_none() -> None:
    assert list(fact("Idle", iter(()))) == []
    assert list(fact("Idle", iter(["3 W"]))) == [Fact("Idle", ("3 W",))]


def test_a_long_paragraph_goes_on_further_right_and_a_figure_keeps_its_sign() -> None:
    first, second = laid_out(Text("x" * 74 + " 12 % of it", 1))
    assert first == "  " + "x" * 74
    assert second == "    12 % of it"


def test_what_is_to_be_copied_is_never_broken() -> None:
    path = "/long" * 30
    assert laid_out(Text(path, 2, whole=True)) == ["    " + path]


def test_a_short_row_of_a_table_says_why_across_the_columns_that_are_left() -> None:
    heads = ("Latency", "p50", "p95", "p99", "samples")
    table = Table("latency", heads, (("TTFT", "1", "2", "3", "4"), ("ITL", "not told by it")))
    assert laid_out(table) == [
        f"{'Latency':26}{'p50':>11}{'p95':>11}{'p99':>11}{'samples':>11}",
        f"{'  TTFT':26}{'1':>11}{'2':>11}{'3':>11}{'4':>11}",
        f"{'  ITL':26}   not told by it",
    ]


def test_a_long_label_of_a_table_goes_on_below_itself() -> None:
    cells = ("=", "#2", "flash_attention_3 batch_size=16", "1.5", "+1 %")
    _, row, below = laid_out(Table("ranking", ("Energy", "J", ""), (cells,)))
    assert row.startswith("=    #2 flash_attention_3")
    assert row.endswith("1.5  +1 %")
    assert below == " " * 8 + "batch_size=16"


def test_another_layout_finds_every_cell_of_a_ranking_apart() -> None:
    study = make_study(
        lambda config, number, cycle: make_run(config, 800 * number + cycle), make_configs([1, 8])
    )
    found = {section.name: section for section in sections(study)}
    ranking, *_ = found["ranking-energy_per_output_token_j"].parts
    assert isinstance(ranking, Table)
    assert ranking.heads[1:] == ("J", "against #1")
    assert [row[:3] for row in ranking.rows] == [
        (" ", "#1", "batch_size=1"),
        (" ", "#2", "batch_size=8"),
    ]


def test_a_report_uses_the_columns_there_are() -> None:
    study = make_study(
        lambda config, number, cycle: make_run(config, 800 * number + cycle, 200 - cycle),
        make_configs([1, 8]),
    )
    for width in (60, 80, 120):
        assert max(map(len, study.summary(width).splitlines())) <= width
    assert study.summary(80) == study.summary()
    assert len(study.summary(120).splitlines()) < len(study.summary(80).splitlines())
    assert len(study.summary(60).splitlines()) > len(study.summary(80).splitlines())
    result = make_run(make_configs([1])[0], 800)
    for width in (60, 120):
        assert max(map(len, result.summary(width).splitlines())) <= width


def test_a_wide_terminal_has_room_for_long_labels() -> None:
    cells = ("=", "#2", "flash_attention_3 batch_size=16", "1.5", "+1 %")
    parts = (Table("ranking", ("Energy", "J", ""), (cells,)),)
    _, one_line = layout([Section("any", parts)], 120).split("\n")
    assert "flash_attention_3 batch_size=16  " in one_line
