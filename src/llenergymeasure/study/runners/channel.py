"""Messages between a runner and its fork server: JSON lines over a socket."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections import deque
from typing import Any

Message = dict[str, Any]


class Channel:
    """One end.

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
