"""The runner's side of a fork server: starting it, talking to it, and noticing that it died.

Both sides speak through a :class:`Channel`: JSON lines over a socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llenergymeasure.processes import (
    GIVE_UP_S,
    ChildProcess,
    Mark,
    how_it_ended,
    with_programs_of,
)

if TYPE_CHECKING:
    from llenergymeasure.orchestration.order import Start

Message = dict[str, Any]

READY_WITHIN_S = 600.0
"""Longest time for the import of an engine; some take minutes from a network file system."""

_MODULE = "llenergymeasure.study.runners.fork_server"
END_WITHIN_S = GIVE_UP_S + 10
_ANSWER_WITHIN_S = 60.0  # to fork; one that does not answer is ended


class Channel:
    """One end of the socket between a runner and its fork server.

    Args:
        end: A connected stream socket; closed with the channel.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._pending = b""
        self._messages: deque[Message] = deque()

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Send one message.

        Raises:
            EOFError: The other side is gone.
        """
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            raise EOFError from None

    def receive(self, timeout_s: float) -> Message | None:
        """Take the next message, waiting no longer than ``timeout_s`` for it.

        Raises:
            EOFError: The other side is gone, or this end is closed.
        """
        if self._socket.fileno() < 0:
            raise EOFError
        # Not select(): a program with more than 1024 open files has descriptors beyond its reach.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not self._messages and poll.poll(max(0.0, timeout_s) * 1e3):
            data = b""
            with contextlib.suppress(OSError):
                data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            *lines, self._pending = (self._pending + data).split(b"\n")
            for line in lines:
                # An interrupt can cost a piece of a message; the rest of it says nothing.
                with contextlib.suppress(ValueError):
                    message = json.loads(line)
                    self._messages += [message] if isinstance(message, dict) else []
        return self._messages.popleft() if self._messages else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


class ServerLostError(Exception):
    """The server died, or did not get ready; says why."""


class ForkRefusedError(Exception):
    """The server cannot fork a worker that would work; says why."""


class ServedJob:
    """A worker that a fork server started; see the protocol for the contract.

    Attributes:
        start: How it was started.
    """

    def __init__(self, server: ServerProcess, number: int, start: Start) -> None:
        self._server, self._number, self.start = server, number, start
        self._code: int | None = None

    @property
    def fate(self) -> str | None:
        """How its server went down, and it with that; ``None`` otherwise."""
        return self._server.lost

    def wait(self, timeout_s: float) -> int | None:
        """Sleep until the worker ends, but no longer than ``timeout_s``, without polling."""
        if self._code is None:
            self._code = self._server.ended(self._number, timeout_s)
        return self._code

    def interrupt(self) -> None:
        """Send the worker SIGINT; harmless once it has ended."""
        if self._code is None:
            self._server.ask("interrupt", self._number)

    def kill(self) -> None:
        """Kill it and every process that it started; they are gone on return."""
        if self._code is None:
            self._code = self._server.kill(self._number)


class ServerProcess:
    """A fork server, which runs one worker at a time.

    Args:
        interpreter: What it runs in, and spawns workers with.
        backend: What it imports to fork workers; ``None`` for one that spawns.
        end_within_s: Longest time for it to end, or its worker; then it is killed, s.

    Attributes:
        lost: How it went down; ``None`` while it is there.

    Raises:
        ServerLostError: It did not get ready.
    """

    def __init__(
        self, interpreter: str, backend: str | None, end_within_s: float = END_WITHIN_S
    ) -> None:
        self._interpreter, self._number = interpreter, 0
        self._end_within_s = end_within_s
        self.lost: str | None = None
        self._mark = Mark("_LLENERGYMEASURE_SERVER")
        path = with_programs_of(interpreter, os.environ.get("PATH", os.defpath))
        environment = {"PATH": path, **self._mark.variables}
        try:
            self._process = ChildProcess(
                _MODULE, {"backend": backend}, environment=environment, interpreter=interpreter
            )
        except OSError as error:
            raise ServerLostError(f"cannot run {interpreter}: {error.strerror}") from None
        self._channel = Channel(self._process.end)
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

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def start(self, start: Start, module: str, arguments: Sequence[str], log: Path) -> ServedJob:
        """Start a worker.

        Args:
            start: How, by ``fork`` or ``spawn``, which the worker is told as well.
            module: A module with ``main(arguments) -> exit code``.
            arguments: What it gets.
            log: File to which its output is appended.

        Raises:
            ForkRefusedError: It cannot be forked.
            ServerLostError: The server died.
        """
        self._number += 1
        request = {
            "method": start.method,
            "module": module,
            "arguments": [*arguments, *filter(None, start)],
            "log": str(log),
            "folder": str(Path.cwd()),
            "interpreter": self._interpreter,
        }
        try:
            self._channel.send(do="start", number=self._number, **request)
            self._process.wake()
            reply: Message = {}
            while reply.get("number") != self._number:  # what came late is of an earlier worker
                reply = self._channel.receive(_ANSWER_WITHIN_S) or {}
                if not reply:
                    self._process.kill()
                    raise EOFError
        except EOFError:
            raise self._lost() from None
        if "refused" in reply:
            raise ForkRefusedError(str(reply["refused"]))
        return ServedJob(self, self._number, start)

    def ask(self, what: str, number: int) -> None:
        """Ask for something to be done with a worker; harmless once it, or the server, has ended.

        Args:
            what: ``interrupt``, or ``kill`` for it and whatever it started.
            number: Which worker.
        """
        try:
            self._channel.send(do=what, number=number)
            self._process.wake()
        except EOFError:
            self._lost()

    def ended(self, number: int, within_s: float) -> int | None:
        """Wait for a worker to end.

        Returns:
            Its exit code, negative for a signal; ``None`` while it runs. A worker that went down
            with its server was killed.
        """
        deadline_s = time.monotonic() + within_s
        while True:
            left_s = deadline_s - time.monotonic()
            try:
                message = self._channel.receive(left_s)
            except EOFError:
                self._lost()
                return -signal.SIGKILL
            if message and message.get("number") == number and "ended" in message:
                return int(message["ended"])
            if left_s <= 0:
                return None

    def kill(self, number: int) -> int:
        """Kill a worker and whatever it started; give its exit code.

        A server that does not answer in time goes with them.
        """
        self.ask("kill", number)
        code = self.ended(number, self._end_within_s)
        if code is None:
            self._process.kill()
            self._lost()
        return -signal.SIGKILL if code is None else code

    def close(self) -> None:
        """End the server and everything that it started."""
        self._channel.close()
        if self._process.close(self._end_within_s) != 0:
            self._mark.end()

    def _lost(self) -> ServerLostError:
        """Tidy up after a server that died, and say what it said last."""
        self._channel.close()
        said = self._process.printed()
        how = how_it_ended(self._process.close(self._end_within_s))
        self._mark.end()
        last = f": {said.splitlines()[-1]}" if said else ""
        self.lost = f"the fork server {how}{last}"
        return ServerLostError(self.lost)
