"""What a container costs per experiment beyond a local process, on a real Docker engine.

Pairs of one experiment on the scripted backend, spawned here and in a container, in turn, from the
start of the worker until it is gone. ``scripts/test_docker.sh`` calls it with an image.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from llenergymeasure._version import __version__
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners.docker import DockerRunner
from llenergymeasure.study.runners.local import InterpreterRunner
from llenergymeasure.study.runners.protocol import Runner

LONG_S = 600.0


def config() -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "model": "none",
            "backend": "scripted",
            "n": 4,
            "max_new_tokens": 3,
            "scripted": {"ttft_ms": 4.0, "itl_ms": 1.0, "batch_size": 2},
            "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
        }
    )


def directory_in(folder: Path, name: str) -> ExperimentDirectory:
    directory = ExperimentDirectory(folder / name)
    directory.root.mkdir()
    cache = str(folder / "cache")
    order = WorkOrder(config=config(), energy_backend="none", model_cache_dir=cache)
    directory.config.write_text(order.model_dump_json())
    return directory


def seconds(runner: Runner, directory: ExperimentDirectory) -> float:
    began_ns = time.monotonic_ns()
    code = runner.start(directory).wait(LONG_S)
    if code != 0:
        raise SystemExit(f"exit code {code}; see {directory.root}")
    return (time.monotonic_ns() - began_ns) / 1e9


def measured(folder: Path, image: str, pairs: int) -> dict[str, object]:
    local, docker = (
        InterpreterRunner("scripted", start_method="spawn"),
        DockerRunner(image, "scripted"),
    )
    rows: list[tuple[float, float]] = []
    try:
        for runner, name in ((local, "first-local"), (docker, "first-docker")):
            seconds(runner, directory_in(folder, name))
        for number in range(pairs):
            one = seconds(local, directory_in(folder, f"local-{number}"))
            other = seconds(docker, directory_in(folder, f"docker-{number}"))
            rows.append((one, other))
    finally:
        local.close()
        docker.close()
    beyond = [other - one for one, other in rows]
    result = ExperimentResult.from_json(folder / "docker-0" / "result.json")
    return {
        "spawned_s": [round(one, 4) for one, _ in rows],
        "docker_s": [round(other, 4) for _, other in rows],
        "docker_beyond_spawned_s": summary(beyond),
        "result": {
            "schema_version": result.schema_version,
            "measurement_config_hash": result.measurement_config_hash,
            "output_tokens": result.throughput.output_tokens,
            "start_method": result.resolved.start_method,
            "container_image": result.environment.container_image,
            "os": result.environment.os,
            "user_id": (folder / "docker-0" / "result.json").stat().st_uid,
        },
    }


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "least": round(min(values), 4),
        "most": round(max(values), 4),
    }


def said(*command: str) -> object:
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def machine() -> dict[str, object]:
    return {
        "llenergymeasure": __version__,
        "python": platform.python_version(),
        "docker": said("docker", "version", "--format", "{{json .Server.Version}}"),
        "docker_client": said("docker", "version", "--format", "{{json .Client.Version}}"),
        "storage_driver": said("docker", "info", "--format", "{{json .Driver}}"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", default=os.environ.get("LLEM_TEST_IMAGE"), required=False)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not arguments.image:
        parser.error("name an image with --image")
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), arguments.image, arguments.pairs)
    report = {"machine": machine(), **found}
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["docker_beyond_spawned_s"]))


if __name__ == "__main__":
    main()
