"""Several processes that share the prompts of one experiment, seen from the one that coordinates.

Each is ``python -m llenergymeasure.orchestration.rank``, a child of the coordinating process, which
loads no model and reads the energy of all devices. Commands go out to all at once and come back
one by one, so each command is a barrier: nobody begins a pass before everybody is ready for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from llenergymeasure.core.backends.protocol import EngineReport, Rank
from llenergymeasure.core.backends.shared.answering import Known, Patience, answering
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError, ConfigError, ExperimentError, LLEMError
from llenergymeasure.orchestration.capture import tail
from llenergymeasure.orchestration.executor import (
    Audience,
    Collected,
    PassKind,
    PreparedWork,
    WarmedUp,
)
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.processes import ChildProcess, same_modules
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import read_process

_MODULE = "llenergymeasure.orchestration.rank"
EXIT_S = 10.0  # to drop a model and leave; after that a process is killed

_UNTIL_STOPPED = Patience(idle_s=math.inf)
"""A process may sleep, as a scripted engine does; an engine of more processes sees to them."""

_ERRORS: dict[str, type[LLEMError]] = {
    error.code: error for error in (BackendError, ConfigError, ExperimentError)
}


class FleetExecutor:
    """Executes the requests in several processes; see :class:`~.executor.Executor`.

    Args:
        ranks: How each process loads the model.
        order: What is to be done.
        directory: Where the processes leave their samples and logs.
        audience: Told of every finished request of any process.
    """

    def __init__(
        self,
        ranks: Sequence[Rank],
        order: WorkOrder,
        directory: ExperimentDirectory,
        audience: Audience,
    ) -> None:
        self._ranks, self._order = tuple(ranks), order
        self._directory, self._audience = directory, audience
        self._members: list[_Member] = []
        self._busy = False

    def start(self) -> None:
        """Start every process, and wait until all of them listen."""
        self._busy = True
        for index in range(len(self._ranks)):
            self._members.append(_Member(index, self._ranks, self._directory))
            self._members[-1].receive_order(self._order)
        self._gather(self._members)

    def load(self) -> None:
        """Load the model in every process at the same time."""
        self._all("load")

    def prepare(self) -> PreparedWork:
        """Have every process tokenise the prompts and batch its own."""
        prepared: list[PreparedWork] = self._all("prepare")
        return replace(prepared[0], batches=max(one.batches for one in prepared))

    def warm_up(self, count: int, first: int = 0) -> WarmedUp:
        """Run warm-up batches in every process."""
        ran: list[WarmedUp] = self._all("warm_up", count, first)
        return WarmedUp(sum(one.tokens for one in ran), max(one.ended_ns for one in ran))

    def rehearse_prefill(self) -> None:
        """Run a prefill-only batch in every process."""
        self._all("rehearse_prefill")

    def run_pass(self, kind: PassKind, begun_ns: int) -> Window:
        """Let all processes go at once; the window ends with the last of them."""
        windows: list[Window] = self._all("run_pass", kind, begun_ns)
        return Window(begun_ns, max(window.t1_ns for window in windows))

    def step_times_ns(self, kind: PassKind) -> Sequence[int]:
        """Tell the steps of process 0; a device sees those of one process, not of all."""
        (times,) = self._ask(self._members[:1], "step_times_ns", kind)
        return list(times)

    def collect(self) -> Collected:
        """Read what every process left in its file, and unite their reports."""
        told: list[tuple[EngineReport, str]] = self._all("collect")
        shares = tuple(read_process(Path(file)) for _, file in told)
        return Collected(_united([report for report, _ in told]), shares)

    def close(self) -> None:
        """End every process: those at rest in good order, the others at once."""
        members, self._members = self._members, []
        try:
            if not self._busy:
                for member in members:
                    member.send("stop")
                for member in members:
                    member.process.wait(EXIT_S)
        finally:
            for member in members:
                member.process.kill()
            for member in members:
                member.close()

    def _all(self, *command: object) -> list[Any]:
        return self._ask(self._members, *command)

    def _ask(self, members: Sequence[_Member], *command: object) -> list[Any]:
        self._busy = True
        for member in members:
            member.send(*command)
        return self._gather(members)

    def _gather(self, asked: Sequence[_Member]) -> list[Any]:
        """Wait for an answer of each, without polling; whoever dies meanwhile is noticed."""
        by_channel = {member.channel: member for member in self._members}
        processes = Known([psutil.Process(member.process.pid) for member in self._members])
        answers: dict[int, Any] = {}
        with answering("one of several processes", "generate", processes, _UNTIL_STOPPED):
            while len(answers) < len(asked):
                for ready in wait(list(by_channel)):
                    member = by_channel[ready]  # type: ignore[index]
                    word, value = member.receive()
                    if word == "done":
                        answers[member.index] = value
                    else:
                        getattr(self._audience, word)(value)
        self._busy = False
        return [answers[member.index] for member in asked]


class _Member:
    """One process, what it is asked and what it answers.

    Raises:
        BackendError: The process cannot be started.
    """

    def __init__(self, index: int, ranks: Sequence[Rank], directory: ExperimentDirectory) -> None:
        self.index, self._count, self._rank = index, len(ranks), ranks[index]
        self._log = directory.process_log(index)
        self._log.write_bytes(b"")  # an earlier attempt may have left one
        job = {"directory": str(directory.root.absolute()), "share": (index, len(ranks))}
        environment = {**self._rank.environment, **same_modules()}
        try:
            self.process = ChildProcess(_MODULE, job, self._log, environment)
        except OSError as error:
            raise BackendError(
                f"process {index} of 0 to {self._count - 1} cannot be started: {error.strerror}; "
                "look for a limit on processes (ulimit -u), on open files (ulimit -n) or on memory"
            ) from None
        self.channel = Connection(self.process.end.detach())

    def receive_order(self, order: WorkOrder) -> None:
        """Tell the process what it is to do.

        Raises:
            BackendError: It is gone already; the end of its log is a note of the exception.
        """
        own = order.model_copy(update={"config": self._rank.config})
        try:
            self.channel.send_bytes(own.model_dump_json().encode())
        except OSError:
            raise self._told(BackendError, self.process.last_exit()) from None

    def send(self, *command: object) -> None:
        """Pass a command on; a dead process shows in the answer."""
        with suppress(OSError):
            self.channel.send_bytes(json.dumps(command).encode())

    def receive(self) -> tuple[str, Any]:
        """Give what the process says: a word and a value.

        Raises:
            LLEMError: It failed, or is gone; the end of its log is a note of the exception.
        """
        try:
            word, value = self.channel.recv()
        except (EOFError, OSError):
            raise self._told(BackendError, self.process.last_exit()) from None
        if word == "failed":
            kind = _ERRORS.get(value["code"], BackendError)
            raise self._told(kind, f"failed: {value['message']}", value["where"])
        return word, value

    def close(self) -> None:
        """End the process, and let go of its channel."""
        self.process.close(0)
        self.channel.close()

    def _told(self, kind: type[LLEMError], what: str, where: str | None = None) -> LLEMError:
        error = kind(f"process {self.index} of 0 to {self._count - 1} {what}", where=where)
        if said := tail(self._log):
            error.add_note(f"{self._log.name} ends with:\n{said}")
        return error


def _united(reports: Sequence[EngineReport]) -> EngineReport:
    """Speak for all processes: they loaded the same model the same way."""
    first = reports[0]
    return replace(
        first,
        resolved={**first.resolved, "num_processes": len(reports)},
        compute_devices=sum(report.compute_devices for report in reports),
    )
