"""The parts of ``llem config`` about backends: where each runs, and what every place has."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.registry import backend_names
from llenergymeasure.config.user_config import EffectiveSettings, default_path
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.inventory import BackendState, Inventory
from llenergymeasure.report.text import beside, command, setting

if TYPE_CHECKING:
    from llenergymeasure.study.runners.protocol import Runner

# Runners are imported once another place is asked, so that a machine without one is shown quickly.
_MAKE_RUNNER = "llenergymeasure.study.runners.pool:make_runner"
_HERE = ("local", f"python:{sys.executable}")
_NAME = 16


def named(origin: str) -> str:
    """Name where a setting came from; the user's own file, which is named above, by its name."""
    return default_path().name if origin == str(default_path()) else origin


def runner_rows(settings: EffectiveSettings) -> Iterator[str]:
    """Say of every backend where it runs, and who says so."""
    for name in backend_names():
        origin = settings.origins.get(f"runners.{name}", "default")
        yield from setting(name, settings.config.runner(name), named(origin), _NAME)


def other_places(settings: EffectiveSettings) -> dict[str, list[str]]:
    """Find the runners that are not this interpreter, each with its backends."""
    places: dict[str, list[str]] = {}
    for name in backend_names():
        runner = settings.config.runner(name)
        if runner not in _HERE:
            places.setdefault(runner, []).append(name)
    return places


def rows_of_this_interpreter() -> Iterator[str]:
    """Say of every backend whether this interpreter has it."""
    for state in inventory.take().backends:
        yield from _row(state)


def rows_of(place: str, backends: Sequence[str]) -> Iterator[str]:
    """Say what another place has of the backends that run there, and what else it has.

    Args:
        place: A runner, which is asked.
        backends: The backends that run there.
    """
    runner: Runner = load_object(_MAKE_RUNNER)(place, backends[0])
    with closing(runner):
        found = runner.inventory()
    if isinstance(found, Problem):
        yield from _unusable(found, backends)
    else:
        yield from _usable(found, backends)


def _unusable(problem: Problem, backends: Sequence[str]) -> Iterator[str]:
    first, *others = backends
    yield from beside(_head(first, "no"), problem.what)
    yield from _remedy(problem)
    for name in others:
        yield from beside(_head(name, "no"), f"as {first}")


def _usable(found: Inventory, backends: Sequence[str]) -> Iterator[str]:
    states = {state.name: state for state in found.backends}
    for name in backends:
        if name in states:
            yield from _row(states[name])
        else:
            what = f"no package there adds a backend '{name}'"
            yield from beside(_head(name, "no"), what, "install the one that adds it here")
    for state in found.backends:
        if state.name not in backends and state.package and state.problem is None:
            yield from _row(state)


def _row(state: BackendState) -> Iterator[str]:
    place = [f"in {state.folder}"] if state.folder else []
    if state.problem is not None:
        yield from beside(_head(state.name, "no"), state.problem.what, *place)
        yield from _remedy(state.problem)
    else:
        packages = ((state.package, state.version), *state.also)
        versions = ", ".join(f"{name} {version}" for name, version in packages)
        yield from beside(
            _head(state.name, "yes"), versions if state.package else "built in", *place
        )


def _remedy(problem: Problem) -> Iterator[str]:
    """Give what mends it: a line of pip in one piece, so that it can be copied."""
    is_a_line = problem.remedy.startswith("pip ") or " -m pip " in problem.remedy
    return command(problem.remedy) if is_a_line else beside("", problem.remedy)


def _head(name: str, answer: str) -> str:
    return f"{name:11} {answer:3}"
