"""What a plugin needs to be used, and whether it is here; nothing heavy is imported to tell."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from llenergymeasure.exceptions import ConfigError, Problem

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """One row of a plugin table.

    Attributes:
        name: What a configuration calls it.
        implementation: ``"module:Class"``.
        package: The distribution it needs, or ``None``.
        module: The import name of that distribution.
        minimum: The oldest version of it that works.
        install: The line that installs it.
        alternatives: Other distributions of the same module that do as well.
        also: Further distributions it needs, each with a module of the same name.
        companions: Further distributions that decide what it computes, recorded with each result.
    """

    name: str
    implementation: str
    package: str | None = None
    module: str | None = None
    minimum: str | None = None
    install: str = ""
    alternatives: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()

    @property
    def distributions(self) -> tuple[str, ...]:
        """Every distribution that decides what it computes, by its normalised name."""
        engine = () if self.package is None else (self.package,)
        return (*self.also, *engine, *self.companions, *self.alternatives)


class InstalledPackage(NamedTuple):
    """A distribution that is installed."""

    name: str
    version: str


def load_object(path: str) -> Any:
    """Import what ``"module:name"`` points at."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def offered(group: str, kind: type[T], what: str, where: str) -> dict[str, T]:
    """Collect what installed packages offer through an entry-point group, by name.

    Args:
        group: The group.
        kind: What they are to offer.
        what: What that is called.
        where: The setting that names one.

    Raises:
        ConfigError: A package offers something else.
    """
    from importlib import metadata  # help names no plugin, and this takes a moment

    def loaded(point: EntryPoint) -> T:
        try:
            entry = point.load()
        except (ImportError, AttributeError) as error:
            raise broken(point, str(error)) from error
        if not isinstance(entry, kind):
            raise broken(point, f"it is a {type(entry).__name__}, not {kind.__name__}")
        return entry

    def broken(point: EntryPoint, reason: str) -> ConfigError:
        package = point.dist.name if point.dist else point.module
        return ConfigError(
            f"the {what} '{point.name}' ({point.value}) cannot be used: {reason}; mend or remove "
            f"the package: pip uninstall {package}",
            where=where,
        )

    return {point.name: loaded(point) for point in metadata.entry_points(group=group)}


def installed_version(entry: PluginEntry) -> str | None:
    """Read the version of the package behind an entry, without importing it."""
    found = installed_package(entry)
    return None if found is None else found.version


def installed_package(entry: PluginEntry) -> InstalledPackage | None:
    """Find the distribution behind an entry, or one of its alternatives."""
    from importlib import metadata

    if entry.package is None:
        return None
    for name in (entry.package, *entry.alternatives):
        try:
            return InstalledPackage(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return None


def missing(entry: PluginEntry, field: str) -> Problem | None:
    """Say why an entry cannot be used here, or ``None`` when it can.

    Looks at installed metadata only; nothing heavy is imported.
    """
    if entry.package is None or entry.module is None:
        return None
    found = installed_package(entry)
    if found is None or not _importable(entry.module):
        return _not_installed(entry, entry.package, field)
    if entry.minimum and _is_older(found.version, entry.minimum):
        substitute = found.name in entry.alternatives
        return Problem(
            f"'{entry.name}' needs {found.name} {entry.minimum} or newer, found {found.version}",
            field,
            f"{f'pip install {found.name}' if substitute else entry.install} --upgrade",
        )
    absent = [name for name in entry.also if not _importable(name)]
    return _not_installed(entry, absent[0], field) if absent else None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # some finders say so by raising
        return False


def _not_installed(entry: PluginEntry, package: str, field: str) -> Problem:
    what = f"'{entry.name}' needs the package {package}, which is not installed"
    return Problem(what, field, entry.install)


def _is_older(version: str, minimum: str) -> bool:
    """Compare release numbers, and release candidates only where the minimum is one."""
    if _numbers(version) != _numbers(minimum):
        return _numbers(version) < _numbers(minimum)
    candidates = [re.search(r"rc(\d+)", each) for each in (version, minimum)]
    has, least = (int(each[1]) if each else None for each in candidates)
    return has is not None and least is not None and has < least


def _numbers(version: str) -> tuple[int, ...]:
    """Take the release numbers of a version, without the zeros at their end."""
    release = re.match(r"\d+(\.\d+)*", version)
    parts = release[0].split(".") if release else []
    while parts and not int(parts[-1]):
        parts.pop()
    return tuple(map(int, parts))
