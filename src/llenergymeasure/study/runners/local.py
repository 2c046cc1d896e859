"""Experiments in child processes on this machine, in this interpreter or in another one."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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
    ServerLostError,
    ServerProcess,
    Task,
)

_PIP = re.compile(r"(?<!-m )\bpip (?=(?:un)?install )")


class ServedJob:
    """A worker that a fork server started; see the protocol for the contract."""

    def __init__(self, server: ServerProcess, number: int, start: Start) -> None:
        self._server, self._number, self._start = server, number, start
        self._code: int | None = None

    @property
    def start(self) -> Start:
        """How it was started."""
        return self._start

    def wait(self, timeout_s: float) -> int | None:
        """Sleep until the worker ends, but no longer than ``timeout_s``, without polling."""
        if self._code is None:
            self._code = self._server.wait(timeout_s)
        return self._code

    def interrupt(self) -> None:
        """Send the worker SIGINT; harmless once it has ended."""
        if self._code is None:
            self._server.interrupt_worker()

    def kill(self) -> None:
        """Kill it and every process that it started; they are gone on return."""
        if self._code is None:
            self._code = self._server.kill_worker()


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
        self._fork_server: ServerProcess | None = None
        self._spawn_server: ServerProcess | None = None

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments there: first the interpreter, then each experiment."""
        other = other_interpreter(self._interpreter, self._where)
        if not self._is_own and (problem := other.version_problem()):
            return [problem]
        with tempfile.TemporaryDirectory(prefix="llem-preflight-") as folder:
            within_s = self._preflight_within_s
            try:
                found = problems_there(self._start, orders, Path(folder), self._where, within_s)
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
        try:
            job = self._forked(module, arguments, log) if self._forks else None
            return job or self._spawned(module, arguments, log)
        except KeyboardInterrupt:
            self.close()  # a worker may have started that nobody holds
            raise

    def _forked(self, module: str, arguments: tuple[str, ...], log: Path) -> ServedJob | None:
        """Fork a worker; after two tries, or where it is no use to try, note why not."""
        task = Task("fork", module, (*arguments, "fork"), str(log))
        for _ in range(2):
            try:
                server = self._fork_server or ServerProcess(self._interpreter, self._backend)
                self._fork_server = server
                return ServedJob(server, server.start(task), Start("fork"))
            except ServerLostError as error:
                self._fork_server, self._reason = None, str(error)
            except ForkRefusedError as refused:
                self._reason = str(refused)
                break
        self._forks = False
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None
        return None

    def _spawned(self, module: str, arguments: tuple[str, ...], log: Path) -> ServedJob:
        start = Start("spawn", self._reason)
        said = (*arguments, "spawn", *([self._reason] if self._reason else []))
        task, lost = Task("spawn", module, said, str(log)), None
        for _ in range(2):
            try:
                server = self._spawn_server or ServerProcess(self._interpreter, None)
                self._spawn_server = server
                return ServedJob(server, server.start(task), start)
            except ServerLostError as error:
                self._spawn_server, lost = None, error
        raise ExperimentError(
            f"no process can be started for the experiment: {lost}; look for a limit on processes "
            "(ulimit -u) or on memory",
            where="start",
            cause=str(lost),
        )

    def close(self) -> None:
        """End the servers; no process is left."""
        servers = (self._fork_server, self._spawn_server)
        self._fork_server = self._spawn_server = None
        for server in filter(None, servers):
            server.close()
