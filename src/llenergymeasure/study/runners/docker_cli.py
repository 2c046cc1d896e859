"""The ``docker`` command: asking it, and saying in plain words what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ANSWER_WITHIN_S = 60.0


class DockerError(Exception):
    """Docker cannot do what it is asked to.

    Attributes:
        what: What is wrong.
        remedy: What to type to mend it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what, self.remedy = what, remedy


class Image(NamedTuple):
    """An image that is here.

    Attributes:
        name: What the user calls it.
        id: Its content address on this machine, ``sha256:...``.
        digest: How its result names it: with the registry's digest, or the id of one built here.
    """

    name: str
    id: str
    digest: str


class Engine(NamedTuple):
    """What matters about the Docker engine.

    Attributes:
        rootless: It runs as the user, who is root inside a container.
        remapped: It gives the users of a container other numbers outside, unless told not to.
    """

    rootless: bool = False
    remapped: bool = False


class _Fault(NamedTuple):
    said: tuple[str, ...]
    what: str
    remedy: str


_FAULTS = (
    _Fault(
        ("permission denied while trying to connect",),
        "this user may not talk to the Docker daemon",
        "type: sudo usermod -aG docker $USER, and log in again",
    ),
    _Fault(
        ("Cannot connect to the Docker daemon", "failed to connect to the docker API"),
        "the Docker daemon does not answer",
        "start it: sudo systemctl start docker; if it runs elsewhere, set DOCKER_HOST",
    ),
    _Fault(
        ("could not select device driver", "nvidia-container", "unresolvable CDI devices"),
        "Docker cannot give a container the GPUs of this machine",
        "install the NVIDIA Container Toolkit, then: sudo nvidia-ctk runtime configure "
        "--runtime=docker && sudo systemctl restart docker; or set CUDA_VISIBLE_DEVICES to nothing "
        "to run without a GPU",
    ),
    _Fault(
        ("error setting rlimit",),
        "this Docker engine may not raise the limits of a container above those of its user",
        "remove --ulimit from LLEM_DOCKER_OPTIONS, or raise the user's limits: ulimit -l and "
        "ulimit -s, /etc/security/limits.conf",
    ),
    _Fault(
        ("bind source path does not exist",),
        "the Docker daemon does not see the files of this machine",
        "use a daemon that runs here and sees every folder; one from snap sees little more than "
        "the home folder",
    ),
    _Fault(
        ("executable file not found", "no such file or directory: unknown"),
        "the image has no python3 on its PATH",
        "use an image of the Dockerfiles in docker/, or install Python 3.11 or newer in yours",
    ),
)


def translated(said: str) -> DockerError:
    """Give the error for what docker has printed.

    Whatever is not known is passed on in docker's own words.
    """
    for fault in _FAULTS:
        if any(words in said for words in fault.said):
            return DockerError(f"{fault.what} (docker says: {_first_line(said)})", fault.remedy)
    return DockerError(
        f"docker refuses: {_first_line(said) or 'it says nothing'}",
        "mend what it names; LLEM_DOCKER_OPTIONS holds the options that are yours",
    )


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0].removeprefix("docker: ") if lines else ""


class DockerCommand:
    """The ``docker`` command of a user.

    Args:
        environ: The environment it runs in; ``PATH`` says where it is, ``DOCKER_HOST`` whom it
            asks.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = dict(environ)

    def path(self) -> str:
        """Find the command.

        Raises:
            DockerError: It is not on ``PATH``.
        """
        found = shutil.which("docker", path=self.environ.get("PATH", ""))
        if found is None:
            raise DockerError(
                "the command docker is not on PATH",
                "install Docker Engine, https://docs.docker.com/engine/install/, or use another "
                "runner",
            )
        return found

    def run(
        self, *arguments: str, within_s: float = ANSWER_WITHIN_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a docker command to its end.

        Raises:
            DockerError: There is no such command, or it did not end.
        """
        try:
            return subprocess.run(  # noqa: S603 - docker, with arguments that are ours or the user's
                [self.path(), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=within_s,
                env=self.environ,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DockerError(
                f"docker {arguments[0]} did not end within {within_s:g} s",
                "see whether 'docker info' answers; if not: sudo systemctl restart docker",
            ) from None

    def quietly(self, *arguments: str) -> None:
        """Run a docker command whose outcome nobody needs."""
        try:
            self.run(*arguments)
        except DockerError:
            return  # the daemon is gone; nothing is left to be told

    def launch(self, arguments: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        """Start a docker command whose input is held, out of reach of the terminal's Ctrl-C.

        Raises:
            DockerError: There is no such command.
            OSError: No process can be started.
        """
        return subprocess.Popen(  # noqa: S603 - docker, with arguments that are ours or the user's
            [self.path(), *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=self.environ,
            start_new_session=True,
        )

    def engine(self) -> Engine:
        """Ask the daemon what it is.

        Raises:
            DockerError: It does not answer.
        """
        done = self.run("info", "--format", "{{json .SecurityOptions}}")
        if done.returncode:
            raise translated(done.stderr)
        options = json.loads(done.stdout) or []
        kinds = {option.partition(",")[0] for option in options}
        return Engine("name=rootless" in kinds, "name=userns" in kinds)

    def image(self, name: str, remedy: str) -> Image:
        """Look an image up; nothing is pulled.

        Args:
            name: What the user calls it.
            remedy: How to come by it.

        Raises:
            DockerError: It is not here.
        """
        form = '{"id": {{json .Id}}, "digests": {{json .RepoDigests}}}'
        done = self.run("image", "inspect", "--format", form, name)
        if done.returncode:
            if "no such image" in done.stderr.lower():
                raise DockerError(f"the image {name} is not on this machine", remedy)
            raise translated(done.stderr)
        found = json.loads(done.stdout)
        repository, digests = name.partition("@")[0], found["digests"] or []
        own = [each for each in digests if repository.startswith(each.partition("@")[0])]
        return Image(name, found["id"], next(iter([*own, *digests]), found["id"]))
