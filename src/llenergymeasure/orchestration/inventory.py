"""Which backends an interpreter has, of which version, and what the others lack.

``python -m llenergymeasure.orchestration.inventory`` prints that of its own interpreter as JSON.
Only what is known of installed packages is read; no engine is imported.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from llenergymeasure._version import __version__
from llenergymeasure.config.backend_facts import BackendFacts
from llenergymeasure.config.plugins import InstalledPackage, installed_package, missing
from llenergymeasure.config.registry import (
    BACKEND_ENTRY_POINTS,
    BACKENDS,
    plugin_backends,
)
from llenergymeasure.domain import Record
from llenergymeasure.exceptions import LLEMError, Problem

MODULE = "llenergymeasure.orchestration.inventory"


class BackendState(Record):
    """One backend in one interpreter."""

    name: str = Field(description="What a configuration calls it.")
    package: str | None = Field(description="The distribution behind it; null for a built-in one.")
    version: str | None = Field(description="Installed version of the package, or null.")
    also: tuple[InstalledPackage, ...] = Field((), description="What else it needs and is there.")
    folder: str | None = Field(description="Where its module was found, or null.")
    problem: Problem | None = Field(description="Why it cannot be used there, or null.")


class Inventory(Record):
    """The backends of one interpreter."""

    llenergymeasure_version: str = Field(description="Version of this package there.")
    backends: tuple[BackendState, ...] = Field(description="Built-in ones first, then plugins.")

    def with_remedies(self, remedy: Callable[[str, str], str]) -> Inventory:
        """Put every remedy into the words of another place.

        Args:
            remedy: Makes a remedy of the name of a backend and its remedy in that interpreter.
        """
        states = []
        for state in self.backends:
            problem = state.problem
            if problem is not None:
                said = remedy(state.name, problem.remedy)
                problem = Problem(problem.what, problem.where, said)
            states.append(state.model_copy(update={"problem": problem}))
        return self.model_copy(update={"backends": tuple(states)})


def take() -> Inventory:
    """List the backends of this interpreter.

    Raises:
        ConfigError: A package offers something that is no backend.
    """
    entries = (*BACKENDS.values(), *plugin_backends().values())
    return Inventory(
        llenergymeasure_version=__version__, backends=tuple(_state(entry) for entry in entries)
    )


def _state(entry: BackendFacts) -> BackendState:
    found, also = installed_package(entry), []
    if found is None and entry.package is None:  # a plugin that needs no other distribution
        points = importlib.metadata.entry_points(group=BACKEND_ENTRY_POINTS, name=entry.name)
        added = (InstalledPackage(one.dist.name, one.dist.version) for one in points if one.dist)
        found = next(added, None)
    for name in entry.also:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            also.append(InstalledPackage(name, importlib.metadata.version(name)))
    return BackendState(
        name=entry.name,
        package=found.name if found else entry.package,
        version=found.version if found else None,
        also=tuple(also),
        folder=_folder(entry.module or entry.implementation) if found else None,
        problem=missing(entry, "backend"),
    )


def _folder(module: str) -> str | None:
    """Find the folder that a package or module would be imported from."""
    spec = importlib.util.find_spec(module.partition(":")[0].partition(".")[0])
    if spec is None:
        return None
    found = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    return str(Path(found[0]).parent) if found else None


def main() -> int:
    """Run as a process of its own; 1 where a plugin is broken."""
    try:
        text = take().model_dump_json()
    except LLEMError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
