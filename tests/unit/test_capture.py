from __future__ import annotations

import io
import logging
import sys

import pytest

from llenergymeasure.orchestration.capture import (
    RedactingWriter,
    captured_output,
    redact_file,
    tail,
)

KEY = "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNm12345678"


@pytest.fixture
def logger():
    """A logger of its own, without handlers, that goes away."""
    made = logging.getLogger("engine-of-a-test")
    made.propagate = False
    yield made
    made.handlers.clear()
    logging.root.manager.loggerDict.pop(made.name)


def test_what_is_printed_goes_to_the_file_and_not_to_the_terminal(tmp_path, capsys):
    with captured_output(tmp_path / "log.txt"):
        print("to stdout")
        print("to stderr", file=sys.stderr)
    print("afterwards")

    assert (tmp_path / "log.txt").read_text() == "to stdout\nto stderr\n"
    assert capsys.readouterr().out == "afterwards\n"


def test_credentials_never_reach_the_file_even_in_pieces(tmp_path):
    with captured_output(tmp_path / "log.txt"):
        print("token", KEY)
        sys.stdout.write(KEY[:10])
        sys.stdout.flush()
        sys.stdout.write(KEY[10:])

    text = (tmp_path / "log.txt").read_text()
    assert text == "token ***\n***"


def test_a_bar_that_rewrites_its_line_becomes_lines():
    target = io.StringIO()
    writer = RedactingWriter(target, io.StringIO())
    writer.write("10%\r20%\rdone\n")

    assert target.getvalue() == "10%\n20%\ndone\n"
    assert writer.writable()


def test_what_holds_on_to_the_stream_is_sent_to_the_successor():
    target, successor = io.StringIO(), io.StringIO()
    writer = RedactingWriter(target, successor)
    writer.write("unfinished")
    writer.finish()
    writer.write(f"later {KEY}\n")
    writer.flush()

    assert target.getvalue() == "unfinished"
    assert successor.getvalue() == "later ***\n"


def test_log_handlers_that_hold_a_standard_stream_are_moved_and_put_back(tmp_path, logger):
    before = logging.StreamHandler(sys.stderr)
    logger.addHandler(before)
    with captured_output(tmp_path / "log.txt"):
        logger.warning("meanwhile")

    assert (tmp_path / "log.txt").read_text() == "meanwhile\n"
    assert before.stream is sys.stderr


def test_a_handler_made_meanwhile_works_afterwards_and_in_the_next_run(tmp_path, logger, capsys):
    with captured_output(tmp_path / "first.txt"):
        logger.addHandler(logging.StreamHandler())
        logger.warning("one")
    logger.warning("between")
    with captured_output(tmp_path / "second.txt"):
        logger.warning("two")

    assert (tmp_path / "first.txt").read_text() == "one\n"
    assert (tmp_path / "second.txt").read_text() == "two\n"
    assert capsys.readouterr().err == "between\n"


def test_handlers_of_files_are_left_alone(tmp_path, logger):
    handler = logging.FileHandler(tmp_path / "own.txt")
    logger.addHandler(handler)
    with captured_output(tmp_path / "log.txt"):
        logger.warning("meanwhile")
    handler.close()

    assert (tmp_path / "own.txt").read_text() == "meanwhile\n"
    assert (tmp_path / "log.txt").read_text() == ""


def test_streams_come_back_after_an_error(tmp_path):
    outer = (sys.stdout, sys.stderr)

    def fail() -> None:
        with captured_output(tmp_path / "log.txt"):
            print("half a line", end="")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        fail()
    assert (sys.stdout, sys.stderr) == outer
    assert (tmp_path / "log.txt").read_text() == "half a line"


def test_the_tail_is_the_last_lines(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(40)) + b"\xff\n\n")

    assert tail(path, 3) == "38\n39\n�"
    assert len(tail(path).splitlines()) == 15
    assert tail(tmp_path / "absent.txt") == ""


def test_credentials_that_native_code_wrote_are_hidden_afterwards(tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"caf\xc3\xa9\ntoken " + KEY.encode() + b"\nend\n")

    redact_file(log)

    assert log.read_text(encoding="utf-8") == "caf\u00e9\ntoken ***\nend\n"


def test_a_log_without_credentials_is_not_touched(tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"\xff plain\n")

    redact_file(log)
    redact_file(tmp_path / "absent.txt")

    assert log.read_bytes() == b"\xff plain\n"


def test_the_tail_of_a_huge_log_is_its_last_lines_without_credentials(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("x" * 200_000 + f"\nsecond last {KEY}\nlast\n")

    assert tail(log, lines=2) == "second last ***\nlast"


def test_a_private_key_that_is_printed_line_by_line_is_hidden_as_a_whole(tmp_path):
    body = "QmFzZTY0IG9mIGE=\nc2VjcmV0IG5vYm9keQ=="
    key = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"
    with captured_output(tmp_path / "log.txt"):
        for line in ("before", *key.split("\n"), "after"):
            print(line)
        print("-----BEGIN PRIVATE KEY-----\nwithout an end")

    assert (tmp_path / "log.txt").read_text() == "before\n***\nafter\n***"


def test_what_only_begins_like_a_key_is_waited_for_no_longer_than_keys_are(tmp_path):
    with captured_output(tmp_path / "log.txt"):
        print("-----BEGIN something\n" + "a line\n" * 3000)
        assert (tmp_path / "log.txt").exists()

    assert (tmp_path / "log.txt").read_text().count("a line\n") == 3000


def test_a_private_key_that_native_code_wrote_is_hidden_afterwards(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("-----BEGIN PRIVATE KEY-----\nQmFzZTY0\n-----END PRIVATE KEY-----\nend\n")

    redact_file(log)

    assert log.read_text() == "***\nend\n"
