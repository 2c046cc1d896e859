"""The small process between a study and its workers: it starts them, and answers for their end.

It is ``python -m llenergymeasure.study.runners.fork_server JOB``. With a backend it imports the
engine once, and its workers are forked from it; without, they are spawned. A forked one should
compute as a spawned one does, with random numbers of its own. It runs one worker at a time.
Whatever a worker leaves behind when it ends is killed; when the parent ends, everything is, and the
server with it.

Requests and answers are JSON lines over a socket:

    {"do": "start", "number", "method", "module", "arguments", "log", "folder", "interpreter"}
        -> {"number", "started": true} or {"number", "refused": why}
    {"do": "interrupt", "number"}, {"do": "kill", "number"}
    -> {"number", "ended": exit code} once it has ended, and once more for every later request
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import psutil

from llenergymeasure import lifeline, processes
from llenergymeasure.config.registry import backend_entry, plugin_backends
from llenergymeasure.core.environment import software
from llenergymeasure.domain import Record
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.study.runners.server_process import Channel, Message

Entry = Callable[[], int]

OWN_MODULES = (
    "llenergymeasure.orchestration.worker",
    "llenergymeasure.orchestration.preflight",
    "numpy.random",
    "pynvml",  # Python alone; it loads no driver before it is asked to
)
_WHILE_IMPORTING = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch.cuda.is_available() without cuInit
}
_NOT_INITIALISED = 3  # CUDA_ERROR_NOT_INITIALIZED
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Worker(NamedTuple):
    """The worker that runs or ran last.

    Attributes:
        number: What the parent calls it.
        pid: Its process and process group.
        code: Exit code, negative for a signal; ``None`` while it runs.
    """

    number: int
    pid: int
    code: int | None = None


class Server:
    """Serves one parent.

    Args:
        channel: The socket to the parent.
        parent: Process id of the parent.
    """

    def __init__(self, channel: Channel, parent: int) -> None:
        self._channel = channel
        self._worker: Worker | None = None
        self._told_to_end = False
        # The socket tells of the parent's end too, unless another child of it has inherited that.
        descriptor = lifeline.descriptor_of(parent)
        self._parent = [] if descriptor is None else [descriptor]
        self._wakeup, sender = os.pipe()
        self._descriptors = [self._wakeup, sender, *self._parent]
        for descriptor in (self._wakeup, sender):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # having a handler, it writes to that
        signal.signal(signal.SIGTERM, self._end)

    def serve(self) -> Entry | None:
        """Serve until told to end; in a forked child, give what it is to run.

        Raises:
            EOFError: The parent is gone.
        """
        with selectors.PollSelector() as selector:
            for descriptor in (self._channel.fileno(), self._wakeup, *self._parent):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._wakeup in ready:
                    os.read(self._wakeup, 4096)
                codes = dict(processes.reaped())
                if self._running and self._worker and self._worker.pid in codes:
                    processes.end_children()  # whatever it left behind
                    self._ended(codes)
                if self._told_to_end or ready & set(self._parent):
                    return None
                while (message := self._channel.receive(0)) is not None:
                    if (entry := self._answer(message)) is not None:
                        return entry

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True

    @property
    def _running(self) -> bool:
        return self._worker is not None and self._worker.code is None

    def _ended(self, codes: dict[int, int]) -> None:
        assert self._worker is not None
        # Without a code the kernel holds on to it, as it does to one stuck in a driver.
        code = codes.get(self._worker.pid, -signal.SIGKILL)
        self._worker = self._worker._replace(code=code)
        self._tell_code()

    def _tell_code(self) -> None:
        assert self._worker is not None
        self._channel.send(number=self._worker.number, ended=self._worker.code)

    def _answer(self, message: Message) -> Entry | None:
        if message["do"] == "start":
            return self._start(message)
        if self._worker is None or self._worker.number != message["number"]:
            return None
        if not self._running:
            self._tell_code()
        elif message["do"] == "interrupt":
            os.kill(self._worker.pid, signal.SIGINT)  # not reaped yet, so the number is still its
            os.kill(self._worker.pid, signal.SIGCONT)  # it may be stopped
        else:
            self._ended(processes.end_children())
        return None

    def _start(self, request: Message) -> Entry | None:
        reason = reason_not_to_fork() if request["method"] == "fork" else None
        if reason is not None:
            self._channel.send(number=request["number"], refused=reason)
            return None
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            return self._become(request, server)
        self._worker = Worker(request["number"], pid)
        self._channel.send(number=request["number"], started=True)
        return None

    def _become(self, request: Message, server: int) -> Entry:
        """Turn this child into a worker: nothing of the server's stays open or in force."""
        os.setsid()
        lifeline.die_with(server)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._channel.close()
        _redirect(request["log"])
        os.chdir(request["folder"])
        if request["method"] == "spawn":
            _execute(request)
        put_right()
        entry: Callable[[list[str]], int] = importlib.import_module(request["module"]).main
        return functools.partial(entry, request["arguments"])


def preload(backend: str) -> None:
    """Import the worker and the engine of a backend; what is not installed is left out.

    Nothing of it is collected as garbage, then or in a worker: a collection would visit every
    object of the engine, and so copy every page of it.
    """
    gc.disable()
    with processes.variables(_WHILE_IMPORTING):
        entry = backend_entry(backend)  # imports the package of a third party's
        implementation = entry.implementation.partition(":")[0]
        for module in filter(None, (*OWN_MODULES, *entry.preload, implementation)):
            with contextlib.suppress(ImportError):  # the worker says what is missing, and how
                importlib.import_module(module)
    software()  # from here on what every worker would do for its first result
    with contextlib.suppress(ConfigError):  # the worker says which plugin is broken
        plugin_backends()
    for model in _subclasses(Record):
        model.model_rebuild()
    for path in _loaded("openblas"):
        # It does so itself before a fork, and starts its threads anew when they are first needed.
        end_threads = getattr(ctypes.CDLL(path), "blas_thread_shutdown_", None)
        if end_threads is not None:  # else they keep the process from being forked
            end_threads()
    gc.freeze()
    gc.enable()


def _subclasses(model: type[Record]) -> Iterator[type[Record]]:
    for each in model.__subclasses__():
        yield each
        yield from _subclasses(each)


def reason_not_to_fork() -> str | None:
    """Say why a child forked from this process could not work, or ``None`` when it can."""
    if sys.platform != "linux":
        return "processes are forked on Linux only"
    if (count := psutil.Process().num_threads()) != 1:
        return f"importing the engine left {count} threads, which a fork does not survive"
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or _driver_initialised():
        return "importing the engine initialised CUDA, which a fork does not survive"
    return None


def _driver_initialised() -> bool:
    """Ask the CUDA driver itself, where it is loaded: torch does not see another one's cuInit."""
    for path in _loaded("libcuda.so"):
        context = ctypes.c_void_p()
        if ctypes.CDLL(path).cuCtxGetCurrent(ctypes.byref(context)) != _NOT_INITIALISED:
            return True
    return False


def put_right() -> None:
    """Undo, in a forked child, what would set it apart from a spawned one.

    Python's own generator seeds itself anew after a fork, torch's starts alike in every process.
    """
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _loaded(name: str) -> list[str]:
    """List the shared libraries in this process whose file name contains ``name``."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    return sorted(path for path in paths if name in Path(path).name and Path(path).is_file())


def _redirect(log: str) -> None:
    """Send what is printed, from native code too, to a file, which never makes it wait."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:  # the worker says that it cannot write there
        output = os.dup(null)
    for descriptor, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    os.close(null)
    os.close(output)


def _execute(request: Message) -> None:
    """Replace this process by a fresh interpreter, which ends with 127 if it cannot be."""
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    interpreter = request["interpreter"]
    command = [interpreter, "-P", "-m", request["module"], *request["arguments"]]
    try:
        os.execvp(interpreter, command)  # noqa: S606 - the interpreter that the user chose
    except OSError as error:
        os.write(2, f"cannot run {interpreter}: {error.strerror}\n".encode())
        os._exit(127)


def _end_with_socket(end: socket.socket, active: bool) -> None:
    """Have the kernel end this process when something happens to a socket, or no longer.

    While an engine is imported nobody listens, and all that can happen is that the parent ends.
    """
    if sys.platform != "linux":
        return
    flags = fcntl.fcntl(end, fcntl.F_GETFL) & ~os.O_ASYNC
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, fcntl.F_SETFL, flags | os.O_ASYNC if active else flags)
    if active and select.select([end], [], [], 0)[0]:  # it ended before the kernel was told
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Run as a process of its own, or go on as a worker that was forked from it."""
    job = json.loads(arguments[0])
    parent, backend = job["parent"], job["backend"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    leave = _QuickExit()
    atexit.register(leave)  # before the engine's handlers, and so called after them
    lifeline.adopt_orphans()
    lifeline.die_with(parent, signal.SIGCONT)
    end = socket.socket(fileno=job["fd"])
    if backend is not None:
        _end_with_socket(end, active=True)
        preload(backend)
        _end_with_socket(end, active=False)
    entry, channel = None, Channel(end)
    with contextlib.suppress(EOFError):  # the parent left while it was being told something
        channel.send(ready=True)
        entry = Server(channel, parent).serve()
    if entry is None:
        processes.end_children()
    leave.code = 0 if entry is None else entry()
    return leave.code


class _QuickExit:
    """Ends this process after its exit handlers, without taking the engine apart.

    In a forked worker, that would write to, and so copy, most of what it shares with the server.

    Attributes:
        code: The exit code; ``None`` where an exception ends it.
    """

    code: int | None = None

    def __call__(self) -> None:
        if self.code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
