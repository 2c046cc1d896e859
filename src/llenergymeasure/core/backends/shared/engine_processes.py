"""The processes an engine starts: what they print, how they ended, and that none is left.

An engine that works in processes of its own starts them through :mod:`multiprocessing`. Inside
:meth:`EngineProcesses.starting` these begin with ``engine_launcher.py``, so that they print into a
pipe of ours in place of the terminal, carry a mark by which they and their children are found, and
do not outlive this process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection, resource_tracker, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import psutil

from llenergymeasure.core.backends.shared import engine_launcher
from llenergymeasure.core.backends.shared.engine_start import not_without_processes

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


class Endable(Protocol):
    """Processes of an engine, whoever started them."""

    def end(self) -> None:
        """End all of them; safe to call twice."""
        ...


class EngineProcesses:
    """Watches over the processes of one engine.

    Args:
        environment: Variables that the engine and its processes get, over those of this process.
        forward: Gets every line they print.
    """

    def __init__(
        self, environment: Mapping[str, str], forward: Forward = to_standard_output
    ) -> None:
        self._environment = dict(environment)
        self._folder = Path(tempfile.mkdtemp(prefix="llem-engine-"))
        self._mark = secrets.token_hex(8)
        self._pump = OutputPump(self._folder / "output", forward)
        self._before = {process.pid for process in multiprocessing.active_children()}
        self._children: list[BaseProcess] = []

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Let what is started inside the block be ours.

        Raises:
            RuntimeError: All that was started has ended, and the block waits for it.
        """
        resource_tracker.ensure_running()  # it serves this process for good
        interpreter = spawn.get_executable()
        with (
            variables(self._environment),
            anonymous_main(),
            not_without_processes(self._all_ended_unnoticed),
        ):
            spawn.set_executable(str(self._launcher(interpreter)))
            try:
                yield
            finally:
                spawn.set_executable(interpreter)

    def running(self) -> list[psutil.Process]:
        """List them, their children included, whoever their parent is by now."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def on_death(self, tell: Callable[[], None]) -> None:
        """Call ``tell``, from a thread that sleeps until then, once one started by us ends."""
        children = multiprocessing.active_children()
        self._children = [child for child in children if child.pid not in self._before]
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

    def end(self) -> None:
        """End all of them, and hand on the last they said; safe to call twice."""
        end_processes(self.running(), _PATIENCE_S)
        self._pump.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _all_ended_unnoticed(self) -> bool:
        children = psutil.Process().children()
        return any(map(_has_ended, children)) and not self.running()

    def _launcher(self, interpreter: str | bytes | None) -> Path:
        """Write the program that multiprocessing starts in place of the interpreter."""
        python = os.fsdecode(interpreter or sys.executable)
        own = (str(os.getpid()), str(self._folder / "output"), f"{MARK}={self._mark}")
        command = (python, "-I", "-S", engine_launcher.__file__, *own)
        script = self._folder / "python"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o700)
        # Where temporary files cannot be run, processes print to the terminal.
        return script if os.access(script, os.X_OK) else Path(python)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self._mark
        except (psutil.Error, OSError):
            return False


def _has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def variables(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process for the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def anonymous_main() -> Iterator[None]:
    """Hide the main module: each process started would run it again, and it may have no guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def end_processes(processes: Sequence[psutil.Process], patience_s: float) -> None:
    """Ask processes to end, and kill those that have not after ``patience_s``; they are waited for.

    Safe for processes that have ended already.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _gone, left = psutil.wait_procs(processes, patience_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, patience_s)


@contextlib.contextmanager
def ended_on_failure(processes: Endable) -> Iterator[None]:
    """End the processes of an engine that could not be loaded, for whatever reason."""
    try:
        yield
    except BaseException:
        processes.end()
        raise
