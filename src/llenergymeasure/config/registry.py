"""Inference backends by name, built in or of other packages; resolved only when one is used."""

from __future__ import annotations

from functools import cache

from llenergymeasure.config.backend_facts import BackendFacts
from llenergymeasure.config.base import nearest
from llenergymeasure.config.plugins import load_object, offered
from llenergymeasure.exceptions import ConfigError, shortened

BACKEND_ENTRY_POINTS = "llenergymeasure.backends"

BackendEntry = BackendFacts
"""The name by which packages that were written for version 2.0 know it."""

BACKENDS: dict[str, BackendFacts] = {
    name: load_object(f"llenergymeasure.core.backends.{name}:FACTS")
    for name in ("pytorch", "vllm", "tensorrt", "scripted")
}
"""The backends of this package; each says in its own package what it is, and imports no engine."""


@cache
def plugin_backends() -> dict[str, BackendFacts]:
    """Collect the backends that installed packages add through the entry-point group.

    Raises:
        ConfigError: A package offers something that is no backend.
    """
    return offered(BACKEND_ENTRY_POINTS, BackendFacts, "backend", "backend")


def backend_names() -> list[str]:
    """List every name that ``backend:`` accepts, built-in ones first."""
    return [*BACKENDS, *plugin_backends()]


def all_backends() -> dict[str, BackendFacts]:
    """Give what every backend says about itself, built-in ones first."""
    return {**BACKENDS, **plugin_backends()}


def backend_entry(name: str) -> BackendFacts:
    """Look a backend up by name.

    Raises:
        ConfigError: No such backend; the message lists the valid names.
    """
    entry = BACKENDS.get(name) or plugin_backends().get(name)
    if entry is None:
        raise ConfigError(
            f"unknown backend '{shortened(name)}', {nearest(name, backend_names())} (a backend "
            "that another package adds needs that package installed here)",
            where="backend",
        )
    return entry
