"""The runner's side of a fork server: starting it, talking to it, and noticing that it died."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from llenergymeasure import processes
from llenergymeasure.orchestration.own_tools import with_tools
from llenergymeasure.study.runners.channel import Channel

READY_WITHIN_S = 600.0
"""Longest time for the import of an engine; some take minutes from a network file system."""

_END_WITHIN_S = processes.GIVE_UP_S + 10


class ServerLostError(Exception):
    """The server died, or did not get ready; says why."""


class ForkRefusedError(Exception):
    """The server cannot fork a worker that would work; says why."""


class Task(NamedTuple):
    """What a worker is to run.

    Attributes:
        method: ``fork`` or ``spawn``.
        module: A module with ``main(arguments) -> exit code``.
        arguments: What it gets.
        log: File to which its output is appended.
    """

    method: str
    module: str
    arguments: tuple[str, ...]
    log: str


class ServerProcess:
    """A fork server in a session of its own, so that Ctrl-C does not reach it or its workers.

    Args:
        interpreter: What it runs in, and spawns workers with.
        backend: What it imports to fork workers; ``None`` for one that spawns.

    Raises:
        ServerLostError: It did not get ready.
    """

    def __init__(self, interpreter: str, backend: str | None) -> None:
        self._interpreter, self._number = interpreter, 0
        self._mark = uuid.uuid4().hex
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        try:
            self._process = self._launch(theirs, backend)
        except OSError as error:
            self._channel.close()
            raise ServerLostError(f"cannot run {interpreter}: {error.strerror}") from None
        finally:
            theirs.close()
        self._await_ready()

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def _launch(self, end: socket.socket, backend: str | None) -> subprocess.Popen[bytes]:
        module = "llenergymeasure.study.runners.fork_server"
        arguments = [str(end.fileno()), str(os.getpid()), *([backend] if backend else [])]
        path = with_tools(os.environ.get("PATH", os.defpath), self._interpreter)
        return subprocess.Popen(  # noqa: S603 - the interpreter that the user chose and our own code
            [self._interpreter, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=(end.fileno(),),
            start_new_session=True,
            env={**os.environ, "PATH": path, processes.MARK: self._mark},
        )

    def _await_ready(self) -> None:
        try:
            ready = self._channel.receive(READY_WITHIN_S)
        except EOFError:
            raise self._lost() from None
        except BaseException:
            self.close()
            raise
        if ready is None:
            self.close()
            raise ServerLostError(f"importing the engine took over {READY_WITHIN_S:g} s")

    def start(self, task: Task) -> int:
        """Start a worker and give the number by which it goes here.

        Raises:
            ForkRefusedError: It cannot be forked.
            ServerLostError: The server died.
        """
        self._number += 1
        request = {**task._asdict(), "folder": str(Path.cwd()), "interpreter": self._interpreter}
        try:
            self._channel.send(do="start", number=self._number, **request)
            reply = self._reply("started", "refused")
        except EOFError:
            raise self._lost() from None
        if "refused" in reply:
            raise ForkRefusedError(str(reply["refused"]))
        return self._number

    def _reply(self, *keys: str) -> dict[str, object]:
        while True:
            message = self._channel.receive(READY_WITHIN_S)
            if message is None:
                self._process.kill()
                raise EOFError
            if message.get("number") == self._number and not set(keys).isdisjoint(message):
                return message

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the worker that was started last.

        Returns:
            Its exit code, negative for a signal; ``None`` while it runs. A worker that went down
            with its server was killed.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                message = self._channel.receive(left_s)
            except EOFError:
                self._lost()
                return -signal.SIGKILL
            if message and message.get("number") == self._number and "ended" in message:
                return int(message["ended"])
            if left_s <= 0:
                return None

    def ask(self, what: str) -> None:
        """Ask to ``interrupt`` or ``kill`` the worker that was started last."""
        try:
            self._channel.send(do=what, number=self._number)
        except EOFError:
            self._lost()

    def close(self) -> None:
        """End the server and everything that it started."""
        self._channel.close()
        self._end()
        self._output.close()

    def _end(self) -> int:
        """Wait for the server to end by itself, or kill it; give its exit code."""
        try:
            return self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
            processes.end_marked(self._mark)
            return code

    def _lost(self) -> ServerLostError:
        """Tidy up after a server that died, and say what it said last."""
        self._channel.close()
        code = self._end()
        processes.end_marked(self._mark)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ServerLostError(f"the fork server ended with {how}{self._last_line()}")

    def _last_line(self) -> str:
        if self._output.closed:
            return ""
        with self._output as output:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
