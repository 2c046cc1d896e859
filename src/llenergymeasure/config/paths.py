"""Dotted names of nested settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def put(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a value at a dotted path of nested dicts, making the dicts on the way."""
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = data.get(parent)
        data[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        data = data[parent]
    data[last] = value


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested mappings under its dotted name; an empty mapping is no leaf."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`flatten`."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        put(nested, name, value)
    return nested
