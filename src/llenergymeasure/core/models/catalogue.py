"""Architectures that ship with the package: the published ``config.json`` figures, by name."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from llenergymeasure.config.base import nearest
from llenergymeasure.exceptions import ConfigError

FOLDER = files("llenergymeasure.core.models") / "catalogue"
SOURCE = "_source"
"""The entry of each file that says where its figures come from."""


def names() -> list[str]:
    """List the names that ``random:`` accepts, in alphabetical order."""
    entries = (entry.name for entry in FOLDER.iterdir())
    return sorted(name.removesuffix(".json") for name in entries if name.endswith(".json"))


def config(name: str) -> dict[str, Any]:
    """Give the ``config.json`` of an architecture.

    Raises:
        ConfigError: No such architecture; the message gives the nearest name, or all of them.
    """
    known = names()
    if name not in known:
        raise ConfigError(f"unknown architecture '{name}', {nearest(name, known)}", where="model")
    entry: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return {key: value for key, value in entry.items() if key != SOURCE}
