from __future__ import annotations

import contextlib
import io
import os
import termios

import pytest

from llenergymeasure.cli.display import (
    BarDisplay,
    Display,
    LineDisplay,
    make_display,
)
from llenergymeasure.cli.failure import columns_of
from llenergymeasure.orchestration.events import Event
from tests.support.scripted_run import scripted_config


def events(*phases: str) -> list[Event]:
    return [Event(0, "initialising", phase) for phase in phases]


@pytest.fixture
def stream():
    return io.StringIO()


def test_a_line_a_phase_with_the_time_since_the_start(stream):
    seconds = iter([100.0, 100.5, 112.25])
    display = LineDisplay(stream, lambda: next(seconds))
    for event in events("load", "measure"):
        display(event)
    display.close()

    assert stream.getvalue().splitlines() == [
        "llem:    0.5 s  loading the model",
        "llem:   12.2 s  measuring",
    ]


def test_lines_say_nothing_of_progress_nor_of_phases_that_take_no_time(stream):
    display = LineDisplay(stream)
    display(Event(0, "measuring", "measure", 5, 10))
    for event in events("collect", "save"):
        display(event)

    assert stream.getvalue() == ""


@pytest.mark.parametrize("make", [LineDisplay, BarDisplay])
def test_a_phase_without_a_description_is_shown_by_its_name(stream, make):
    display = make(stream)
    for event in events("polish"):
        display(event)
    display.close()

    assert "polish" in stream.getvalue()


@pytest.mark.parametrize("make", [LineDisplay, BarDisplay])
def test_a_wait_says_for_whom_and_says_so_again_when_that_changes(stream, make):
    display = make(stream)
    for owner in ("pid 1 (ann, since 14:30)", "pid 2 (bob, since 14:40)"):
        display(Event(0, "initialising", "wait", detail=f"waiting for cpu, measured by {owner}"))
    display(Event(0, "initialising", "start"))
    display.close()

    said = stream.getvalue()
    assert "waiting for cpu, measured by pid 1 (ann, since 14:30)" in said
    assert "measured by pid 2 (bob, since 14:40)" in said
    assert said.index("pid 1") < said.index("pid 2") < said.index("starting")


def test_a_bar_follows_the_requests_of_a_phase(stream):
    display = BarDisplay(stream)
    display(Event(0, "measuring", "measure"))
    display(Event(0, "measuring", "measure", 5, 10))
    display(Event(0, "measuring", "measure", 10, 10))
    display.close()

    assert "measuring" in stream.getvalue()
    assert "10/10" in stream.getvalue()


def test_a_window_of_a_least_length_is_shown_in_seconds(stream):
    display = BarDisplay(stream, window_s=20.0)
    for t_s, done in ((0, None), (5, 4), (10, 8), (24, 12)):
        display(Event(t_s * 10**9, "measuring", "measure", done, done))
    display.close()

    said = stream.getvalue()
    assert "measuring:  25%" in said
    assert "5/20 s, 4 requests" in said
    assert "measuring:  50%" in said
    assert "24/24 s, 12 requests" in said, "the last pass is finished"


def test_a_phase_that_counts_nothing_has_no_clock_that_stands_still(stream):
    display = BarDisplay(stream)
    display(Event(0, "initialising", "load"))
    display.close()

    assert "loading the model" in stream.getvalue()
    assert "00:00" not in stream.getvalue()


def test_a_terminal_of_unknown_size_gets_a_bar_all_the_same():
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        assert os.get_terminal_size(terminal.fileno()).columns == 0
        display = BarDisplay(terminal)
        display(Event(0, "measuring", "measure"))
        display(Event(0, "measuring", "measure", 5, 10))
        display.close()
    said = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as reader:
        while part := reader.read(1000):  # ends with an error once the terminal is gone
            said += part

    assert b"5/10" in said


def test_a_bar_that_is_closed_leaves_an_empty_line(stream):
    display = BarDisplay(stream)
    display(Event(0, "initialising", "load"))
    display.close()
    display.close()

    assert stream.getvalue().rstrip(" ").endswith("\r")


def test_silence_is_silent(capsys):
    display = Display()
    display(Event(0, "measuring", "measure"))
    display.close()

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("verbosity", "kind"),
    [("quiet", Display), ("standard", LineDisplay), ("verbose", LineDisplay)],
)
def test_without_a_terminal_progress_comes_in_lines_or_not_at_all(verbosity, kind, capsys):
    assert type(make_display(verbosity, scripted_config())) is kind


@pytest.mark.parametrize(("columns", "used"), [(0, 80), (40, 60), (100, 100), (300, 120)])
def test_the_columns_of_a_terminal_are_used_from_60_to_120(columns, used):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        assert columns_of(terminal) == used


def test_what_is_no_terminal_has_80_columns(stream, tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert (columns_of(file), columns_of(stream), columns_of(None)) == (80, 80, 80)
    assert columns_of(file) == 80, "closed"
