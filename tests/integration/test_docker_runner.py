"""Experiments in containers, on a real Docker engine: ``make test-docker`` starts one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.gpu_survey import GPUSurvey
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration.inventory import Inventory, take
from llenergymeasure.study.runners.docker import DockerRunner
from tests.support.cli import Llem
from tests.support.containers import (
    HOUR,
    LONG_S,
    Containers,
    docker,
    exists,
    image_or_skip,
    is_running,
    measures,
    study_that_is_killed,
    wait_until,
)

ONE_GPU = GPUSurvey(gpus=(GPUInfo(index=0, uuid="GPU-1", name="a GPU"),))


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    """Run experiments in containers, of which none is left at the end."""
    made = Containers(tmp_path, image_or_skip())
    yield made
    for runner in made.runners:
        runner.close()
    assert docker("ps", "--all", "--quiet", "--filter", "name=^llem-") == ""


def succeeded(outcome: object) -> ExperimentResult:
    assert isinstance(outcome, ExperimentResult), outcome
    return outcome


def failed(outcome: object) -> FailedExperiment:
    assert isinstance(outcome, FailedExperiment), outcome
    return outcome


def test_an_experiment_runs_in_a_container_and_its_files_are_the_users(
    containers: Containers,
) -> None:
    result = succeeded(containers.run())
    assert result.resolved.start_method == "docker"
    assert result.throughput.output_tokens == 12
    left = list((containers.folder / "results" / "one").iterdir())
    assert {path.name for path in left} >= {"result.json", "requests.parquet", "log.txt"}
    assert {path.stat().st_uid for path in left} == {os.getuid()}


def test_the_result_names_the_image_by_its_content(containers: Containers) -> None:
    named = succeeded(containers.run()).environment.container_image
    assert named == docker("image", "inspect", "--format", "{{.Id}}", containers.image)


def test_pytorch_generates_in_a_container_and_keeps_its_caches_outside(
    containers: Containers,
) -> None:
    config = ExperimentConfig(
        model="random:tiny-llama",
        n=2,
        max_new_tokens=4,
        precision="fp32",
        pytorch={"device": "cpu"},  # type: ignore[arg-type]
        warmup={"n_warmup": 1},  # type: ignore[arg-type]
    )
    order = containers.order(config)
    runner = containers.runner("pytorch")
    assert runner.problems([order]) == []
    result = succeeded(containers.run(runner, order))
    assert result.throughput.output_tokens == 8
    assert list((containers.folder / "cache" / "random").iterdir())


def test_local_models_and_prompts_are_seen_inside_wherever_they_lie(
    containers: Containers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    prompts = tmp_path_factory.mktemp("a folder, with a comma") / "mine.jsonl"
    prompts.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    order = containers.order(n=2, dataset=str(prompts))
    runner = containers.runner()
    assert runner.problems([order]) == []
    result = succeeded(containers.run(runner, order))
    assert result.resolved.dataset.name == str(prompts)


def test_a_time_out_kills_the_container(containers: Containers) -> None:
    order = containers.order(scripted=HOUR)
    failure = failed(containers.run(order=order, within_s=3))
    assert failure.code == "timeout"


def test_an_interrupt_ends_the_experiment_in_good_order(containers: Containers) -> None:
    job, directory, _ = containers.start(containers.runner(), scripted=HOUR)
    wait_until(lambda: measures(directory))
    job.interrupt()
    assert job.wait(LONG_S) == 130
    failure = FailedExperiment.model_validate_json(directory.error.read_bytes())
    assert failure.code == "interrupted"
    job.interrupt()
    job.kill()


def test_an_interrupt_reaches_a_container_that_is_only_being_made(containers: Containers) -> None:
    job, directory, _ = containers.start(containers.runner(), scripted=HOUR)
    job.interrupt()
    assert job.wait(LONG_S) not in (0, None)
    assert not directory.result.exists()
    assert not exists(job.name)


def test_a_kill_reaches_a_container_that_is_only_being_made(containers: Containers) -> None:
    job, _, _ = containers.start(containers.runner(), scripted=HOUR)
    job.kill()
    assert job.wait(0) == -signal.SIGKILL
    assert not exists(job.name)


def test_a_container_that_is_killed_from_outside_is_a_killed_worker(
    containers: Containers,
) -> None:
    job, directory, _ = containers.start(containers.runner(), scripted=HOUR)
    wait_until(lambda: measures(directory))
    worker = _worker(job.name)
    docker("kill", job.name)
    assert job.wait(LONG_S) == -signal.SIGKILL
    assert not psutil.pid_exists(worker)


def test_a_worker_that_is_killed_inside_is_a_killed_worker(containers: Containers) -> None:
    job, directory, _ = containers.start(containers.runner(), scripted=HOUR)
    wait_until(lambda: measures(directory))
    kill = "import os, pathlib, sys; os.kill(int(sys.argv[1]), 9)"
    docker("exec", job.name, "python3", "-c", kill, str(_worker(job.name)))
    assert job.wait(LONG_S) == -signal.SIGKILL


def _worker(name: str) -> int:
    """Find the worker; containers have the process ids of their host."""
    first = int(docker("inspect", "--format", "{{.State.Pid}}", name))
    (worker,) = psutil.Process(first).children()
    return worker.pid


def test_a_container_that_leaves_nothing_is_said_to(containers: Containers) -> None:
    runner = containers.runner(environ=containers.environ("--entrypoint true"))
    assert failed(containers.run(runner)).code == "no_result"


def test_what_docker_refuses_at_the_start_is_in_the_failure(containers: Containers) -> None:
    runner = containers.runner(environ=containers.environ("--runtime nonsense"))
    failure = failed(containers.run(runner))
    assert failure.code == "no_result"
    assert "nonsense" in (failure.log_tail or "")


def test_no_container_outlives_a_study_that_is_killed(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in containers.environ().items():
        monkeypatch.setenv(name, value)
    directory = containers.directory(containers.order(scripted=HOUR))
    study = study_that_is_killed(directory, containers.image)
    assert study.stdout is not None
    name = study.stdout.readline().strip()
    wait_until(lambda: measures(directory))
    assert is_running(name)
    study.kill()
    study.communicate()
    wait_until(lambda: not exists(name))


def test_no_container_outlives_its_client(containers: Containers) -> None:
    job, directory, _ = containers.start(containers.runner(), scripted=HOUR)
    wait_until(lambda: measures(directory))
    (client,) = [each for each in psutil.Process().children() if job.name in each.cmdline()]
    client.kill()
    assert job.wait(LONG_S) == -signal.SIGKILL
    wait_until(lambda: not exists(job.name))


def test_a_container_that_runs_out_of_memory_is_a_killed_worker(containers: Containers) -> None:
    limits = "--memory 24m --memory-swap 24m"
    runner = containers.runner(environ=containers.environ(limits))
    failure = failed(containers.run(runner))
    assert failure.code == "killed"
    assert "memory" in failure.message


def test_a_token_reaches_the_worker_but_no_command_line_and_no_file(
    containers: Containers,
) -> None:
    secret = "hf_" + "x" * 34
    environ = containers.environ(HF_TOKEN=secret)
    job, directory, _ = containers.start(containers.runner(environ=environ), scripted=HOUR)
    wait_until(lambda: measures(directory))
    (client,) = [each for each in psutil.Process().children() if job.name in each.cmdline()]
    assert secret not in " ".join(client.cmdline())
    assert f"HF_TOKEN={secret}" in docker("inspect", "--format", "{{.Config.Env}}", job.name)
    job.kill()
    for path in directory.root.iterdir():
        assert secret.encode() not in path.read_bytes()


def test_an_image_that_is_not_here_is_named_with_the_lines_that_bring_it(
    containers: Containers,
) -> None:
    problem = containers.only_problem(containers.runner("vllm", image="nosuch/image:9"))
    assert problem.what == "the image nosuch/image:9 is not on this machine"
    assert "docker pull nosuch/image:9" in problem.remedy
    assert "docker build -f docker/vllm.Dockerfile -t nosuch/image:9 ." in problem.remedy
    assert problem.where == "runners.vllm"


def test_an_image_with_another_version_is_refused(containers: Containers) -> None:
    package = containers.folder / "other" / "llenergymeasure"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.0.0"')
    options = f"-v {package.parent}:{package.parent}:ro --env PYTHONPATH={package.parent}"
    runner = containers.runner("vllm", environ=containers.environ(options))
    problem = containers.only_problem(runner)
    assert "has llenergymeasure 1.0.0" in problem.what
    assert "docker/vllm.Dockerfile" in problem.remedy


def test_an_image_without_the_package_is_refused(containers: Containers) -> None:
    options = f"--env PYTHONPATH= --env PATH={sys.base_prefix}/bin"
    runner = containers.runner(environ=containers.environ(options))
    assert "has no llenergymeasure" in containers.only_problem(runner).what


def test_an_image_without_python_is_refused(containers: Containers) -> None:
    runner = containers.runner(environ=containers.environ("--env PATH=/nowhere"))
    assert "no python3" in containers.only_problem(runner).what


def test_gpus_that_docker_cannot_hand_on_are_a_problem(containers: Containers) -> None:
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this engine can hand on GPUs")
    environ = containers.environ()
    environ.pop("CUDA_VISIBLE_DEVICES", None)
    runner = containers.runner(environ=environ, gpus=lambda: ONE_GPU)
    assert "NVIDIA Container Toolkit" in containers.only_problem(runner).remedy


def test_no_gpu_is_asked_for_where_none_is_visible(containers: Containers) -> None:
    environ = containers.environ(CUDA_VISIBLE_DEVICES="")
    runner = containers.runner(environ=environ, gpus=lambda: ONE_GPU)
    assert runner.problems([containers.order()]) == []


def test_problems_of_an_experiment_are_found_inside_the_container(containers: Containers) -> None:
    order = containers.order(dataset=str(containers.folder / "nosuch.jsonl"))
    problem = containers.only_problem(containers.runner(), order)
    assert problem.where == "dataset"
    assert "nosuch.jsonl" in problem.what


def test_the_backends_of_an_image_are_listed_with_the_lines_that_rebuild_it(
    containers: Containers,
) -> None:
    found = containers.runner("pytorch").inventory()
    assert isinstance(found, Inventory), found
    states = {state.name: state for state in found.backends}
    assert states["pytorch"] == {state.name: state for state in take().backends}["pytorch"]
    absent = states["tensorrt"].problem
    assert absent is not None
    assert f"-f docker/tensorrt.Dockerfile -t {containers.image} ." in absent.remedy


def test_an_image_that_cannot_be_used_is_told_instead_of_its_backends(
    containers: Containers,
) -> None:
    problem = containers.runner("vllm", image="nosuch/image:9").inventory()
    assert isinstance(problem, Problem)
    assert problem.what == "the image nosuch/image:9 is not on this machine"
    assert "docker build -f docker/vllm.Dockerfile" in problem.remedy


def test_a_container_that_does_not_answer_in_time_is_ended(containers: Containers) -> None:
    package = containers.folder / "slow" / "llenergymeasure"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import time\ntime.sleep(3600)")
    options = f"-v {package.parent}:{package.parent}:ro --env PYTHONPATH={package.parent}"
    runner = containers.runner(environ=containers.environ(options), answer_within_s=10)
    problem = runner.inventory()
    assert isinstance(problem, Problem)
    assert problem.what == "docker run did not end within 10 s"


def test_llem_config_shows_what_an_image_has(containers: Containers) -> None:
    names = ("DOCKER_HOST", "LLEM_DOCKER_OPTIONS")
    environ = {name: containers.environ().get(name, "") for name in names}
    environ["LLEM_RUNNER_SCRIPTED"] = f"docker:{containers.image}"
    done = Llem(containers.folder, environ)("config", timeout_s=LONG_S)
    blocks = {block.partition("\n")[0]: block for block in done.out.split("\n\n")}
    assert "scripted    yes  built in" in blocks[f"backends of docker:{containers.image}"]


def test_a_daemon_that_does_not_run_is_a_problem(tmp_path: Path) -> None:
    _docker_or_skip()
    environ = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    runner = DockerRunner("any", "scripted", environ)
    problem = Containers(tmp_path, "any").only_problem(runner)
    assert "does not answer" in problem.what
    assert "systemctl start docker" in problem.remedy


def test_a_daemon_that_this_user_may_not_talk_to_is_a_problem(tmp_path: Path) -> None:
    _docker_or_skip()
    if os.geteuid() == 0:
        pytest.skip("root may talk to every daemon")
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as short,  # a socket's path has 108 bytes at most
        socket.socket(socket.AF_UNIX) as daemon,
    ):
        daemon.bind(f"{short}/closed.sock")
        daemon.listen()
        Path(short, "closed.sock").chmod(0)
        environ = {**os.environ, "DOCKER_HOST": f"unix://{short}/closed.sock"}
        runner = DockerRunner("any", "scripted", environ)
        problem = Containers(tmp_path, "any").only_problem(runner)
    assert "may not talk" in problem.what
    assert "usermod -aG docker" in problem.remedy


def test_a_machine_without_docker_is_told_where_to_get_it(tmp_path: Path) -> None:
    runner = DockerRunner("any", "scripted", {**os.environ, "PATH": str(tmp_path)})
    problem = Containers(tmp_path, "any").only_problem(runner)
    assert problem.what == "the command docker is not on PATH"
    assert "docs.docker.com/engine/install" in problem.remedy


def _docker_or_skip() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
