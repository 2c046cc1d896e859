"""A real Docker engine for tests: where none answers, they are skipped and say what starts one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.events import Callbacks, Outcome
from llenergymeasure.study.runners.docker import DockerJob, DockerRunner
from llenergymeasure.study.supervise import supervise
from tests.support.scripted_run import make_order, scripted_config

IMAGE = "LLEM_TEST_IMAGE"
"""Environment variable that names an image which can run this version."""

LONG_S = 600.0
HOUR = {"ttft_ms": 3.6e6, "itl_ms": 1.0}


def docker(*arguments: str, **options: Any) -> str:
    """Ask docker, which has to answer."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True, **options
    )
    return done.stdout.strip()


def image_or_skip() -> str:
    """Give the image to test with."""
    image = os.environ.get(IMAGE)
    if image is None:
        pytest.skip(f"{IMAGE} names no image; 'make test-docker' starts an engine and makes one")
    return image


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for a condition; give up after ten minutes."""
    deadline_s = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.05)


def exists(name: str) -> bool:
    """Tell whether a container is there, in whatever state."""
    return bool(docker("ps", "--all", "--quiet", "--filter", f"name=^{name}$"))


def is_running(name: str) -> bool:
    """Tell whether a container runs."""
    return bool(docker("ps", "--quiet", "--filter", f"name=^{name}$"))


@dataclass
class Containers:
    """Runs experiments in containers, with a folder of its own.

    Attributes:
        folder: Where experiments lie.
        image: What containers are made of.
    """

    folder: Path
    image: str
    runners: list[DockerRunner] = field(default_factory=list)

    def environ(self, options: str = "", **variables: str) -> dict[str, str]:
        """Give an environment with further options of docker run."""
        given = os.environ.get("LLEM_DOCKER_OPTIONS", "")
        hub = {"HF_HOME": str(self.folder / "hub"), "HF_HUB_OFFLINE": "1"}
        locks = {"LLEM_LOCK_DIR": str(self.folder)}
        every = {**os.environ, **hub, **locks, "LLEM_DOCKER_OPTIONS": f"{given} {options}"}
        return {**every, **variables}

    def runner(self, backend: str = "scripted", **options: Any) -> DockerRunner:
        """Make a runner that is closed at the end of the test."""
        settings = {"environ": self.environ(), **options}
        image = settings.pop("image", self.image)
        made = DockerRunner(image, backend, **settings)
        self.runners.append(made)
        return made

    def order(self, config: ExperimentConfig | None = None, **fields: Any) -> WorkOrder:
        """Make an order, for a short scripted experiment if no other is given."""
        return make_order(config or scripted_config(**fields), self.folder)

    def directory(self, order: WorkOrder, name: str = "one") -> ExperimentDirectory:
        """Make the directory of an experiment."""
        directory = ExperimentDirectory(self.folder / "results" / name)
        directory.root.mkdir(parents=True)
        directory.config.write_text(order.model_dump_json())
        return directory

    def start(
        self, runner: DockerRunner, **fields: Any
    ) -> tuple[DockerJob, ExperimentDirectory, WorkOrder]:
        """Start a scripted experiment."""
        order = self.order(**fields)
        directory = self.directory(order)
        return runner.start(directory), directory, order

    def run(
        self,
        runner: DockerRunner | None = None,
        order: WorkOrder | None = None,
        within_s: float = LONG_S,
    ) -> Outcome:
        """Run one experiment to its end; its container is gone then."""
        order = order or self.order()
        directory = self.directory(order)
        job = (runner or self.runner(order.config.backend)).start(directory)
        outcome = supervise(job, directory, order, Callbacks(), within_s=within_s).outcome
        assert not exists(job.name)
        return outcome

    def only_problem(self, runner: DockerRunner, order: WorkOrder | None = None) -> Problem:
        """Give the one problem that pre-flight finds."""
        (problem,) = runner.problems([order or self.order()])
        return problem


def measures(directory: ExperimentDirectory) -> bool:
    """Tell whether the worker of a directory has come to warm up or to measure."""
    if not directory.events.is_file():
        return False
    phases = {json.loads(line)["phase"] for line in directory.events.read_text().splitlines()}
    return bool(phases & {"warmup", "measure"})


def study_that_is_killed(directory: ExperimentDirectory, image: str) -> subprocess.Popen[str]:
    """Start a process that starts a container, tells its name, and waits."""
    code = f"""
        from pathlib import Path
        from llenergymeasure.results.layout import ExperimentDirectory
        from llenergymeasure.study.runners.docker import DockerRunner

        runner = DockerRunner({image!r}, "scripted")
        job = runner.start(ExperimentDirectory(Path({str(directory.root)!r})))
        print(job.name, flush=True)
        job.wait(86400)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
