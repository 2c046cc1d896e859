"""Each experiment in a container of its own, through the ``docker`` command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from llenergymeasure import temporary
from llenergymeasure._version import __version__
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.exceptions import ExperimentError, Problem
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import Start, WorkOrder
from llenergymeasure.processes import GIVE_UP_S, wait_for
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners import container
from llenergymeasure.study.runners.container_entry import INTERRUPT
from llenergymeasure.study.runners.docker_cli import DockerCommand, DockerError, translated
from llenergymeasure.study.runners.elsewhere import Elsewhere, problems_there
from llenergymeasure.study.runners.protocol import WORKER

HANDSHAKE_WITHIN_S = 300.0
"""The first container of an image reads it from the disk, which takes a while for tens of GB."""

_Arguments = Callable[[str], list[str]]
"""Gives the arguments of ``docker run`` for a container of a name."""

_KILL_AGAIN_S = 5.0
_GIVE_UP_S = 120.0
_INTERRUPTED = 130


class DockerRunner:
    """Runs each worker in a fresh container, which is gone when the worker ends.

    Args:
        image: Name of the image; it needs this version of the package and is never pulled.
        backend: Whose experiments run in it.
        environ: Environment; by default the process's own.
        gpus: Lists the GPUs of this machine; containers get them all, and ``CUDA_VISIBLE_DEVICES``.
        answer_within_s: Longest time for a container that only answers a question, s.
    """

    def __init__(
        self,
        image: str,
        backend: str,
        environ: Mapping[str, str] | None = None,
        gpus: Callable[[], GPUSurvey] = survey_gpus,
        answer_within_s: float = HANDSHAKE_WITHIN_S,
    ) -> None:
        self._image, self._backend, self._gpus = image, backend, gpus
        self._where = f"runners.{backend}"
        self._docker = DockerCommand(os.environ if environ is None else environ)
        self._answer_within_s = answer_within_s
        self._place: container.Place | None = None
        self._job: DockerJob | None = None

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments: first docker and the image, then each experiment."""
        with temporary.folder("preflight") as folder:

            def start(module: str, arguments: tuple[str, ...], log: Path) -> DockerJob:
                return self._start(orders, folder, log, (module, *arguments))

            try:
                arguments = partial(self._arguments, orders=orders, folder=folder)
                if other := self._elsewhere(arguments).version_problem():
                    return [other]
                return problems_there(start, orders, folder, self._where)
            except DockerError as error:
                return [Problem(error.what, self._where, error.remedy)]
            except OSError as error:
                what = f"cannot use {error.filename}: {error.strerror}"
                remedy = "let output.model_cache_dir name a folder of yours"
                return [Problem(what, self._where, remedy)]

    def inventory(self) -> Inventory | Problem:
        """List the backends of the image, or say why no container of it can be used.

        Its containers see no folder, no GPU and no network.
        """

        def bare(name: str) -> list[str]:
            return container.bare_arguments(name, self._look(), self._docker.environ)

        try:
            return self._elsewhere(bare).inventory(self._rebuild_line)
        except DockerError as error:
            return Problem(error.what, self._where, error.remedy)

    def start(self, directory: ExperimentDirectory) -> DockerJob:
        """Start a container whose worker runs a directory that holds ``config.json``.

        Raises:
            ExperimentError: It cannot be started.
        """
        root = directory.root.absolute()
        try:
            order = WorkOrder.model_validate_json(directory.config.read_bytes())
            return self._start([order], root, directory.log, (WORKER, str(root), "docker"))
        except (DockerError, OSError) as error:
            raise ExperimentError(
                f"no container can be started for the experiment: {error}",
                where="start",
                cause=str(error),
            ) from None

    def close(self) -> None:
        """End what still runs; no container is left."""
        if self._job is not None:
            self._job.kill()

    def _elsewhere(self, arguments: _Arguments) -> Elsewhere:
        """Give what can be asked of the image's interpreter, each time in a container of its own.

        Asking raises :class:`DockerError` where docker cannot run one.
        """
        name, install = f"the image {self._image}", self._build_line(self._backend)

        def run(*call: str) -> subprocess.CompletedProcess[str]:
            container_name = _new_name()
            command = [*arguments(container_name), "-P", *call]
            try:
                done = self._docker.run(*command, within_s=self._answer_within_s)
            except (DockerError, KeyboardInterrupt):  # a container does not end with its client
                self._docker.quietly("rm", "--force", container_name)
                raise
            if done.returncode in (125, 126, 127):
                raise translated(done.stderr.strip())
            return done

        def otherwise(reason: str) -> Problem:
            return Problem(f"{name} cannot be used: {reason}", self._where, install)

        return Elsewhere(name, self._where, run, install, otherwise)

    def _build_line(self, backend: str) -> str:
        if not backend_entry(backend).has_dockerfile:
            return (
                f"build it from a checkout of llenergymeasure {__version__}, as "
                "docker/pytorch.Dockerfile is, with what the backend needs"
            )
        return (
            f"build it in a checkout of llenergymeasure {__version__}: docker build "
            f"-f docker/{backend}.Dockerfile -t {self._image} ."
        )

    def _rebuild_line(self, backend: str, remedy: str) -> str:
        if not backend_entry(backend).has_dockerfile and remedy.startswith("pip "):
            return f'build it with "RUN python3 -m {remedy}"'
        return self._build_line(backend)

    def _look(self) -> container.Place:
        if self._place is None:
            build = self._build_line(self._backend)
            remedy = f"docker pull {self._image}, if a registry has it; or {build}"
            engine = self._docker.engine()
            image = self._docker.image(self._image, remedy)
            hidden = self._docker.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
            gpus = not hidden and bool(self._gpus().gpus)
            self._place = container.Place(image, engine, gpus)
        return self._place

    def _arguments(self, name: str, orders: Iterable[WorkOrder], folder: Path) -> list[str]:
        place, environ, orders = self._look(), self._docker.environ, list(orders)
        mounts = container.mounts(orders, folder, place.image, environ)
        home = container.home(orders[0], place.image)
        return container.run_arguments(name, place, home, mounts, environ)

    def _start(
        self, orders: Sequence[WorkOrder], folder: Path, log: Path, call: tuple[str, ...]
    ) -> DockerJob:
        name = _new_name()
        arguments = [*self._arguments(name, orders, folder), "-P", "-m", container.ENTRY, *call]
        with log.open("ab") as output:
            client = self._docker.launch(arguments, output.fileno())
        self._job = DockerJob(self._docker, name, client)
        return self._job


class DockerJob:
    """A worker in a container; see the protocol for the contract.

    Args:
        docker: The docker command.
        name: Name of the container.
        client: ``docker run``, which lives as long as the container.

    Attributes:
        start: How it was started.
        fate: Nothing but its exit code tells.
    """

    start = Start("docker")
    fate = None

    def __init__(self, docker: DockerCommand, name: str, client: subprocess.Popen[bytes]) -> None:
        self._docker, self._client, self.name = docker, client, name
        self._code: int | None = None

    def wait(self, timeout_s: float) -> int | None:
        """Sleep until the container is gone, but no longer than ``timeout_s``, without polling.

        Returns:
            The worker's exit code, negative for a signal; 125 where docker could not start it,
            for which the log says why.
        """
        if self._code is None and (code := wait_for(self._client, timeout_s)) is not None:
            self._let_go()
            if code < 0:  # the client was killed, and the container may be on its way out still
                self._docker.quietly("rm", "--force", self.name)
            killed = code > 128 and code != _INTERRUPTED
            self._code = 128 - code if killed else code
        return self._code

    def interrupt(self) -> None:
        """Send the worker SIGINT, as soon as it is there; harmless once it has ended."""
        if self._code is None and self._client.stdin is not None:
            try:
                self._client.stdin.write(INTERRUPT)
                self._client.stdin.flush()
            except (OSError, ValueError):
                return  # it has ended, or it is being killed

    def kill(self) -> None:
        """Kill the container with everything in it; it is gone on return."""
        deadline_s = time.monotonic() + _GIVE_UP_S
        self._let_go()
        while self.wait(0) is None:
            # A container that is only being made has no name yet; it ends when it starts, since
            # its input has ended.
            self._client.send_signal(signal.SIGCONT)  # it may be stopped
            self._docker.quietly("kill", self.name)
            if self.wait(_KILL_AGAIN_S) is None and time.monotonic() > deadline_s:
                self._client.kill()
                if self.wait(GIVE_UP_S) is None:  # the kernel holds on to it
                    self._code = -signal.SIGKILL

    def _let_go(self) -> None:
        """End the input of the container, which ends the container."""
        if self._client.stdin is not None:
            try:
                self._client.stdin.close()
            except OSError:
                return  # it has ended with a byte underway


def _new_name() -> str:
    return f"llem-{uuid.uuid4().hex[:12]}"
