"""Settings of a configuration in a few words, e.g. ``bf16 batch_size=8``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llenergymeasure.config.paths import flatten
from llenergymeasure.config.registry import all_backends

# Their values say by themselves what they are of.
_BARE = ("model", "backend", "precision", "dataset", "decoder.decoding_strategy")
_FIRST = ("model", "backend", "precision")


def described(settings: Mapping[str, Any]) -> str:
    """Write settings, nested or with dotted names, on one line: ``pytorch bf16 batch_size=8``."""
    flat = dict(flatten(settings))
    return " ".join(_word(name, flat[name]) for name in ordered(flat))


def ordered(names: Iterable[str]) -> list[str]:
    """Put the names that everybody asks for first; the others stay in their order."""
    given = list(names)
    return [*(name for name in _FIRST if name in given), *(n for n in given if n not in _FIRST)]


def _word(name: str, value: Any) -> str:
    section, _, field = name.rpartition(".")
    facts = all_backends().get(section)
    if isinstance(value, str) and (name in _BARE or (facts and field in facts.plain_fields)):
        return value
    return f"{field}={_plain(value)}"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
