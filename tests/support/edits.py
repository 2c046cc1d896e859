"""What can happen to a file of JSON between two looks at it: by a hand, a program, or a disk."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.results.files import SEAL, checksum
from tests.support.samples import cuts

Place = tuple[str | int, ...]


class Edit(NamedTuple):
    """One change of a file.

    Attributes:
        kind: What was done.
        place: Where, dotted.
        text: What the file then holds.
    """

    kind: str
    place: str
    text: str


class Counts(Counter[str]):
    """How edits were taken: ``noticed``, ``harmless`` (it says the same), or ``believed``."""

    def __str__(self) -> str:
        return ", ".join(f"{self[word]:,} {word}" for word in ("noticed", "harmless", "believed"))


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file on purpose, and seal it anew."""
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    data[SEAL] = checksum(data)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def unsealed(path: Path, change: Callable[[dict[str, Any]], object], schema: str) -> None:
    """Change a file as a version wrote it that knew no checksums."""
    data = json.loads(path.read_text(encoding="utf-8"))
    del data[SEAL]
    data.pop("earlier_rules", None)
    data["schema_version"] = schema
    change(data)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


VALUES: dict[str, Callable[[Any], Any]] = {
    "text in place of a number": str,
    "ten times as much": lambda value: value * 10,
    "negative": lambda value: -value,
    "one more": lambda value: value + 1,
    "true in place of a number": lambda _: True,
    "null": lambda _: None,
    "10^30": lambda _: 10**30,
    "1e308": lambda _: 1e308,
    "10^400": lambda _: 10**400,
    "another word": lambda value: f"{value}x",
    "empty": lambda value: type(value)(),
    "the other truth": lambda value: not value,
}
_OF: dict[type, tuple[str, ...]] = {
    bool: ("the other truth", "null"),
    int: tuple(VALUES)[:9],
    float: tuple(VALUES)[:9],
    str: ("another word", "empty", "null"),
    list: ("empty", "null"),
    dict: ("empty", "null"),
    type(None): ("true in place of a number", "1e308"),
}


def edits(data: dict[str, Any]) -> Iterator[Edit]:
    """Yield every change of every part of a file, one at a time."""
    for place, value in _parts(data, ()):
        for kind in _OF[type(value)]:
            other = VALUES[kind](value)
            if json.dumps(other) != json.dumps(value):  # ten times nought is nought
                yield _edit(data, kind, place, other)
        yield _edit(data, "removed", place, REMOVED)
        if isinstance(place[-1], str):
            yield _edit(data, "renamed", place, RENAMED)
            yield _edit(data, "said twice", place, TWICE)
        if isinstance(value, list) and value:
            yield _edit(data, "last entry twice", place, [*value, value[-1]])


REMOVED, RENAMED, TWICE = object(), object(), object()
_MARK = "to be said twice"


def _parts(data: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    if place:
        yield place, data
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from _parts(value, (*place, key))


def _edit(data: dict[str, Any], kind: str, place: Place, value: Any) -> Edit:
    changed = copy.deepcopy(data)
    inner: Any = changed
    for key in place[:-1]:
        inner = inner[key]
    key = place[-1]
    if value is REMOVED:
        del inner[key]
    elif value is RENAMED:
        inner[f"{key}_"] = inner.pop(key)
    elif value is TWICE:
        inner[_MARK] = _other(inner[key])
    else:
        inner[key] = value
    text = json.dumps(changed, indent=2)
    return Edit(kind, ".".join(map(str, place)), text.replace(f'"{_MARK}"', json.dumps(key)) + "\n")


def _other(value: Any) -> Any:
    """Give another value of the same kind, so that saying a thing twice says two things."""
    return value + 1 if isinstance(value, int | float) else value


def other_digits(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each place of a digit, and the file with another digit there."""
    for place, byte in enumerate(content):
        if chr(byte).isdigit():
            other = str((int(chr(byte)) + 1) % 10).encode()
            yield place, content[:place] + other + content[place + 1 :]


def other_bytes(content: bytes, most: int) -> Iterator[bytes]:
    """Yield the file with one bit of one byte turned round, at ``most`` places spread over it."""
    for place in cuts(len(content), most):
        turned = bytes([content[place] ^ (1 << place % 8)])
        yield content[:place] + turned + content[place + 1 :]
