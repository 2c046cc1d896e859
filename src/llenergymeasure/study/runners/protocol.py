"""What a runner offers: it starts the worker entry on a directory, and can end it.

The worker itself is always the same (:mod:`llenergymeasure.orchestration.worker`); it speaks
through the files of its directory. A runner is only how it gets started, and where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import Start, WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory

WORKER = "llenergymeasure.orchestration.worker"
"""The module that every worker runs."""


class Job(Protocol):
    """One worker that was started."""

    @property
    def start(self) -> Start:
        """How it was started."""
        ...

    @property
    def fate(self) -> str | None:
        """What befell it that its exit code does not tell, such as the end of its server."""
        ...

    def wait(self, timeout_s: float) -> int | None:
        """Sleep until the worker ends, but no longer than ``timeout_s``, without polling.

        Returns:
            The exit code, negative for the signal that killed it; ``None`` while it runs.
        """
        ...

    def interrupt(self) -> None:
        """Ask it to end in good order, as Ctrl-C does; harmless once it has ended."""
        ...

    def kill(self) -> None:
        """Kill it and every process that it started; they are gone on return."""
        ...


class Runner(Protocol):
    """Where the experiments of one backend execute. Used by one thread at a time.

    Devices are kept apart by locks of one host (:mod:`llenergymeasure.locks`): a runner that starts
    workers on another has to keep them apart itself.
    """

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments there: first the place itself, then each backend.

        Runs pre-flight in the place where the experiments will run; loads no weights.
        """
        ...

    def start(self, directory: ExperimentDirectory) -> Job:
        """Start the worker on a directory that holds ``config.json``.

        Raises:
            ExperimentError: It cannot be started; says why and what to do.
        """
        ...

    def inventory(self) -> Inventory | Problem:
        """List the backends of the place, with remedies that mend them there; starts no worker.

        Returns:
            What the place has, or why it cannot be used at all.
        """
        ...

    def close(self) -> None:
        """Let go of what is kept between experiments; no process is left."""
        ...
