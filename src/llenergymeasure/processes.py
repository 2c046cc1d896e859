"""Processes of ours and of engines: how they are started, found and ended, and none is left.

What a child itself does to end with its parent is in :mod:`~.lifeline`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from llenergymeasure import lifeline

GIVE_UP_S = 30.0
"""Longest wait for a process that was killed: the kernel may hold on to it (state D)."""

_TAIL_BYTES = 2000
_EXIT_WITHIN_S = 10.0  # for the exit code of a child whose channel has ended


class Mark:
    """A variable in the environment of some processes and of their children.

    By it they are found, whoever their parent is by now.

    Args:
        name: What the variable is called.
    """

    def __init__(self, name: str) -> None:
        self.variables = {name: secrets.token_hex(8)}

    def processes(self) -> list[psutil.Process]:
        """List those that run; this process is never among them."""
        return [each for each in psutil.process_iter() if self._is_on(each)]

    def _is_on(self, process: psutil.Process) -> bool:
        try:
            return (
                process.pid != os.getpid()
                and self.variables.items() <= process.environ().items()
                and process.status() != psutil.STATUS_ZOMBIE
            )
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            return False

    def end(self, patience_s: float = 0.0) -> None:
        """Ask them to end, kill those that have not within ``patience_s``, and wait until all have.

        Safe to call twice.
        """
        if patience_s:
            asked = self.processes()
            for process in asked:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
                    process.resume()  # it may be stopped
            psutil.wait_procs(asked, patience_s)
        deadline_s = time.monotonic() + GIVE_UP_S
        while (left := self.processes()) and time.monotonic() < deadline_s:
            kill_all(left)
            psutil.wait_procs(left, timeout=1)


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """Kill processes, some of which may have ended."""
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended, or is another user's
            process.kill()


def reaped() -> Iterator[tuple[int, int]]:
    """Yield process id and exit code, negative for a signal, of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def end_children() -> dict[int, int]:
    """Kill every descendant of this process and wait until none is left.

    A process that the kernel holds on to is given up on after ``GIVE_UP_S``.

    Returns:
        Exit code, negative for a signal, by process id.
    """
    codes, deadline_s, pause_s = dict(reaped()), time.monotonic() + GIVE_UP_S, 0.001
    while _has_children() and time.monotonic() < deadline_s:
        kill_all(psutil.Process().children(recursive=True))
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)
        codes |= dict(reaped())
    return codes


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def wait_for(process: subprocess.Popen[Any], within_s: float) -> int | None:
    """Sleep until a child has ended, without polling where the system can tell.

    Returns:
        Its exit code, negative for a signal; ``None`` if it still runs.
    """
    if process.returncode is not None:  # its number may be another process's by now
        return process.returncode
    descriptor = lifeline.descriptor_of(process.pid)
    if descriptor is not None:
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(max(0.0, within_s) * 1e3)
        finally:
            os.close(descriptor)
        within_s = 0.0
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def how_it_ended(code: int | None) -> str:
    """Say what an exit code tells, to be put after the name of a process."""
    if code is None:
        return "closed its channel"
    if code < 0:
        return f"was killed by signal {-code} ({signal.strsignal(-code)})"
    return f"ended with exit code {code}"


class ChildProcess:
    """A module of ours in a process of its own, with a channel to it, a log, and a bounded end.

    It is ``python -P -m MODULE JOB``, in a session of its own: Ctrl-C is this process's to hear.
    JOB is JSON; to what is given, ``fd`` and ``parent`` are added: the child's end of the channel,
    and this process, with which it has to end (:mod:`~.lifeline`).

    Args:
        module: Its name.
        job: What it is to do.
        log: Where what it prints is appended; without one, a file that has no name.
        environment: Variables over those of this process.
        interpreter: What it runs in.

    Attributes:
        message_within_s: Longest time for the rest of a message that has begun, s: a child may be
            stopped in the middle of one. Waiting for it to begin is the caller's to bound.
        end: Our end of the channel, a connected stream socket; closed by who takes it.

    Raises:
        OSError: It cannot be started.
    """

    message_within_s: float = 60.0

    def __init__(
        self,
        module: str,
        job: Mapping[str, Any],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        interpreter: str = sys.executable,
    ) -> None:
        self._log: IO[bytes] = (
            tempfile.TemporaryFile() if log is None else log.open("ab+")  # noqa: SIM115
        )
        self.end, theirs = socket.socketpair()
        for end in (self.end, theirs):
            end.setblocking(True)  # a time limit that a program sets for its sockets is not ours
        microseconds = round(self.message_within_s * 1e6)
        timeval = struct.pack("ll", *divmod(microseconds, 1_000_000))
        for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.end.setsockopt(socket.SOL_SOCKET, limit, timeval)
        whole = {**job, "fd": theirs.fileno(), "parent": os.getpid()}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's interpreter, our own code
                [interpreter, "-P", "-m", module, json.dumps(whole)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        except OSError:
            self.end.close()
            self._log.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wake(self) -> None:
        """Let it go on, should it be stopped; harmless once it has ended."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, within_s: float) -> int | None:
        """Sleep until it has ended; give its exit code, ``None`` if it still runs."""
        return wait_for(self._process, within_s)

    def last_exit(self) -> str:
        """Say how it ended, now that its channel has."""
        return how_it_ended(self.wait(_EXIT_WITHIN_S))

    def kill(self) -> None:
        """Kill it, whatever it does; harmless once it has ended."""
        self._process.kill()

    def printed(self) -> str:
        """Give the last that it printed, once or twice a screen at most."""
        if self._log.closed:
            return ""
        # pread leaves the file offset alone, which the child shares.
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return tail.decode(errors="replace").strip()

    def close(self, within_s: float) -> int | None:
        """Wait for it to end by itself, and kill it after ``within_s``; safe to call twice.

        Returns:
            Its exit code; ``None`` where the kernel holds on to it.
        """
        code = None
        self.wake()
        try:
            code = self.wait(within_s)
        finally:
            if code is None:
                self.kill()
                code = self.wait(GIVE_UP_S)
            self._log.close()
        return code


def same_modules() -> dict[str, str]:
    """Give the variable by which a child in this interpreter finds every module that we find.

    Names that only an import hook knows are put on its path by what put them on ours.
    """
    there = [str(Path(place).absolute()) for place in sys.path if Path(place).exists()]
    return {"PYTHONPATH": os.pathsep.join(there)}


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


def with_programs_of(interpreter: str, path: str) -> str:
    """Put the folder of an interpreter first on a search path, as an activated environment does.

    Engines look on ``PATH`` for what they compile kernels with, such as ninja, and take other
    kernels where it is not found. A path that has the folder already stays as it is: ``/usr/bin``
    must not come before what was put before it on purpose, such as a compiler.

    Args:
        interpreter: Path of a Python, or a command on that path.
        path: Value of ``PATH``.
    """
    program = shutil.which(interpreter, path=path)
    folder = "" if program is None else str(Path(program).absolute().parent)
    parts = path.split(os.pathsep) if path else []
    return path if folder in ("", *parts) else os.pathsep.join([folder, *parts])
