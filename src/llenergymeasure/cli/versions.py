"""What ``llem --version`` prints."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from llenergymeasure.config.energy_sources import ENERGY_SOURCES
from llenergymeasure.config.registry import BACKENDS


def versions(own: str) -> str:
    """List this package, the interpreter and the engines that are installed, a line each."""
    rows = [("llenergymeasure", own), ("python", platform.python_version())]
    meters = [facts.package for facts in ENERGY_SOURCES.values() if facts.package]
    engines = [name for facts in BACKENDS.values() for name in facts.distributions]
    rows += [(name, _installed(name)) for name in (*engines, *meters)]
    return "\n".join(f"{name:16} {number}" for name, number in rows)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
