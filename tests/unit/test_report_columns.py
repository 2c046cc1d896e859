"""Rows of text within the width of a terminal."""

from __future__ import annotations

from llenergymeasure.report.format import WIDTH
from llenergymeasure.report.text import MARGIN, beside, command, setting

ROOM = WIDTH - len(MARGIN)
LONG = "a long text about some thing " * 5


def test_every_text_stands_in_one_column_and_goes_on_further_right() -> None:
    first, *rest = beside("vllm        no", LONG, "pip install it")
    assert first.startswith("vllm        no   a long text")
    assert rest[0].startswith(" " * 19 + "long")
    assert rest[-1] == " " * 17 + "pip install it"
    assert max(map(len, [first, *rest])) <= ROOM


def test_a_wide_head_keeps_its_distance() -> None:
    (line,) = beside("GPU-12345678-1234-1234", "calibrated")
    assert line == "GPU-12345678-1234-1234  calibrated"


def test_a_path_is_never_broken() -> None:
    path = "/" + "long-name/" * 12
    assert path in "\n".join(beside("vllm", f"in {path}"))


def test_line_ends_become_spaces_and_what_steers_a_terminal_is_spelled() -> None:
    (line,) = beside("x", "red\x1b[31m\nnext")
    assert line.endswith(r"red\x1b[31m next")


def test_a_command_is_in_one_piece_wherever_it_fits() -> None:
    assert list(command("pip install x")) == [" " * 17 + "pip install x"]
    for length in (ROOM - 16, ROOM, ROOM + 20):
        (line,) = command("x" * length)
        assert line.strip() == "x" * length
        assert len(line) == max(ROOM, length)


def test_where_a_setting_came_from_moves_down_when_there_is_no_room() -> None:
    assert list(setting("name", "1", "default", 10)) == ["name       1" + " " * 24 + "default"]
    assert list(setting("name", "v" * 40, "$LLEM", 10)) == [f"name       {'v' * 40}  $LLEM"]
    value, origin = setting("name", "v" * 60, "/etc/config", 10)
    assert (value, origin) == (f"name       {'v' * 60}", f"{'':11}/etc/config")
