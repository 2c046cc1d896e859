"""Names of plugins and where each lives: one table a family, resolved only when one is used."""

from __future__ import annotations

import importlib.metadata
from functools import cache

from llenergymeasure.config.backend_facts import BackendFacts
from llenergymeasure.config.base import nearest
from llenergymeasure.config.plugins import PluginEntry, load_object
from llenergymeasure.exceptions import ConfigError

BACKEND_ENTRY_POINTS = "llenergymeasure.backends"

BackendEntry = BackendFacts
"""The name by which packages that were written for version 2.0 know it."""

_SOURCES = "llenergymeasure.core.energy"

BACKENDS: dict[str, BackendFacts] = {
    name: load_object(f"llenergymeasure.core.backends.{name}:FACTS")
    for name in ("pytorch", "vllm", "tensorrt", "scripted")
}
"""The backends of this package; each says in its own package what it is, and imports no engine."""

ENERGY_SOURCES: dict[str, PluginEntry] = {
    entry.name: entry
    for entry in (
        PluginEntry(
            name="nvml",
            implementation=f"{_SOURCES}.nvml:NVMLSource",
            package="nvidia-ml-py",
            module="pynvml",
            minimum="12.560",
            install="pip install 'nvidia-ml-py>=12.560'",
        ),
        PluginEntry(
            name="zeus",
            implementation=f"{_SOURCES}.zeus:ZeusSource",
            package="zeus",
            module="zeus",
            minimum="0.13",
            install="pip install 'llenergymeasure[zeus]'",
        ),
        PluginEntry(name="rapl", implementation=f"{_SOURCES}.rapl:RaplSource"),
        PluginEntry(
            name="codecarbon",
            implementation=f"{_SOURCES}.codecarbon:CodeCarbonSource",
            package="codecarbon",
            module="codecarbon",
            minimum="3.0",
            install="pip install 'llenergymeasure[codecarbon]'",
        ),
        PluginEntry(name="none", implementation=f"{_SOURCES}.none:NoSource"),
    )
}


@cache
def plugin_backends() -> dict[str, BackendFacts]:
    """Collect the backends that installed packages add through the entry-point group.

    Raises:
        ConfigError: A package offers something that is no backend.
    """
    found = importlib.metadata.entry_points(group=BACKEND_ENTRY_POINTS)
    return {point.name: _loaded(point) for point in found}


def _loaded(point: importlib.metadata.EntryPoint) -> BackendFacts:
    try:
        entry = point.load()
    except (ImportError, AttributeError) as error:
        raise _broken_plugin(point, str(error)) from error
    if not isinstance(entry, BackendFacts):
        raise _broken_plugin(point, f"it is a {type(entry).__name__}, not BackendFacts")
    return entry


def _broken_plugin(point: importlib.metadata.EntryPoint, reason: str) -> ConfigError:
    package = point.dist.name if point.dist else point.module
    return ConfigError(
        f"the backend '{point.name}' ({point.value}) cannot be used: {reason}; mend or remove the "
        f"package: pip uninstall {package}",
        where="backend",
    )


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
            f"unknown backend '{name}', {nearest(name, backend_names())}; a backend that another "
            "package adds needs that package installed here",
            where="backend",
        )
    return entry
