"""Commands forked from a process that has imported what they need: hundreds start in a minute.

Each is the whole command in a process and a session of its own, as from a shell.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Self

import psutil

if TYPE_CHECKING:
    from tests.support.cli import Llem

MARK = "LLEM_TEST_NURSERY"
_SERVER = """
import importlib, json, os, socket, sys
import numpy, pyarrow.parquet, scipy.special, tqdm, yaml
import llenergymeasure.cli.commands.config, llenergymeasure.cli.commands.run
import llenergymeasure._api, llenergymeasure.cli.display, llenergymeasure.cli.machine
import llenergymeasure.cli.app as app

for name in sys.argv[2:]:
    importlib.import_module(name)
channel = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, descriptors, *_ = socket.recv_fds(channel, 2**17, 3)
    if not message:
        break
    pid = os.fork()
    if pid == 0:
        channel.close()
        order = json.loads(message)
        os.setsid()
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        path = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[1:1] = [one for one in path if one and one not in sys.path]
        sys.argv[:] = [app.__file__, *order["arguments"]]
        app.main(order["arguments"])
    for descriptor in descriptors:
        os.close(descriptor)
    channel.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    channel.send(str(os.waitstatus_to_exitcode(status)).encode())
"""


class Command(NamedTuple):
    """A command as a shell starts it.

    Attributes:
        arguments: What follows its name.
        folder: Where it runs.
        environment: All of its variables.
    """

    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]


class Server:
    """The warm process; it starts one command at a time.

    Args:
        environment: Its own; what an interpreter reads when it starts is taken from here.
        folder: Where it runs.
        preload: More modules that it imports.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        folder: Path | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(other.fileno()), *preload],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
            )

    def start(self, command: Command, out: IO[bytes], err: IO[bytes]) -> int:
        """Start a command; give its process id."""
        order = command._asdict()
        with open(os.devnull, "rb") as null:  # noqa: PTH123 - a device, not a path of ours
            files = [one.fileno() for one in (null, out, err)]
            socket.send_fds(self._channel, [json.dumps(order).encode()], files)
        return self.number()

    def number(self, timeout_s: float | None = None) -> int:
        """Wait for its answer: a process id, then an exit code, negative for a signal.

        Raises:
            TimeoutError: There is none in time.
        """
        self._channel.settimeout(timeout_s)
        return int(self._channel.recv(64))

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self.process.wait(60)


@dataclass
class Warm:
    """The process from which the commands of a test session are forked, when the first asks.

    Attributes:
        environment: Its own.
        preload: More modules that it imports.
    """

    environment: Mapping[str, str]
    preload: Sequence[str] = ()
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    @functools.cached_property
    def _server(self) -> Server:
        made = Server(self.environment, preload=self.preload)
        atexit.register(made.close)
        return made

    def run(self, command: Command, timeout_s: float) -> tuple[int, str, str]:
        """Run a command to its end; give exit code, output and errors.

        Raises:
            subprocess.TimeoutExpired: It took longer, and was killed with all that it had started.
        """
        with (
            self._one_at_a_time,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            if self._server.process.poll() is not None:  # killed: that costs one test alone
                del self._server
            pid = self._server.start(command, out, err)
            try:
                code = self._server.number(timeout_s)
            except BaseException as error:
                _kill_all_of(pid)
                self._server.number()
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(
                        ["llem", *command.arguments], timeout_s
                    ) from None
                raise
            return code, _text_of(out), _text_of(err)


@dataclass
class Nursery:
    """Starts one command at a time, which can be killed.

    Attributes:
        llem: Where they run.
    """

    llem: Llem
    _server: Server = field(init=False)

    def __enter__(self) -> Self:
        self.llem.environment[MARK] = str(self.llem.folder)
        self._server = Server(self.llem.variables(), self.llem.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def start(self, *arguments: str) -> int:
        """Start a command; give its process id."""
        with self._said.open("wb") as said:
            command = Command(arguments, str(self.llem.folder), self.llem.variables())
            return self._server.start(command, said, said)

    def end(self) -> int:
        """Wait for the command; give its exit code, negative for the signal that killed it."""
        return self._server.number()

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> int:
        """Send the command alone a signal, if it still runs, and give its exit code."""
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, number)
        return self.end()

    @property
    def said(self) -> str:
        """What the last command printed."""
        return self._said.read_text()

    @property
    def _said(self) -> Path:
        return self.llem.folder / "said.txt"

    def wait_until_alone(self) -> None:
        """Wait until nothing runs any more that a command has started."""
        end = time.monotonic() + 60
        while others := self._others():
            assert time.monotonic() < end, f"still running: {others}"
            time.sleep(0.01)

    def _others(self) -> list[psutil.Process]:
        return [
            one
            for one in psutil.process_iter()
            if one.pid != self._server.process.pid and _mark_of(one) == str(self.llem.folder)
        ]


def _kill_all_of(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _mark_of(process: psutil.Process) -> str | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None
