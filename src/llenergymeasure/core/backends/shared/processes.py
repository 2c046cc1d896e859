"""The processes an engine starts: what they print, how they ended, and that none is left.

An engine that works in processes of its own starts them through :mod:`multiprocessing`. Inside
:meth:`EngineProcesses.starting` these begin with ``lifeline.py``, so that they print into a pipe of
ours in place of the terminal, and do not outlive this process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection, resource_tracker, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from llenergymeasure import lifeline, temporary
from llenergymeasure.core.backends.shared.answering import (
    CLOSING,
    WORKING,
    Known,
    Patience,
    answering,
)
from llenergymeasure.exceptions import BackendError
from llenergymeasure.processes import Mark, anonymous_main, variables

MARK = "LLENERGYMEASURE_ENGINE"
KEPT_LINES = 400
_PATIENCE_S = 5.0  # for a process that was asked to end

Forward = Callable[[str], object]


class OutputPump:
    """Hands lines that are written to a named pipe on, from a thread that sleeps between them.

    Args:
        path: Where the pipe is made.
        forward: Gets every line, its end included.
    """

    def __init__(self, path: Path, forward: Forward) -> None:
        self._forward = forward
        self.recent: deque[str] = deque(maxlen=KEPT_LINES)
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer: int | None = os.open(path, os.O_WRONLY)  # no end of file before close()
        os.set_blocking(reader, True)
        self._thread = threading.Thread(
            target=self._pump, args=(reader,), name="engine-output", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Hand on what is left; the writers must be gone."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
            self._thread.join(_PATIENCE_S)

    def _pump(self, reader: int) -> None:
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self.recent.append(line.rstrip())
                self._forward(line if line.endswith("\n") else f"{line}\n")


def to_standard_output(text: str) -> None:
    """Print to what is standard output at that moment; a closed one is none."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(text)


class EngineProcesses:
    """Watches over the processes of one engine.

    Whatever it starts inside :meth:`starting` is found by a mark, even what is no descendant of
    ours, as MPI's workers need not be.

    Args:
        engine: What the user calls it.
        environment: Variables that the engine and its processes get, over those of this process.
        forward: Gets every line that those print which it starts through multiprocessing.
    """

    def __init__(
        self,
        engine: str,
        environment: Mapping[str, str],
        forward: Forward = to_standard_output,
    ) -> None:
        self._engine, self._mark = engine, Mark(MARK)
        self._environment = {**environment, **self._mark.variables}
        self._until_ended = contextlib.ExitStack()
        self._folder = self._until_ended.enter_context(temporary.folder("engine"))
        self._pump = OutputPump(self._folder / "output", forward)
        self._children: list[BaseProcess] = []
        self._known = Known(find=self.running)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Let what is started inside the block be ours."""
        resource_tracker.ensure_running()  # it serves this process for good
        interpreter = spawn.get_executable()
        before = set(multiprocessing.active_children())
        with variables(self._environment), anonymous_main():
            spawn.set_executable(str(self._launcher(interpreter)))
            try:
                yield
            finally:
                spawn.set_executable(interpreter)
        self._children = [one for one in multiprocessing.active_children() if one not in before]

    def answering(
        self, phase: str, patience: Patience = WORKING
    ) -> contextlib.AbstractContextManager[None]:
        """Have every wait for the engine inside a block end; see :func:`~.answering.answering`."""
        return answering(self._engine, phase, self._known, patience)

    def running(self) -> list[psutil.Process]:
        """List them, their children included, whoever their parent is by now."""
        return self._mark.processes()

    def on_death(self, tell: Callable[[], None]) -> None:
        """Call ``tell``, from a thread that sleeps until then, once one started by us ends."""
        sentinels = [child.sentinel for child in self._children]

        def watch() -> None:
            connection.wait(sentinels)
            tell()

        if sentinels:
            threading.Thread(target=watch, name="engine-watch", daemon=True).start()

    def exit_codes(self) -> list[int]:
        """List the exit codes of those that were started by us and have ended."""
        codes = [process.exitcode for process in self._children]
        return [code for code in codes if code is not None]

    def printed(self) -> list[str]:
        """List the last lines they printed."""
        return list(self._pump.recent)

    def close(self, shut_down: Callable[[], object]) -> None:
        """Have the engine shut down within bounds, and end what it leaves; safe to call twice."""
        try:
            with self.answering("close", CLOSING):
                shut_down()
        except BackendError as error:  # nothing is lost: it has done its work
            print(error.message)  # noqa: T201 - into log.txt
        finally:
            self.end()

    def end(self) -> None:
        """End all of them, and hand on the last they said; safe to call twice."""
        self._mark.end(_PATIENCE_S)
        self._pump.close()
        self._until_ended.close()
        temporary.sweep()

    def _launcher(self, interpreter: str | bytes | None) -> Path:
        """Write the program that multiprocessing starts in place of the interpreter."""
        python = os.fsdecode(interpreter or sys.executable)
        own = (str(os.getpid()), str(self._folder / "output"))
        command = (python, "-I", "-S", lifeline.__file__, *own)
        script = self._folder / "python"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o700)
        # Where temporary files cannot be run, processes print to the terminal.
        return script if os.access(script, os.X_OK) else Path(python)


@contextlib.contextmanager
def ended_on_failure(processes: EngineProcesses) -> Iterator[None]:
    """End the processes of an engine that could not be loaded, for whatever reason."""
    try:
        yield
    except BaseException:
        processes.end()
        raise


@contextlib.contextmanager
def stdout_spared() -> Iterator[None]:
    """Send what C++ and child processes print on standard output to standard error meanwhile.

    Standard output belongs to the result; Python's own ``print`` is not affected while it is
    redirected, as it is inside an experiment.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of the two is closed
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
