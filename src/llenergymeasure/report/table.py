"""Rows of text that stay within a terminal: what they say, beside what they are about."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from llenergymeasure.config.user_config import default_path
from llenergymeasure.report.format import WIDTH

MARGIN = "  "
_ROOM = WIDTH - len(MARGIN)
_TEXT = 17
_VALUE = 23


def beside(head: str, *texts: str) -> Iterator[str]:
    """Give texts beside a head, in the column of texts, each wrapped; no word is broken.

    What is not printable becomes a space.
    """
    for number, text in enumerate(texts):
        start = "" if number else f"{head}{'' if len(head) < _TEXT - 1 else '  '}"
        yield from textwrap.wrap(
            "".join(letter if letter.isprintable() else " " for letter in text),
            _ROOM,
            initial_indent=start.ljust(_TEXT),
            subsequent_indent=" " * (_TEXT + 2),
            break_on_hyphens=False,
            break_long_words=False,
        )


def command(text: str) -> Iterator[str]:
    """Give a command in the column of texts, or further left where it is long; never broken."""
    yield " " * max(0, min(_TEXT, _ROOM - len(text))) + text


def origin(told: str) -> str:
    """Name where a setting came from; the user's own file, which is named above, by its name."""
    return default_path().name if told == str(default_path()) else told


def setting(name: str, value: str, origin: str, width: int) -> Iterator[str]:
    """Give a setting in columns; where it came from moves down if there is no room for it.

    Args:
        name: What it is called.
        value: Its value.
        origin: Where the value came from.
        width: Columns of the name.
    """
    start = f"{name:{width}} "
    for line in (f"{start}{value:{_VALUE}}  {origin}", f"{start}{value}  {origin}"):
        if len(line) <= _ROOM:
            yield line
            return
    yield f"{start}{value}"
    yield f"{'':{len(start)}}{origin}"
