"""Text of others that would steer a terminal is spelled on every way to one."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llenergymeasure
from llenergymeasure.cli.display import BarDisplay, LineDisplay, StudyDisplay, failed_lines
from llenergymeasure.cli.failure import FailureReport, say, tell
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import FailedExperiment
from llenergymeasure.exceptions import BackendError
from llenergymeasure.orchestration.events import Event
from llenergymeasure.report.text import escaped, wrapped
from llenergymeasure.study.events import Begun, Finished, Noted, Placed
from tests.support.make_result import make_resolved, make_result

STEERING = {
    "escape": "\x1b[2J\x1b]0;title\x07",
    "bell": "\x07",
    "carriage return": "fine\rbad",
    "backspace": "bad\b\b\bfine",
    "null": "\x00",
    "form feed": "\x0c",
    "delete": "\x7f",
    "CSI of C1": "\x9b2J",
    "next line": "\x85",
    "override": "\u202etxt.exe",
    "isolate": "\u2066x\u2069",
    "mark": "\u200f",
    "Arabic mark": "\u061c",
    "line separator": "\u2028llem: all is well",
}
EVERY = "".join(STEERING.values())


def steers(text: str) -> set[str]:
    """Name the characters of a text that steer a terminal, by a list of its own."""
    bidi = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    controls = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
    return set(text) & (controls | set(bidi))


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
def test_what_steers_is_spelled(text: str) -> None:
    assert steers(text)
    assert not steers(escaped(text))


def test_each_is_spelled_as_programmers_write_it() -> None:
    assert escaped("\x1b[31m\x07\u202e\x9b\x7f") == r"\x1b[31m\x07\u202e\u009b\u007f"


def test_what_people_write_stays() -> None:
    text = (
        "line\n\ttab, caf\u00e9, \u65e5\u672c, \U0001f600, \u0633\u0644\u0627\u0645, no\u00a0break"
    )
    assert escaped(text) == text
    assert escaped("of Windows\r\n") == "of Windows\n"


@given(st.text(st.characters(max_codepoint=0x2100)))
def test_it_is_spelled_once(text: str) -> None:
    assert not steers(escaped(text))
    assert escaped(escaped(text)) == escaped(text)


@given(st.text())
def test_json_stays_the_same_json(text: str) -> None:
    for indent in (None, 2):
        document = json.dumps({text: [text]}, ensure_ascii=False, indent=indent)
        assert json.loads(escaped(document)) == {text: [text]}


def test_a_wrapped_text_keeps_its_width() -> None:
    lines = wrapped(EVERY * 5, width=40)
    assert not steers("".join(lines))
    assert max(map(len, lines)) <= 40


def test_a_summary_names_a_hostile_model() -> None:
    config = ExperimentConfig(model=f"m{EVERY}")
    result = make_result(config=config, resolved=make_resolved(config))
    assert not steers(result.summary())
    assert "\\x1b" in result.summary()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        BackendError(EVERY, where=EVERY),
        OSError(2, EVERY, EVERY),
        ValueError(EVERY),
        KeyboardInterrupt(EVERY),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_is_told_without_steering(
    capsys: pytest.CaptureFixture[str], error: BaseException, as_json: bool, verbose: bool
) -> None:
    FailureReport(as_json=as_json, verbose=verbose).failure(error)
    out, err = capsys.readouterr()
    assert not steers(out + err)
    assert "\\x1b" in err
    if as_json:
        assert EVERY in json.loads(out)["error"]["message"]


def test_what_is_said_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVERY)
    tell(EVERY)
    out, err = capsys.readouterr()
    assert out == err == escaped(EVERY) + "\n"


def failure() -> FailedExperiment:
    config = ExperimentConfig(model="m")
    return FailedExperiment(
        config=config, phase="load", code="backend", message=EVERY, rescued=EVERY
    )


def test_lines_of_a_study(tmp_path: Path) -> None:
    stream = io.StringIO()
    display = StudyDisplay(stream, LineDisplay(stream), terminal=False)
    for event in (
        Begun(EVERY, 1, 1, 0, 0, 0, (EVERY,)),
        Placed(EVERY),
        Noted(EVERY),
        Event(0, "initialising", "wait", detail=f"waiting for {EVERY}"),
        Finished(1, 1, 1, f"0001_{EVERY}", failure(), 1.0, None),
    ):
        display(event)
    display.close()
    assert not steers(stream.getvalue())
    assert stream.getvalue().count("\\x1b") >= 5
    assert not steers("".join(failed_lines(failure(), None)[:1]))


def test_a_bar_spells_for_whom_it_waits() -> None:
    stream = io.StringIO()
    display = BarDisplay(stream)
    display(Event(0, "initialising", "wait", detail="waiting for ann\x1b[2J\u202e"))
    assert r"waiting for ann\x1b[2J\u202e" in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    display.close()


PRINTING = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}


def test_the_command_prints_in_one_place() -> None:
    folder = Path(llenergymeasure.__file__).parent / "cli"
    found = {
        (path.name, name)
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in PRINTING
    }
    assert found == {("failure.py", "typer.echo")}


def test_credentials_are_hidden_in_what_is_said_and_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    token = "hf_" + "a1B2c3D4e5F6g7H8i9J0"
    say(f"model {token}")
    tell(f"model {token}")
    FailureReport(as_json=True, verbose=True).failure(ValueError(token))
    out, err = capsys.readouterr()
    assert token not in out + err
    assert out.startswith("model ***\n")
