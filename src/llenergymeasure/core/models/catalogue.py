"""Architectures that ship with the package: the published ``config.json`` figures, by name."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from llenergymeasure.config.base import nearest
from llenergymeasure.exceptions import ConfigError

_FOLDER = files("llenergymeasure.core.models") / "catalogue"
_SOURCE_KEY = "_source"


def names() -> list[str]:
    """List the names that ``random:`` accepts, in alphabetical order."""
    entries = (entry.name for entry in _FOLDER.iterdir())
    return sorted(name.removesuffix(".json") for name in entries if name.endswith(".json"))


def config(name: str) -> dict[str, Any]:
    """Give the ``config.json`` of an architecture.

    Raises:
        ConfigError: No such architecture; the message gives the nearest name, or all of them.
    """
    return {key: value for key, value in _entry(name).items() if key != _SOURCE_KEY}


def provenance(name: str) -> dict[str, Any]:
    """Say where the figures of an architecture come from.

    Raises:
        ConfigError: No such architecture.
    """
    found: dict[str, Any] = _entry(name)[_SOURCE_KEY]
    return found


def _entry(name: str) -> dict[str, Any]:
    known = names()
    if name not in known:
        raise ConfigError(f"unknown architecture '{name}', {nearest(name, known)}", where="model")
    entry: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return entry
