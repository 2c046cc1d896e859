"""Each experiment in a container of its own, through the ``docker`` command."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from llenergymeasure._version import __version__
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.config.secrets import redact
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.exceptions import ExperimentError, Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.capture import tail
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners import container
from llenergymeasure.study.runners.docker_cli import DockerCommand, DockerError, translated
from llenergymeasure.study.runners.docker_job import DockerJob
from llenergymeasure.study.runners.protocol import PREFLIGHT_WITHIN_S
from llenergymeasure.study.runners.waiting import ended_within

HANDSHAKE_WITHIN_S = 300.0
"""The first container of an image reads it from the disk, which takes a while for tens of GB."""

_WORKER = "llenergymeasure.orchestration.worker"
_PROBE = "llenergymeasure.orchestration.probe"
_ASK_VERSION = "import llenergymeasure; print(llenergymeasure.__version__)"

_Arguments = Callable[[str], list[str]]
"""Gives the arguments of ``docker run`` for a container of a name."""


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
        self._docker = DockerCommand(os.environ if environ is None else environ)
        self._answer_within_s = answer_within_s
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

    def inventory(self) -> Inventory | Problem:
        """List the backends of the image, or say why no container of it can be used.

        Its containers see no folder, no GPU and no network.
        """
        try:
            return self._inventory()
        except DockerError as error:
            return self._problem(error.what, error.remedy)

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
        arguments = partial(self._arguments, orders=orders, folder=folder)
        if other := self._version_problem(arguments):
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

    def _inventory(self) -> Inventory | Problem:
        if other := self._version_problem(self._bare_arguments):
            return other
        said = self._answer(self._bare_arguments, "-m", inventory.MODULE)
        if isinstance(said, Problem):
            return said
        try:
            found = Inventory.model_validate_json(said)
        except ValidationError:
            return self._unfit("does not say which backends it has")
        return found.with_remedies(self._rebuild_line)

    def _version_problem(self, arguments: _Arguments) -> Problem | None:
        version = self._answer(arguments, "-c", _ASK_VERSION)
        if isinstance(version, Problem):
            return version
        if version != __version__:
            return self._unfit(f"has llenergymeasure {version}, and this is {__version__}")
        return None

    def _answer(self, arguments: _Arguments, *call: str) -> str | Problem:
        """Ask the image's interpreter something; give the last line that it prints."""
        done = self._ask(arguments, *call)
        said = done.stderr.strip()
        if "No module named 'llenergymeasure'" in said:
            return self._unfit("has no llenergymeasure")
        if done.returncode in (125, 126, 127):
            raise translated(said)
        if done.returncode:
            last = said.splitlines()[-1] if said else "it says nothing"
            return self._unfit(f"cannot run llenergymeasure ({last})")
        return done.stdout.strip().rpartition("\n")[2]

    def _ask(self, arguments: _Arguments, *call: str) -> subprocess.CompletedProcess[str]:
        name = _new_name()
        command = [*arguments(name), "-P", *call]
        try:
            return self._docker.run(*command, within_s=self._answer_within_s)
        except (DockerError, KeyboardInterrupt):  # a container does not end with its client
            self._docker.quietly("rm", "--force", name)
            raise

    def _unfit(self, why: str) -> Problem:
        return self._problem(f"the image {self._image} {why}", self._build_line(self._backend))

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

    def _bare_arguments(self, name: str) -> list[str]:
        return container.bare_arguments(name, self._look(), self._docker.environ)

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
