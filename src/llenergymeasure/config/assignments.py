"""Fields that flags name themselves: ``--set FIELD=VALUE`` and ``--sweep FIELD=VALUE,VALUE``.

Values are read as YAML has them, so that ``1e-3``, ``null`` and ``[1, 2]`` mean what they mean in a
file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from llenergymeasure.config import yaml_file
from llenergymeasure.exceptions import FlagError

SET, SWEEP = "--set", "--sweep"
_EXAMPLES = {SET: "--set window.min_duration_seconds=10", SWEEP: "--sweep pytorch.batch_size=1,2,4"}
_LONGEST = 80


def fields_set(texts: Iterable[str]) -> dict[str, Any]:
    """Read ``FIELD=VALUE``: dotted field to value.

    Raises:
        FlagError: One is no such text, or two set the same field or a part of it.
    """
    return {
        field: yaml_file.value_of(text, f"{SET} {field}") for field, text in _parted(SET, texts)
    }


def fields_swept(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Read ``FIELD=VALUE,VALUE``: dotted field to the list of its values.

    The values are those of a list of YAML, whose brackets may be left out, so a comma inside
    brackets, braces or quotes belongs to its value.

    Raises:
        FlagError: One is no such text, or two set the same field or a part of it.
    """
    swept: dict[str, list[Any]] = {}
    for field, text in _parted(SWEEP, texts):
        values = yaml_file.value_of(f"[{text}]", f"{SWEEP} {field}")
        is_list = len(values) == 1 and isinstance(values[0], list)
        swept[field] = values[0] if is_list else values
    return swept


def _parted(flag: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    seen, sections = set[str](), set[str]()
    for text in texts:
        given, equals, value = text.partition("=")
        field, shown = given.strip(), given[:_LONGEST]
        if not (field and equals) or field.count(".") > yaml_file.MAX_DEPTH:
            raise FlagError(
                f"{flag}: '{shown}' sets no field; write it as {_EXAMPLES[flag]}", where=flag
            )
        if field in seen:
            raise FlagError(f"{flag} {shown} is given twice; leave one out", where=flag)
        around = set(accumulate(field.split("."), "{}.{}".format)) - {field}
        if field in sections or not seen.isdisjoint(around):
            said = f"{flag} {shown} sets all or a part of what another {flag} sets; leave one out"
            raise FlagError(said, where=flag)
        seen.add(field)
        sections |= around
        yield field, value
