"""What ``llem --version`` prints."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from llenergymeasure.config.registry import BACKENDS

_METERS = ("codecarbon", "zeus")


def versions(own: str) -> str:
    """List this package, the interpreter and the engines that are installed, a line each."""
    rows = [("llenergymeasure", own), ("python", platform.python_version())]
    engines = [name for facts in BACKENDS.values() for name in facts.distributions]
    rows += [(name, _installed(name)) for name in (*engines, *_METERS)]
    return "\n".join(f"{name:16} {number}" for name, number in rows)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
