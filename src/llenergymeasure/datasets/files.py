"""Read prompts from a file, a row each, in file order; no more than a few rows of it are held.

| ending, in small or capital letters | what it holds |
|---|---|
| ``.jsonl``, ``.jsonl.gz`` | a JSON object a line; blank lines are skipped |
| ``.json``, ``.json.gz`` | a list of objects, or objects that follow one another |
| ``.csv``, ``.csv.gz`` | a heading with the names of the columns, and a row a prompt |
| ``.parquet`` | a table |

A first row with ``_provenance`` and without a prompt is a header.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from llenergymeasure import plain_files
from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.plain_words import shown
from llenergymeasure.datasets import chats, tables
from llenergymeasure.datasets.chats import UnfitError
from llenergymeasure.datasets.tables import MAX_ROW_BYTES, BadRow, RepeatedKeyError, Row
from llenergymeasure.domain.prompts import Dataset, Prompt
from llenergymeasure.exceptions import PreFlightError, Problem

MAX_BAD_ROWS = 10
MOST_NEW_TOKENS = 10**9
TEXT_COLUMNS = ("prompt", "text", "text_input", "question")
LIMIT_COLUMNS = ("max_new_tokens", "max_tokens", "output_len", "max_output_tokens")
"""What tools call the number of tokens at which an answer is cut."""

_COLUMNS = (*TEXT_COLUMNS, *chats.COLUMNS)
_MOST_NAMED, _LONGEST_NAME = 5, 40
_ROW_REMEDY = 'write each row as {"prompt": "..."}, with "max_new_tokens": N where it has its own'
_CELL_REMEDY = "mend that row, or leave it out"
_COLUMN_REMEDY = "say which it is: dataset: {path: ..., column: ..., limit_column: ...}"


class Header(NamedTuple):
    """The provenance header of a dataset."""

    content: dict[str, Any]


class _NoColumnError(Exception):
    """A column that is needed is not there: a bad row in the place of all others."""

    def __init__(self, place: str, what: str, names: Iterable[str]) -> None:
        super().__init__(what)
        self.row = BadRow(place, f"{what}; it has {named(names) or 'none'}", _COLUMN_REMEDY)


@dataclass(slots=True)
class Columns:
    """Which columns of a file, or keys of its rows, are read.

    Attributes:
        prompt: That of the prompts; ``None`` until the first row tells.
        limit: That of the tokens at which an answer is cut; ``None`` for the usual ones.
        read: All of them, the prompts first; empty until the first row tells.
        unused: The first few of the others.
        limited: Whether any row has a value of its own in ``limit``.
    """

    prompt: str | None = None
    limit: str | None = None
    read: Sequence[str] = ()
    unused: dict[str, None] = field(default_factory=dict)
    limited: bool = False

    def choose(self, place: str, names: Sequence[str], *, of_all: bool = True) -> Sequence[str]:
        """Settle which columns are read; give those of them that are there.

        Args:
            place: Where the names stand.
            names: What columns there are.
            of_all: Whether every row has the same.

        Raises:
            _NoColumnError: One that is needed is not there, or it is not clear which is meant.
        """
        texts = [name for name in TEXT_COLUMNS if name in names]
        found = [*texts[:1], *(name for name in chats.COLUMNS if name in names)]
        if self.prompt is None and len(found) != 1:
            what = f"no column is called {', '.join(_COLUMNS)}"
            if found:
                what = f"{' and '.join(found)} may hold the prompts, each in its own way"
            raise _NoColumnError(place, what, names)
        self.prompt = self.prompt or found[0]
        self.read = (self.prompt, *((self.limit,) if self.limit else LIMIT_COLUMNS))
        needed = self.read if self.limit and of_all else (self.prompt,)
        if absent := [name for name in needed if name not in names]:
            raise _NoColumnError(place, f"there is no column {named(absent)}", names)
        if twice := [name for name in self.read if names.count(name) > 1]:
            raise _NoColumnError(place, f"{named(twice)} is there twice", names)
        self.limited = of_all
        self.note(name for name in names if name not in self.read)
        return [name for name in self.read if name in names]

    def note(self, names: Iterable[str]) -> None:
        """Keep the first few names that nothing is made of."""
        for name in islice(names, _MOST_NAMED):
            if len(self.unused) < _MOST_NAMED:
                self.unused.setdefault(name[:_LONGEST_NAME])


@dataclass(slots=True)
class PromptFile:
    """The prompts of a file; whoever iterates reads it anew.

    Attributes:
        path: The file.
        ending: What it holds, as the table of this module says.
        columns: What is read of it.
        packaged: Whether it came with this package; then nothing about it is in doubt.
    """

    path: Path
    ending: str = ".jsonl"
    columns: Columns = field(default_factory=Columns)
    packaged: bool = False

    def __iter__(self) -> Iterator[Prompt | Header | BadRow]:
        """Yield what each row holds.

        Raises:
            OSError: The file cannot be read.
        """
        columns, is_first = self.columns, True
        try:
            for row in self._rows():
                if isinstance(row, BadRow):
                    yield row
                elif not isinstance(row[1], dict):
                    yield BadRow(row[0], "not an object")
                elif "_provenance" in row[1] and not {columns.prompt, *_COLUMNS} & row[1].keys():
                    late = BadRow(row[0], "a header must be the first line")
                    yield Header(row[1]) if is_first else late
                else:
                    yield self._prompt(*row)
                is_first = False
            if columns.read and columns.limit and not columns.limited:
                yield BadRow("", f"no row has {named([columns.limit])}", _COLUMN_REMEDY)
        except _NoColumnError as error:
            yield error.row

    def _rows(self) -> Iterator[Row | BadRow]:
        _, kind, *packed = self.ending.split(".")
        opened = self.path.open("rb") if self.packaged else plain_files.opened(self.path)
        with opened, gzip.open(opened) if packed else opened as file:
            content = cast("BinaryIO", file)
            try:
                if kind == "csv":
                    yield from tables.csv_rows(content, self.columns.choose)
                elif kind == "parquet":
                    yield from tables.parquet_rows(content, self.columns.choose)
                elif kind == "json":
                    yield from tables.json_rows(content, _DECODER)
                else:
                    lines = content if self.packaged else plain_files.lines(content, MAX_ROW_BYTES)
                    for number, line in enumerate(lines, start=1):
                        if line.strip():
                            yield _parsed(number, line)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                yield BadRow("", "its compression is damaged, or cut off", "make it anew")

    def _prompt(self, place: str, row: dict[str, Any]) -> Prompt | BadRow:
        columns = self.columns
        if not columns.read:
            columns.choose(place, list(row), of_all=False)
        name, *limits = columns.read
        if len(row) > 1 and (others := row.keys() - columns.read):
            columns.note(key for key in row if key in others)
        value = row.get(name)
        given = {key: row[key] for key in limits if row.get(key) is not None}
        try:
            limit = _limit(given) if given else None
            columns.limited |= limit is not None
            is_chat = isinstance(value, list) and value and isinstance(value[0], dict)
            if is_chat or name in chats.COLUMNS:
                columns.note(f"{name}.{key}" for key in chats.other_keys(value))
                return Prompt(messages=chats.messages_of(value), max_new_tokens=limit)
            if not isinstance(value, str) or not value:
                what = "is not a string" if value else "is missing" if value is None else "is empty"
                raise UnfitError(f"{named([name])} {what}")
            value.encode()
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair; no tokenizer takes it
            what = f"{named([name])} is not valid Unicode: it has half of a surrogate pair"
            return BadRow(place, what)
        except UnfitError as error:
            remedy = chats.REMEDY if name in chats.COLUMNS else ""
            return BadRow(place, str(error), remedy)
        return Prompt(text=value, max_new_tokens=limit)


def written(prompt: Prompt) -> bytes:
    r"""Give a prompt as one line of JSONL, the line that hashes are taken over.

    Keys in the order ``prompt``, ``messages`` or ``token_ids``, then ``max_new_tokens`` where it
    has a value of its own; no white space between them, UTF-8 without escapes, ``\n`` at the end.
    """
    content: dict[str, Any] = {"prompt": prompt.text}
    if prompt.token_ids is not None:
        content = {"token_ids": prompt.token_ids}
    elif prompt.messages is not None:
        content = {"messages": [message._asdict() for message in prompt.messages]}
    if prompt.max_new_tokens is not None:
        content["max_new_tokens"] = prompt.max_new_tokens
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def read_dataset(file: PromptFile, name: str, n: int | None) -> Dataset:
    """Read the first prompts of a file; size and hash are of all of them.

    Args:
        file: The file.
        name: What the configuration calls it.
        n: Prompts to keep; ``None`` for those there are, up to :data:`MOST_PROMPTS`.

    Raises:
        PreFlightError: The file cannot be read, has bad rows, or fewer than ``n`` prompts.
    """
    prompts, bad, size = list[Prompt](), list[Problem](), 0
    digest, provenance = hashlib.sha256(), dict[str, Any]()
    most = MOST_PROMPTS if n is None else n
    remedy = _ROW_REMEDY if ".json" in file.ending else _CELL_REMEDY
    try:
        for row in file:
            if isinstance(row, Prompt):
                digest.update(written(row))
                size += 1
                if size <= most:
                    prompts.append(row)
            elif isinstance(row, Header):
                provenance = row.content
            else:
                where = f"{name}, {row.place}" if row.place else name
                bad.append(Problem(row.reason, where, row.remedy or remedy))
                if len(bad) == MAX_BAD_ROWS:
                    break
    except OSError as error:
        raise PreFlightError([_unreadable(name, error)]) from None
    if not (size or bad):
        bad = [Problem("it holds no prompts", name, remedy)]
    if bad or (n is not None and n > size):
        raise PreFlightError(bad or too_few(name, size, n))
    columns = file.columns
    unused = tuple(columns.unused)
    digits = digest.hexdigest()
    return Dataset(name, tuple(prompts), size, digits, provenance, columns.prompt, unused)


def too_few(name: str, size: int, n: int | None) -> list[Problem]:
    """Say that a dataset has fewer prompts than asked for, where that is so."""
    if n is None or n <= size:
        return []
    return [Problem(f"{n:,} prompts asked for, {name} has {size:,}", "n", f"set n: {size} or less")]


def named(names: Iterable[str]) -> str:
    """Name a few columns, whatever is in their names; the file may not be what it was taken for."""
    every = list(names)
    told = [f"'{shown(name)}'" for name in every[:_MOST_NAMED]]
    more = [f"{len(every) - _MOST_NAMED:,} more"] if len(every) > _MOST_NAMED else []
    return ", ".join([*told, *more])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedKeyError(f"{named([twice])} is given twice")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _parsed(number: int, line: bytes) -> Row | BadRow:
    """Read a line of JSON; some editors put a byte-order mark before the first."""
    place = f"line {number}"
    try:
        return place, _DECODER.decode(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        return BadRow(place, tables.NOT_UTF8)
    except json.JSONDecodeError as error:
        return BadRow(place, f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:
        return BadRow(place, tables.unreadable(error))


def _limit(given: Mapping[str, Any]) -> int | None:
    """Give what a row says its answer is cut at.

    Raises:
        UnfitError: It is no such number, or two columns say two numbers.
    """
    found: dict[str, int] = {}
    for name, value in given.items():
        if isinstance(value, float) and math.isnan(value):  # how pandas writes that there is none
            continue
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if type(whole) is not int or not 0 < whole <= MOST_NEW_TOKENS:
            raise UnfitError(f"{named([name])} is not a positive integer up to {MOST_NEW_TOKENS:,}")
        found[name] = whole
    if len(set(found.values())) > 1:
        told = " and ".join(f"{named([name])} is {value}" for name, value in found.items())
        raise UnfitError(f"{told}; an answer is cut at one number of tokens")
    return next(iter(found.values()), None)


def _unreadable(name: str, error: OSError) -> Problem:
    remedy = (
        "give the path of a file of prompts that exists; a path in YAML is taken from its folder"
    )
    if error.errno == errno.EFBIG:  # of a line
        remedy = "leave that line out, or give each row a line of its own"
    return Problem(f"cannot read {name}: {error.strerror or error}", "dataset", remedy)
