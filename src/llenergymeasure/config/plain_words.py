"""What a validation error says, in the words of someone who writes YAML."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from llenergymeasure.config.base import COMBINATION, MOST_PROBLEMS
from llenergymeasure.exceptions import first_few, shortened

_WORDS = {
    "missing": "this field is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text; put the value in quotes",
    "string_too_short": "must not be empty",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a section, with fields of its own",
    "model_type": "must be a section, with fields of its own",
}
_PHRASES = (
    (r"^(Input|String|Value) should ", "must "),
    (r"greater than or equal to (\S+)", r"\1 or more"),
    (r"less than or equal to (\S+)", r"\1 or less"),
    (r"greater than (\S+)", r"more than \1"),
    (r"must have at (least|most) (\d+) (item|character)", r"must have at \1 \2 \3"),
)
# The unions here are of text and a section; Pydantic puts the name of the branch into the path.
_TEXT, _SECTION = "str", "function-wrap["


class PlainProblem(NamedTuple):
    """One problem.

    Attributes:
        loc: Path of the field it is about.
        message: What is wrong.
        is_value: Whether the value is wrong whatever the rest of the configuration says.
    """

    loc: tuple[str, ...]
    message: str
    is_value: bool = True


def plain_problems(error: ValidationError, data: Any) -> Iterator[PlainProblem]:
    """Yield the problems of a validation error in plain words.

    Args:
        error: What Pydantic raised.
        data: What was validated.
    """
    lines = error.errors()
    meant = [line for line in lines if _is_meant(_parts(line), data)]
    for line in meant or lines:
        loc = tuple(part for part in _parts(line) if not _is_branch(part))
        message = line["msg"]
        for pattern, replacement in _PHRASES:
            message = re.sub(pattern, replacement, message)
        message = _WORDS.get(line["type"], message)
        yield PlainProblem(loc, message, is_value=line["type"] != COMBINATION)


def as_yaml(value: Any) -> str:
    """Write a single value as it would stand in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown(value: object, most: int = 40) -> str:
    """Quote what somebody else wrote: its beginning, in one line, without control characters.

    Args:
        value: A text, or anything that was read from a file.
        most: Characters of it that are shown.
    """
    text = value if isinstance(value, str) else reprlib.repr(value)
    kept = shortened(text, most)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept)


def listed(problems: Sequence[str]) -> str:
    """Put several problems under one another, as far as there is room; one stays as it is."""
    if len(problems) == 1:
        return problems[0]
    number = f"{'at least ' if len(problems) == MOST_PROBLEMS else ''}{len(problems):,}"
    return "\n".join([f"{number} problems:", *(f"  - {one}" for one in first_few(problems))])


def _parts(line: Any) -> tuple[str, ...]:
    return tuple(str(part) for part in line["loc"])


def _is_branch(part: str) -> bool:
    return part == _TEXT or part.startswith(_SECTION)


def _is_meant(parts: tuple[str, ...], data: Any) -> bool:
    """Tell whether a problem belongs to the branch of a union that its value looks like."""
    for position, part in enumerate(parts):
        if _is_branch(part):
            is_section = isinstance(_at(data, parts[:position]), Mapping)
            return is_section == part.startswith(_SECTION)
    return True


def _at(data: Any, loc: tuple[str, ...]) -> Any:
    for part in loc:
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, Sequence) and not isinstance(data, str) and part.isdigit():
            data = data[int(part)]
    return data
