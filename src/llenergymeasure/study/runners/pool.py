"""The runners of a study: one for each place and backend, made when it is first needed."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from llenergymeasure import temporary
from llenergymeasure.config.plugins import missing
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.config.study import StartMethod
from llenergymeasure.config.user_config import default_path
from llenergymeasure.exceptions import PreFlightError, Problem, in_order
from llenergymeasure.orchestration import preflight
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.study.runners.docker import DockerRunner
from llenergymeasure.study.runners.local import InterpreterRunner
from llenergymeasure.study.runners.protocol import Runner


def make_runner(runner: str, backend: str, start_method: StartMethod = "auto") -> Runner:
    """Make what starts the experiments of a backend.

    Args:
        runner: ``local``, ``python:<interpreter>`` or ``docker:<image>``.
        backend: Name of the backend.
        start_method: How processes are started, where the runner starts any.
    """
    kind, _, place = runner.partition(":")
    if kind == "docker":
        return DockerRunner(place, backend)
    return InterpreterRunner(backend, place or sys.executable, start_method)


class RunnerPool:
    """Keeps runners between experiments, and lets go of them all at the end.

    Args:
        start_method: How processes are started, where a runner starts any.
    """

    def __init__(self, start_method: StartMethod) -> None:
        self._start_method: StartMethod = start_method
        self._runners: dict[tuple[str, str], Runner] = {}

    def of(self, order: WorkOrder) -> Runner:
        """Give the runner of an experiment."""
        key = (order.runner, order.config.backend)
        if key not in self._runners:
            self._runners[key] = make_runner(*key, self._start_method)
        return self._runners[key]

    def check(self, orders: Sequence[WorkOrder]) -> None:
        """Look for every problem of some experiments, each in the place where it will run.

        Raises:
            PreFlightError: There are some.
        """
        if problems := self.problems(orders):
            raise PreFlightError(problems)

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments, each in its place; equal problems once, by kind."""
        places: dict[tuple[str, str], list[WorkOrder]] = {}
        for order in orders:
            places.setdefault((order.runner, order.config.backend), []).append(order)
        found: list[Problem] = []
        for (_, backend), group in places.items():
            there = self.of(group[0]).problems(group)
            found += there
            if any(problem.where == f"runners.{backend}" for problem in there):
                found += preflight.input_problems(group)  # what can be told from here
        return in_order(with_runner_lines(found, places))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runners, self._runners = list(self._runners.values()), {}
        for runner in runners:
            runner.close()
        temporary.sweep()  # workers that were killed leave folders


def with_runner_lines(
    problems: Iterable[Problem], places: Collection[tuple[str, str]]
) -> Iterator[Problem]:
    """Add to an engine that is missing here the line of settings that lets it run elsewhere.

    Engines of one study may need versions of torch that no interpreter holds together; where there
    is but one engine, installing it is what helps.

    Args:
        problems: What stops a study.
        places: Runner and backend of each of its experiments.
    """
    mixed = len({backend for _, backend in places}) > 1
    here = [backend for runner, backend in places if mixed and runner == "local"]
    absent = {missing(backend_entry(backend), "backend"): backend for backend in here}
    for each in problems:
        problem, backend = each, absent.get(each)
        if backend:
            line = f'runners: {{{backend}: "python:/path/to/venv/bin/python"}}'
            remedy = (
                f"{problem.remedy}\n    or, where one interpreter cannot hold all engines, add to "
                f"{default_path()}:\n    {line}"
            )
            problem = replace(problem, remedy=remedy)
        yield problem
