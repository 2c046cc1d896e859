"""One of several processes that share the prompts of an experiment.

Started by :mod:`~.fleet` as ``python -m llenergymeasure.orchestration.rank JOB``. It does what the
coordinating process says, leaves its raw samples in ``process_N.json`` and what its engine printed
in ``process_N.log``, and never outlives the coordinating process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypedDict

from llenergymeasure import lifeline, temporary
from llenergymeasure.config.secrets import redact
from llenergymeasure.core.backends.protocol import EngineReport
from llenergymeasure.exceptions import ExperimentError, LLEMError
from llenergymeasure.orchestration.capture import captured_output
from llenergymeasure.orchestration.events import PROGRESS_PERIOD_NS
from llenergymeasure.orchestration.executor import LocalExecutor, Share
from llenergymeasure.orchestration.orchestrator import load_backend
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import write_process


class Teller:
    """Tells the coordinating process how far the work has come, at most twice a second."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._finished = self._last_ns = 0

    def expect(self, total: int) -> None:
        """Tell how many more requests there are to do."""
        self._channel.send(("expect", total))

    def progress(self, finished: int) -> None:
        """Count finished requests, and tell them when it is time."""
        self._finished += finished
        now_ns = time.monotonic_ns()
        if now_ns - self._last_ns >= PROGRESS_PERIOD_NS:
            self._last_ns = now_ns
            self.catch_up()

    def catch_up(self) -> None:
        """Tell what has not been told yet."""
        finished, self._finished = self._finished, 0
        if finished:
            self._channel.send(("progress", finished))


class CommandLoop:
    """Does what the coordinating process asks, one command after another.

    Args:
        executor: Does the work.
        teller: Tells of progress.
        channel: Where answers go.
        samples: Where the raw samples go.
    """

    def __init__(
        self, executor: LocalExecutor, teller: Teller, channel: Connection, samples: Path
    ) -> None:
        self._executor, self._teller = executor, teller
        self._channel, self._samples = channel, samples
        self._until_read = contextlib.ExitStack()
        self._actions: dict[str, Callable[..., Any]] = {
            "load": executor.load,
            "prepare": executor.prepare,
            "warm_up": executor.warm_up,
            "rehearse_prefill": executor.rehearse_prefill,
            "run_pass": executor.run_pass,
            "step_times_ns": executor.step_times_ns,
            "collect": self._collect,
        }

    def serve(self, inbox: queue.SimpleQueue[str]) -> None:
        """Answer every command, a JSON list of its name and arguments, until told to stop."""
        self._answer(None)
        with self._until_read:
            while (command := json.loads(inbox.get()))[0] != "stop":
                name, *values = command
                self._answer(self._actions[name](*values))

    def _answer(self, value: object) -> None:
        self._teller.catch_up()
        self._channel.send(("done", value))

    def _collect(self) -> tuple[EngineReport, str]:
        """Leave the samples where they can be; the coordinating process rescues what it reads."""
        collected = self._executor.collect()
        try:
            write_process(collected.processes[0], self._samples)
        except ExperimentError:
            folder = self._until_read.enter_context(temporary.folder("share"))
            self._samples = folder / self._samples.name
            write_process(collected.processes[0], self._samples)
        return collected.report, str(self._samples)


class Failure(TypedDict):
    """What a process says last when it cannot go on."""

    code: str
    message: str
    where: str | None


def run(job: dict[str, Any], inbox: queue.SimpleQueue[str], channel: Connection) -> int:
    """Work on a share; 0 in the end, 1 after a failure."""
    order = WorkOrder.model_validate_json(inbox.get())
    directory, share = ExperimentDirectory(Path(job["directory"])), Share(*job["share"])
    with captured_output(directory.process_log(share.process)):
        failure = _work(order, directory, share, channel, inbox)
    if failure is None:
        return 0
    channel.send(("failed", failure))  # now that the log is whole
    return 1


def _work(
    order: WorkOrder,
    directory: ExperimentDirectory,
    share: Share,
    channel: Connection,
    inbox: queue.SimpleQueue[str],
) -> Failure | None:
    try:
        teller = Teller(channel)
        executor = LocalExecutor(load_backend(order.config.backend), order, teller, share)
        with closing(executor):
            samples = directory.process(share.process)
            CommandLoop(executor, teller, channel, samples).serve(inbox)
    except LLEMError as error:
        return Failure(code=error.code, message=redact(error.message), where=error.where)
    except Exception as error:  # noqa: BLE001 - the entry: nothing may go unreported
        traceback.print_exc()
        message = redact(f"{type(error).__name__}: {error}")
        return Failure(code="internal", message=message, where=None)
    return None


def main(arguments: list[str]) -> int:
    """Run one of several processes."""
    job = json.loads(arguments[0])
    logging.captureWarnings(True)
    line = lifeline.answer(job["parent"], job["fd"])
    lifeline.die_with(job["parent"])
    return run(job, line.inbox, line.channel)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
