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
from llenergymeasure.orchestration import probe
from llenergymeasure.orchestration.capture import tail
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners.interpreter import interpreter_inventory, interpreter_problem
from llenergymeasure.study.runners.protocol import PREFLIGHT_WITHIN_S, Start
from llenergymeasure.study.runners.server_process import (
    ForkRefusedError,
    ServerLostError,
    ServerProcess,
    Task,
)
from llenergymeasure.study.runners.waiting import ended_within

__all__ = ["InterpreterRunner", "ServedJob"]

WORKER = "llenergymeasure.orchestration.worker"
PROBE = "llenergymeasure.orchestration.probe"

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
        self._forks, self._preflight_within_s = start_method != "spawn", preflight_within_s
        self._reason: str | None = None
        self._fork_server: ServerProcess | None = None
        self._spawn_server: ServerProcess | None = None

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments there: first the interpreter, then each experiment."""
        if problem := interpreter_problem(self._interpreter, f"runners.{self._backend}"):
            return [problem]
        with tempfile.TemporaryDirectory(prefix="llem-preflight-") as folder:
            asked, answer, log = (Path(folder) / name for name in ("orders", "problems", "log"))
            try:
                probe.write_orders(orders, asked)
            except OSError as error:
                return [_no_room(folder, error)]
            job = self._start(PROBE, (str(asked), str(answer)), log)
            code = ended_within(job, self._preflight_within_s)
            if answer.is_file():
                return [_typed_there(self._interpreter, one) for one in probe.read_problems(answer)]
            how = f"ended with exit code {code}"
            if code is None:
                how = f"took longer than {self._preflight_within_s:g} s and was ended"
            return [_preflight_broke(self._backend, how, log)]

    def start(self, directory: ExperimentDirectory) -> ServedJob:
        """Start the worker on a directory that holds ``config.json``.

        Raises:
            ExperimentError: No process can be started.
        """
        return self._start(WORKER, (str(directory.root.absolute()),), directory.log.absolute())

    def inventory(self) -> Inventory | Problem:
        """List the backends of the interpreter, or say why it cannot be used.

        Raises:
            ConfigError: A plugin of this very interpreter is broken.
        """
        return interpreter_inventory(self._interpreter, f"runners.{self._backend}")

    def _start(self, module: str, arguments: tuple[str, ...], log: Path) -> ServedJob:
        try:
            job = self._forked(module, arguments, log) if self._forks else None
            return job or self._spawned(module, arguments, log)
        except KeyboardInterrupt:
            self.close()  # a worker may have started that nobody holds
            raise

    def _forked(self, module: str, arguments: tuple[str, ...], log: Path) -> ServedJob | None:
        """Fork a worker; after two tries, or where it is no use to try, note why not."""
        for _ in range(2):
            try:
                server = self._fork_server = self._fork_server or self._serve(self._backend)
                task = Task("fork", module, (*arguments, "fork"), str(log))
                return ServedJob(server, server.start(task), Start("fork"))
            except ServerLostError as error:
                self._fork_server, self._reason = None, str(error)
            except ForkRefusedError as refused:
                self._reason = str(refused)
                break
        self._stop_forking()
        return None

    def _stop_forking(self) -> None:
        self._forks = False
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    def _spawned(self, module: str, arguments: tuple[str, ...], log: Path) -> ServedJob:
        start = Start("spawn", self._reason)
        said = (*arguments, "spawn", *([self._reason] if self._reason else []))
        for attempt in range(2):
            try:
                server = self._spawn_server = self._spawn_server or self._serve(None)
                return ServedJob(server, server.start(Task("spawn", module, said, str(log))), start)
            except ServerLostError as error:
                self._spawn_server = None
                if attempt:
                    raise _cannot_start(error) from None
        raise AssertionError("the loop returns or raises")

    def _serve(self, backend: str | None) -> ServerProcess:
        return ServerProcess(self._interpreter, backend)

    def close(self) -> None:
        """End the servers; no process is left."""
        servers = (self._fork_server, self._spawn_server)
        self._fork_server = self._spawn_server = None
        for server in filter(None, servers):
            server.close()


def _typed_there(interpreter: str, problem: Problem) -> Problem:
    """Let lines of pip install into the interpreter they were written for."""
    if interpreter == sys.executable:
        return problem
    command = f"{shlex.quote(interpreter)} -m pip "
    remedy = _PIP.sub(lambda _: command, problem.remedy)
    return replace(problem, remedy=remedy)


def _no_room(folder: str, error: OSError) -> Problem:
    return Problem(
        f"cannot write to {folder}: {error.strerror}",
        "TMPDIR",
        "make room there, or let TMPDIR name a directory on another disk",
    )


def _preflight_broke(backend: str, how: str, log: Path) -> Problem:
    said = tail(log)
    return Problem(
        f"looking for problems {how}" + (f":\n{said}" if said else ""),
        f"runners.{backend}",
        "mend what is named there, or see whether a file system or the Hub does not answer; "
        "'llem config' shows what is installed",
    )


def _cannot_start(error: ServerLostError) -> ExperimentError:
    return ExperimentError(
        f"no process can be started for the experiment: {error}; look for a limit on processes "
        "(ulimit -u) or on memory",
        where="start",
        cause=str(error),
    )
