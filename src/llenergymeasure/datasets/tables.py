"""Rows of CSV, Parquet and JSON lists, a piece of the file at a time.

Each function yields the place of a row, such as ``line 7``, with what the row holds, or a
:class:`BadRow`; after some of these no further row comes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, TextIO

MAX_ROW_BYTES = 16 << 20
"""Longest row; whatever is longer is no prompt."""
TOO_LONG = f"longer than {MAX_ROW_BYTES >> 20} MiB, which no prompt is"
NOT_UTF8 = "not UTF-8 text"

_PIECE = 1 << 20
_ROWS_AT_ONCE = 256
_SPACE = re.compile(r"[ \t\r\n]*")


class BadRow(NamedTuple):
    """A row that is no prompt: where it stands, why, and what to change.

    Attributes:
        place: Such as ``line 7``; empty where it is all of the file.
        reason: What is wrong.
        remedy: What to change; empty where that is the same for every such row of the file.
    """

    place: str
    reason: str
    remedy: str = ""


class RepeatedKeyError(ValueError):
    """A JSON object has a key twice; the message says which."""


Row = tuple[str, Any]
Choose = Callable[[str, Sequence[str]], Sequence[str]]
"""Told where the names of all columns stand, and the names; gives those that are to be read, the
prompts first, behind it those with numbers."""


def csv_rows(file: BinaryIO, choose: Choose) -> Iterator[Row | BadRow]:
    """Read CSV with a heading (RFC 4180); lines may end as on any system.

    A column with numbers has whole numbers, and ``None`` where a cell is empty.
    """
    csv.field_size_limit(MAX_ROW_BYTES)  # of the whole process, where it was less
    names, numbers, begins, length = list[str](), list[str](), 1, 0

    def lines(text: TextIO) -> Iterator[str]:
        nonlocal length
        while line := text.readline(MAX_ROW_BYTES + 1):
            length += len(line)
            if length > MAX_ROW_BYTES:  # of all the lines of a row
                raise csv.Error(TOO_LONG)
            yield line

    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(lines(text), strict=True)
        try:
            for cells in reader:
                place, begins, length = f"line {begins}", reader.line_num + 1, 0
                if not cells:
                    continue
                if not names:
                    names = [name.strip() for name in cells]
                    _, *numbers = choose(place, names)
                elif len(cells) != len(names):
                    yield BadRow(place, f"{len(cells)} cells, where the heading has {len(names)}")
                else:
                    row: dict[str, Any] = dict(zip(names, cells, strict=True))
                    yield place, row | {name: _number(row[name]) for name in numbers}
        except UnicodeDecodeError:
            yield BadRow(f"line {begins}", NOT_UTF8)
        except csv.Error as error:
            too_long = str(error) == TOO_LONG
            yield BadRow(f"line {begins}", TOO_LONG if too_long else f"not CSV: {error}")


def parquet_rows(file: BinaryIO, choose: Choose) -> Iterator[Row | BadRow]:
    """Read Parquet: of the columns those that are needed, a few rows at a time."""
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        table = parquet.ParquetFile(file, buffer_size=_PIECE, pre_buffer=False)
        wanted = list(choose("", table.schema_arrow.names))
        # No threads of its own: engines are forked from this process.
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except UnicodeDecodeError:
        yield BadRow(f"row {number + 1}", NOT_UTF8)
    except (ArrowException, OSError) as error:  # the latter where numbers in its footer are wrong
        reason = str(error).partition("\n")[0][:100]
        yield BadRow(f"row {number + 1}" if number else "", f"not Parquet: {reason}")


def json_rows(file: BinaryIO, decoder: json.JSONDecoder) -> Iterator[Row | BadRow]:
    """Read a JSON list, or values that follow one another, such as JSON lines."""
    number = 0
    with io.TextIOWrapper(file, "utf-8-sig") as stream:
        text = _Text(stream)
        try:
            in_list = text.skip("[")
            while text.peek() not in ("", "]"):
                number += 1
                yield f"row {number}", text.value(decoder)
                if in_list and not text.skip(",") and text.peek() != "]":
                    yield BadRow(
                        f"row {number}", "not JSON: behind it is neither a comma nor the end"
                    )
                    return
            if text.skip("]") != in_list or text.peek():
                yield BadRow(
                    f"row {number}", "not JSON: behind it the file does not end as it should"
                )
        except UnicodeDecodeError:
            yield BadRow(f"row {number + 1}", NOT_UTF8)
        except json.JSONDecodeError as error:
            reason = TOO_LONG if text.is_full() else f"not JSON: {error.msg}"
            yield BadRow(f"row {number}", reason)
        except (RecursionError, ValueError) as error:
            yield BadRow(f"row {number}", unreadable(error))


def unreadable(error: RecursionError | ValueError) -> str:
    """Say why JSON that is no mistake of spelling cannot be read."""
    if isinstance(error, RepeatedKeyError):
        return str(error)
    return "not a prompt, by far"  # nested too deeply, or a number of thousands of digits


def _number(cell: str) -> int | str | None:
    """Read a cell of a column with numbers; one that is none stays text.

    pandas writes ``64.0`` where any other cell of the column is empty.
    """
    cell = cell.strip()
    whole = re.fullmatch(r"([0-9]{1,18})(?:\.0*)?", cell)
    return int(whole[1]) if whole else cell or None


class _Text:
    """The text of a file that may be long; what was read of it is let go."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._held, self._at = "", 0

    def peek(self) -> str:
        """Give the next character that is no white space; empty at the end."""
        while True:
            if (space := _SPACE.match(self._held, self._at)) is not None:
                self._at = space.end()
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def skip(self, sign: str) -> bool:
        """Go past a character, where it is the next one."""
        there = self.peek() == sign
        self._at += there
        return there

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Give the next value.

        Raises:
            JSONDecodeError: It is none, does not end, or is longer than a row may be.
        """
        while True:
            try:
                value, self._at = decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError:
                if self.is_full() or not self._more():
                    raise
            else:
                return value

    def is_full(self) -> bool:
        """Tell whether the value that is being read is longer than a row may be."""
        return len(self._held) - self._at > MAX_ROW_BYTES

    def _more(self) -> bool:
        """Read on, twice as far each time, so that a long value is not tried too often."""
        held = self._held[self._at :]
        piece = self._file.read(max(_PIECE, len(held)))
        self._held, self._at = held + piece, 0
        return bool(piece)
