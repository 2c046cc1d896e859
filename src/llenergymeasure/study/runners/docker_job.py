"""A worker in a container: waiting for it, and ending it for good."""

from __future__ import annotations

import subprocess
import time

from llenergymeasure.processes import wait_for
from llenergymeasure.study.runners.container_entry import INTERRUPT
from llenergymeasure.study.runners.docker_cli import DockerCommand
from llenergymeasure.study.runners.protocol import Start

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
            self._docker.quietly("kill", self.name)
            if self.wait(_KILL_AGAIN_S) is None and time.monotonic() > deadline_s:
                self._client.kill()

    def _let_go(self) -> None:
        """End the input of the container, which ends the container."""
        if self._client.stdin is not None:
            try:
                self._client.stdin.close()
            except OSError:
                return  # it has ended with a byte underway
