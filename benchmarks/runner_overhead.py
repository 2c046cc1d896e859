"""What other runners cost per experiment beyond a local process, on a real Docker engine.

One experiment on the scripted backend, spawned here, in another interpreter and in a container, in
turn, from the start of the worker until it is gone. An interpreter is asked for its version first,
once a study; that is told apart. ``scripts/test_docker.sh`` calls it with an image.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import llenergymeasure
from llenergymeasure._version import __version__
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.runners.docker import DockerRunner
from llenergymeasure.study.runners.elsewhere import other_interpreter
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


def measured(folder: Path, image: str, interpreter: str, rounds: int) -> dict[str, object]:
    runners: dict[str, Runner] = {
        "local": InterpreterRunner("scripted", start_method="spawn"),
        "python": InterpreterRunner("scripted", interpreter, start_method="spawn"),
        "docker": DockerRunner(image, "scripted"),
    }
    taken: dict[str, list[float]] = {name: [] for name in runners}
    try:
        for name, runner in runners.items():
            seconds(runner, directory_in(folder, f"first-{name}"))
        for number in range(rounds):
            for name, runner in runners.items():
                taken[name].append(seconds(runner, directory_in(folder, f"{name}-{number}")))
    finally:
        for runner in runners.values():
            runner.close()
    result = ExperimentResult.from_json(folder / "docker-0" / "result.json")
    return {
        **{f"{name}_s": [round(one, 4) for one in each] for name, each in taken.items()},
        "handshake_s": round(handshake_s(interpreter), 4),
        **{f"{name}_beyond_local_s": beyond(taken, name) for name in ("python", "docker")},
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


def handshake_s(interpreter: str) -> float:
    began_s = time.perf_counter()
    if problem := other_interpreter(interpreter, "runners.scripted").version_problem():
        raise SystemExit(problem.what)
    return time.perf_counter() - began_s


def beyond(taken: dict[str, list[float]], name: str) -> dict[str, float]:
    return summary([a - b for a, b in zip(taken[name], taken["local"], strict=True)])


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "least": round(min(values), 4),
        "most": round(max(values), 4),
    }


def another_interpreter(folder: Path) -> str:
    """Make a virtual environment that finds the packages of this one."""
    root = folder / "other"
    venv.create(root, symlinks=True)
    (packages,) = root.glob("lib/python*/site-packages")
    ours = str(Path(llenergymeasure.__file__).parents[1])
    found = [ours, *(path for path in sys.path if path.endswith("site-packages"))]
    (packages / "others.pth").write_text("\n".join(found) + "\n")
    return str(root / "bin" / "python")


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
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--interpreter", help="another path of a Python with this package")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    if not arguments.image:
        parser.error("name an image with --image")
    with tempfile.TemporaryDirectory() as folder:
        other = arguments.interpreter or another_interpreter(Path(folder))
        found = measured(Path(folder), arguments.image, other, arguments.rounds)
    report = {"machine": machine(), **found}
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")
    for name in ("python", "docker"):
        print(name, "beyond local, s:", json.dumps(report[f"{name}_beyond_local_s"]))


if __name__ == "__main__":
    main()
