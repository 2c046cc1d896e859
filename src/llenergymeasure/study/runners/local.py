"""Experiments in child processes on this machine, in this interpreter or in another one."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llenergymeasure import temporary
from llenergymeasure.config.study import StartMethod
from llenergymeasure.exceptions import ExperimentError, Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import Start, WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners.elsewhere import (
    PREFLIGHT_WITHIN_S,
    other_interpreter,
    problems_there,
    typed_for,
)
from llenergymeasure.study.runners.protocol import WORKER
from llenergymeasure.study.runners.server_process import (
    ForkRefusedError,
    ServedJob,
    ServerLostError,
    ServerProcess,
)

_PIP = re.compile(r"(?<!-m )\bpip (?=(?:un)?install )")


class InterpreterRunner:
    """Starts each worker in a fresh process, forked where that works and spawned elsewhere.

    ``auto`` and ``forkserver`` fork; where a child could not work, the worker is spawned, and its
    result says why.

    Args:
        backend: What the fork server imports once for all experiments.
        interpreter: The Python that runs them; it needs this version of the package.
        start_method: ``auto``, ``spawn`` or ``forkserver``, as in ``execution.start_method``.
        preflight_within_s: Longest time for looking for problems, s.
    """

    def __init__(
        self,
        backend: str,
        interpreter: str = sys.executable,
        start_method: StartMethod = "auto",
        preflight_within_s: float = PREFLIGHT_WITHIN_S,
    ) -> None:
        self._backend, self._interpreter = backend, interpreter
        self._where, self._is_own = f"runners.{backend}", interpreter == sys.executable
        self._forks, self._preflight_within_s = start_method != "spawn", preflight_within_s
        self._reason: str | None = None
        self._servers: dict[str, ServerProcess] = {}  # by method

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments there: first the interpreter, then each experiment."""
        other = other_interpreter(self._interpreter, self._where)
        if not self._is_own and (problem := other.version_problem()):
            return [problem]
        with temporary.folder("preflight") as folder:
            within_s = self._preflight_within_s
            try:
                found = problems_there(self._start, orders, folder, self._where, within_s)
            except OSError as error:
                remedy = "make room there, or let TMPDIR name a directory on another disk"
                return [Problem(f"cannot write to {folder}: {error.strerror}", "TMPDIR", remedy)]
        if self._is_own:
            return found
        command = f"{shlex.quote(self._interpreter)} -m pip "
        return [replace(one, remedy=_PIP.sub(lambda _: command, one.remedy)) for one in found]

    def start(self, directory: ExperimentDirectory) -> ServedJob:
        """Start the worker on a directory that holds ``config.json``.

        Raises:
            ExperimentError: No process can be started.
        """
        root = str(directory.root.absolute())
        return self._start(WORKER, (root,), directory.log.absolute())

    def inventory(self) -> Inventory | Problem:
        """List the backends of the interpreter, or say why it cannot be used.

        Raises:
            ConfigError: A plugin of this very interpreter is broken.
        """
        if self._is_own:
            return inventory.take()
        other = other_interpreter(self._interpreter, self._where)
        return other.inventory(lambda _, remedy: typed_for(self._interpreter, remedy))

    def _start(self, module: str, arguments: tuple[str, ...], log: Path) -> ServedJob:
        """Start a module in a worker: forked, or spawned where that is of no use, noting why."""
        try:
            if self._forks:
                try:
                    return self._served(Start("fork"), module, arguments, log)
                except (ForkRefusedError, ServerLostError) as error:
                    self._forks, self._reason = False, str(error)
                    if (server := self._servers.pop("fork", None)) is not None:
                        server.close()
            return self._served(Start("spawn", self._reason), module, arguments, log)
        except ServerLostError as lost:
            raise ExperimentError(
                f"no process can be started for the experiment: {lost}; look for a limit on "
                "processes (ulimit -u) or on memory",
                where="start",
                cause=str(lost),
            ) from None
        except KeyboardInterrupt:
            self.close()  # a worker may have started that nobody holds
            raise

    def _served(
        self, start: Start, module: str, arguments: tuple[str, ...], log: Path
    ) -> ServedJob:
        """Have a server start a worker; one that is lost is replaced once."""
        method, lost = start.method, ServerLostError()
        backend = self._backend if method == "fork" else None
        for _ in range(2):
            try:
                server = self._servers.get(method) or ServerProcess(self._interpreter, backend)
                self._servers[method] = server
                return server.start(start, module, arguments, log)
            except ServerLostError as error:
                self._servers.pop(method, None)
                lost = error
        raise lost

    def close(self) -> None:
        """End the servers; no process is left."""
        servers, self._servers = self._servers, {}
        for server in servers.values():
            server.close()
