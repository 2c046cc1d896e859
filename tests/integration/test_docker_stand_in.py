"""The docker runner with a command in docker's place that runs containers as plain processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration.inventory import Inventory
from llenergymeasure.orchestration.order import Start
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners.docker import DockerRunner
from tests.support.cli import SOURCE
from tests.support.scripted_run import make_order, scripted_config

STAND_IN = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import json, os, sys

verb, *rest = sys.argv[1:]
if verb == "info":
    print("[]")
elif verb == "image":
    print(json.dumps({{"id": "sha256:0123", "digests": []}}))
elif verb == "run":
    os.environ["PYTHONPATH"] = {source!r}
    os.execv({python!r}, [{python!r}, *rest[rest.index("sha256:0123") + 1 :]])
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[DockerRunner]:
    command = tmp_path / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(STAND_IN.format(python=sys.executable, source=str(SOURCE)))
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "HF_HOME": str(tmp_path / "hub")}
    made = DockerRunner("mine", "scripted", environ=environ)
    yield made
    made.close()


def directory(folder: Path, config: ExperimentConfig) -> ExperimentDirectory:
    made = ExperimentDirectory(folder / "one")
    made.root.mkdir()
    made.config.write_text(make_order(config, folder).model_dump_json())
    return made


def test_problems_are_found_where_the_experiment_will_run(
    runner: DockerRunner, tmp_path: Path
) -> None:
    assert runner.problems([make_order(scripted_config(), tmp_path)]) == []

    absent = make_order(scripted_config(dataset=str(tmp_path / "nosuch.jsonl")), tmp_path)
    (problem,) = runner.problems([absent])
    assert problem.where == "dataset"


def test_the_backends_of_an_image_have_remedies_that_rebuild_it(runner: DockerRunner) -> None:
    found = runner.inventory()

    assert isinstance(found, Inventory)
    problems = [state.problem for state in found.backends if state.problem is not None]
    assert all("docker build" in problem.remedy for problem in problems)


def test_a_worker_leaves_its_result_and_says_how_it_was_started(
    runner: DockerRunner, tmp_path: Path
) -> None:
    there = directory(tmp_path, scripted_config())
    job = runner.start(there)

    assert job.wait(120) == 0, there.log.read_text()
    assert job.start == Start("docker")
    assert there.result.is_file()


def test_a_worker_that_is_killed_is_gone(runner: DockerRunner, tmp_path: Path) -> None:
    job = runner.start(directory(tmp_path, scripted_config(scripted={"ttft_ms": 3.6e6})))
    assert job.wait(0) is None
    job.kill()

    assert job.wait(0) == -signal.SIGKILL


def test_an_image_without_the_package_is_refused(runner: DockerRunner, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "docker"
    bare = command.read_text().replace(str(SOURCE), "").replace("*rest[", "'-S', *rest[")
    command.write_text(bare)
    (problem,) = runner.problems([make_order(scripted_config(), tmp_path)])

    assert problem == Problem(
        "the image mine has no llenergymeasure", "runners.scripted", problem.remedy
    )
    assert "docker/pytorch.Dockerfile" in problem.remedy
