"""Each experiment in a container of its own, through the ``docker`` command."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from llenergymeasure._version import __version__
from llenergymeasure.config.secrets import redact
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.exceptions import ExperimentError, Problem
from llenergymeasure.orchestration.capture import tail
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners import container
from llenergymeasure.study.runners.container_entry import INTERRUPT
from llenergymeasure.study.runners.docker_cli import DockerCommand, DockerError, translated
from llenergymeasure.study.runners.protocol import PREFLIGHT_WITHIN_S, Start
from llenergymeasure.study.runners.waiting import ended_within

HANDSHAKE_WITHIN_S = 300.0
"""The first container of an image reads it from the disk, which takes a while for tens of GB."""

_WORKER = "llenergymeasure.orchestration.worker"
_PROBE = "llenergymeasure.orchestration.probe"
_ASK_VERSION = "import llenergymeasure; print(llenergymeasure.__version__)"
_DOCKERFILES = ("pytorch", "vllm", "tensorrt")

_KILL_AGAIN_S = 5.0
_GIVE_UP_S = 120.0
_INTERRUPTED = 130


class DockerJob:
    """A worker in a container; see the protocol for the contract.

    Args:
        docker: The docker command.
        name: Name of the container.
        client: ``docker run``, which lives as long as the container.
    """

    def __init__(self, docker: DockerCommand, name: str, client: subprocess.Popen[bytes]) -> None:
        self._docker, self._client, self.name = docker, client, name
        self._ended = _process_descriptor(client.pid)
        self._code: int | None = None

    @property
    def start(self) -> Start:
        """How it was started."""
        return Start("docker")

    def wait(self, timeout_s: float) -> int | None:
        """Sleep until the container is gone, but no longer than ``timeout_s``, without polling.

        Returns:
            The worker's exit code, negative for a signal; 125 where docker could not start it,
            for which the log says why.
        """
        if self._code is None and self._client_ended(timeout_s):
            self._code = self._take_leave()
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
            self._quietly("kill", self.name)
            if self.wait(_KILL_AGAIN_S) is None and time.monotonic() > deadline_s:
                self._client.kill()

    def _client_ended(self, timeout_s: float) -> bool:
        if self._ended is None:
            return _ends_within(self._client, timeout_s)
        poll = select.poll()
        poll.register(self._ended, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1e3))

    def _take_leave(self) -> int:
        code = self._client.wait()
        self._let_go()
        if self._ended is not None:
            os.close(self._ended)
        if code < 0:  # somebody killed the client, and the container may be on its way out still
            self._quietly("rm", "--force", self.name)
        return 128 - code if code > 128 and code != _INTERRUPTED else code

    def _let_go(self) -> None:
        """End the input of the container, which ends the container."""
        if self._client.stdin is not None:
            try:
                self._client.stdin.close()
            except OSError:
                return  # it has ended with a byte underway

    def _quietly(self, *arguments: str) -> None:
        try:
            self._docker.run(*arguments)
        except DockerError:
            return  # the daemon is gone; nothing is left to be told


class DockerRunner:
    """Runs each worker in a fresh container, which is gone when the worker ends.

    Args:
        image: Name of the image; it needs this version of the package and is never pulled.
        backend: Whose experiments run in it.
        environ: Environment; by default the process's own.
        gpus: Lists the GPUs of this machine; containers get them all, and ``CUDA_VISIBLE_DEVICES``.
    """

    def __init__(
        self,
        image: str,
        backend: str,
        environ: Mapping[str, str] | None = None,
        gpus: Callable[[], GPUSurvey] = survey_gpus,
    ) -> None:
        self._image, self._backend, self._gpus = image, backend, gpus
        self._docker = DockerCommand(os.environ if environ is None else environ)
        self._place: container.Place | None = None
        self._job: DockerJob | None = None

    def problems(self, orders: Sequence[WorkOrder]) -> list[Problem]:
        """List what stops these experiments: first docker and the image, then each experiment."""
        with tempfile.TemporaryDirectory(prefix="llem-preflight-") as folder:
            try:
                return self._problems(orders, Path(folder))
            except DockerError as error:
                return [self._problem(error.what, error.remedy)]
            except OSError as error:
                what = f"cannot use {error.filename}: {error.strerror}"
                return [self._problem(what, "let output.model_cache_dir name a folder of yours")]

    def start(self, directory: ExperimentDirectory) -> DockerJob:
        """Start a container whose worker runs a directory that holds ``config.json``.

        Raises:
            ExperimentError: It cannot be started.
        """
        root = directory.root.absolute()
        try:
            order = WorkOrder.model_validate_json(directory.config.read_bytes())
            return self._start([order], root, directory.log, (_WORKER, str(root), "docker"))
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

    def _problem(self, what: str, remedy: str) -> Problem:
        return Problem(what, f"runners.{self._backend}", remedy)

    def _problems(self, orders: Sequence[WorkOrder], folder: Path) -> list[Problem]:
        if other := self._version_problem(orders, folder):
            return [other]
        asked, answer, log = (folder / name for name in ("orders", "problems", "log"))
        lines = dict.fromkeys(order.model_dump_json() for order in orders)
        asked.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        job = self._start(orders, folder, log, (_PROBE, str(asked), str(answer)))
        code = ended_within(job, PREFLIGHT_WITHIN_S)
        if answer.is_file():
            return [Problem(**fields) for fields in json.loads(answer.read_bytes())]
        said = redact(tail(log))
        how = f"ended with exit code {code}"
        if code is None:
            how = f"took longer than {PREFLIGHT_WITHIN_S:g} s and was ended"
        what = f"looking for problems in the container {how}:\n{said}"
        return [self._problem(what, "mend what is named there")]

    def _version_problem(self, orders: Sequence[WorkOrder], folder: Path) -> Problem | None:
        arguments = self._arguments(_new_name(), orders, folder)
        done = self._docker.run(*arguments, "-P", "-c", _ASK_VERSION, within_s=HANDSHAKE_WITHIN_S)
        said = done.stderr.strip()
        if "No module named 'llenergymeasure'" in said:
            return self._unfit("has no llenergymeasure")
        if done.returncode in (125, 126, 127):
            raise translated(said)
        if done.returncode:
            last = said.splitlines()[-1] if said else "it says nothing"
            return self._unfit(f"cannot run llenergymeasure ({last})")
        version = done.stdout.strip().rpartition("\n")[2]
        if version != __version__:
            return self._unfit(f"has llenergymeasure {version}, and this is {__version__}")
        return None

    def _unfit(self, why: str) -> Problem:
        return self._problem(f"the image {self._image} {why}", self._build_line())

    def _build_line(self) -> str:
        if self._backend not in _DOCKERFILES:
            return (
                f"build it with 'RUN python3 -m pip install llenergymeasure=={__version__}' and "
                "what the backend needs"
            )
        return (
            f"build it in a checkout of llenergymeasure {__version__}: docker build "
            f"-f docker/{self._backend}.Dockerfile -t {self._image} ."
        )

    def _look(self) -> container.Place:
        if self._place is None:
            remedy = f"docker pull {self._image}, if a registry has it; or {self._build_line()}"
            engine = self._docker.engine()
            image = self._docker.image(self._image, remedy)
            self._place = container.Place(image, engine, self._wants_gpus())
        return self._place

    def _wants_gpus(self) -> bool:
        visible = self._docker.environ.get("CUDA_VISIBLE_DEVICES")
        return visible not in ("", "-1") and bool(self._gpus().gpus)

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


def _new_name() -> str:
    return f"llem-{uuid.uuid4().hex[:12]}"


def _process_descriptor(pid: int) -> int | None:
    """Open a descriptor that is readable once a child has ended; ``None`` where there is none."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3
        return None


def _ends_within(client: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        client.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True
