"""Whole experiments on the tensorrt backend: everything but TensorRT-LLM and the GPU is real.

The stand-in of ``tests/support/fake_tensorrt_llm.py`` and the simulated NVML show how this package
deals with an engine; they show nothing about TensorRT-LLM.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from llenergymeasure.core.models import catalogue, tokenizer_files
from tests.support import fake_tensorrt_llm as fake
from tests.support.cli import Done, Llem, interrupt, wait_for
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import A100

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

EXPERIMENT = """
model: random:tiny-llama
backend: tensorrt
precision: bf16
energy_backend: none
n: 4
max_input_tokens: 64
max_new_tokens: 6
warmup: {n_warmup: 1, thermal_floor_seconds: 0}
baseline: {enabled: false}
tensorrt: {max_batch_size: 2, max_seq_len: 128}
"""


class Machine:
    """A machine with simulated GPUs, the stand-in, and ``llem``."""

    def __init__(self, folder: Path, gpus: int = 2, version: str = fake.VERSION) -> None:
        (folder / "node").mkdir()
        self.node = SimulatedNode(folder / "node", (Board(A100),) * gpus)
        self.llem = Llem(folder)
        self.llem.environment.update(self.node.environment)
        self.llem.source_path.append(str(fake.install(folder / "site", version)))
        self.calls = folder / "calls.jsonl"
        self.behave()

    def behave(self, **behaviour: Any) -> None:
        self.llem.environment["FAKE_TENSORRT_LLM"] = json.dumps(
            {"log": str(self.calls), **behaviour}
        )

    def run(self, text: str = EXPERIMENT) -> Done:
        return self.llem("run", str(self.llem.write("experiment.yaml", text)), "--json")

    def result(self, text: str = EXPERIMENT) -> dict[str, Any]:
        done = self.run(text)
        assert done.code == 0, done.out + done.err
        return dict(json.loads(done.out))

    def told(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [json.loads(line)[0] for line in lines]

    def workers(self) -> list[psutil.Process]:
        """List the processes of engines that are there still."""
        return [each for each in psutil.process_iter() if _carries_a_mark(each, self.calls)]


def _carries_a_mark(process: psutil.Process, calls: Path) -> bool:
    try:
        variables = process.environ()
    except (psutil.Error, OSError):
        return False
    ours = str(calls) in variables.get("FAKE_TENSORRT_LLM", "")
    return ours and "LLENERGYMEASURE_TENSORRT" in variables


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_experiment_runs_from_build_to_result(machine: Machine) -> None:
    result = machine.result()
    backend = result["resolved"]["backend"]

    assert machine.told() == ["build", "serve"]
    assert result["throughput"]["output_tokens"] == 4 * 6
    assert result["ttft_ms"] > 0
    assert result["tpot_ms"] > 0
    assert (backend["max_batch_size"], backend["max_seq_len"]) == (2, 128)
    assert (backend["built_now"], backend["compute_dtype"]) == (True, "bfloat16")
    assert backend["build_seconds"] > 0
    assert any("a seed of the engine's own" in note for note in result["reproducibility_notes"])
    assert any("was built in" in note for note in result["reproducibility_notes"])
    assert machine.workers() == []


LONG = """
model: random:tiny-llama
backend: tensorrt
energy_backend: none
n: 2
dataset: {synthetic: {input_len: 9000, output_len: 6}}
warmup: {n_warmup: 0}
tensorrt: {max_batch_size: 2, max_seq_len: 9100}
"""


def test_prompts_beyond_a_step_of_the_engine_fit_once_the_remedy_is_followed(
    machine: Machine,
) -> None:
    refused = machine.run(LONG)
    assert refused.code == 1
    assert "set passthrough_kwargs: {max_num_tokens: N}" in refused.error["message"]

    result = machine.result(f"{LONG}passthrough_kwargs: {{max_num_tokens: 9000}}\n")
    assert result["resolved"]["backend"]["max_num_tokens"] == 9000
    assert machine.told() == ["build", "serve"] * 2


def test_an_engine_is_built_and_served_on_gpus_counted_by_bus(machine: Machine) -> None:
    machine.result()
    details = [json.loads(line)[1] for line in machine.calls.read_text().splitlines()]

    assert [each["device_order"] for each in details] == ["PCI_BUS_ID"] * 2


def test_another_order_of_gpus_is_refused(machine: Machine) -> None:
    machine.llem.environment["CUDA_DEVICE_ORDER"] = "FASTEST_FIRST"
    done = machine.run()

    assert done.code != 0
    assert "CUDA_DEVICE_ORDER=FASTEST_FIRST is not NVML's order" in done.err
    assert machine.told() == []


def test_an_engine_is_built_once_and_then_comes_from_the_cache(machine: Machine) -> None:
    first, second = machine.result(), machine.result()

    assert machine.told() == ["build", "serve", "serve"]
    kept = second["resolved"]["backend"]
    assert not kept["built_now"]
    assert kept["build_seconds"] == first["resolved"]["backend"]["build_seconds"]


def test_another_shape_is_another_engine(machine: Machine) -> None:
    machine.result()
    machine.result(EXPERIMENT.replace("max_seq_len: 128", "max_seq_len: 256"))

    assert machine.told() == ["build", "serve", "build", "serve"]


def test_an_engine_that_somebody_built_is_served_as_it_is(machine: Machine) -> None:
    built = Path(machine.result()["resolved"]["backend"]["engine_path"])
    text = EXPERIMENT.replace("{max_batch_size: 2, max_seq_len: 128}", f"{{engine_path: {built}}}")

    backend = machine.result(text)["resolved"]["backend"]

    assert machine.told() == ["build", "serve", "serve"]
    assert (backend["engine_path"], backend["build_seconds"]) == (str(built), None)


def test_two_gpus_are_named_in_the_result(machine: Machine) -> None:
    text = EXPERIMENT.replace("{max_batch_size: 2,", "{tp_size: 2, max_batch_size: 2,")
    result = machine.result(text.replace("energy_backend: none", "energy_backend: nvml"))

    assert result["multi_gpu"]["devices"] == [machine.node.uuid(0), machine.node.uuid(1)]
    assert result["resolved"]["backend"]["tp_size"] == 2


def test_an_end_of_sequence_that_only_the_generation_config_names_counts(
    machine: Machine, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tokenizer_files.packaged(), model)
    shape = {**catalogue.config("tiny-llama"), "eos_token_id": 7, "vocab_size": 1024}
    (model / "config.json").write_text(json.dumps(shape))
    (model / "generation_config.json").write_text('{"eos_token_id": [9, 11]}')
    (model / "model.safetensors").touch()  # the stand-in loads none

    result = machine.result(EXPERIMENT.replace("random:tiny-llama", str(model)))

    assert result["resolved"]["backend"]["eos_token_ids"] == [1, 7, 9, 11]


def test_without_times_from_the_engine_latency_is_null_and_said_so(machine: Machine) -> None:
    machine.behave(no_metrics=True)
    result = machine.result()

    assert (result["ttft_ms"], result["tpot_ms"]) == (None, None)
    assert result["tokens_per_second"] > 0
    assert any("told no times of 4 requests" in note for note in result["reproducibility_notes"])


def test_times_of_another_clock_are_no_times(machine: Machine) -> None:
    machine.behave(clock_offset_s=5.0)

    assert machine.result()["ttft_ms"] is None


def test_an_engine_that_prints_a_megabyte_leaves_standard_output_to_the_result(
    machine: Machine,
) -> None:
    machine.behave(chatter=1 << 20)

    assert machine.result()["throughput"]["output_tokens"] == 24


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (
            {"fail": {"build": "CUDA error: out of memory"}},
            "failed to build the engine: RuntimeError: CUDA error: out of memory\n"
            "    lower tensorrt.max_batch_size or tensorrt.max_seq_len",
        ),
        (
            {"fail": {"load": "[TensorRT-LLM][ERROR] CUDA runtime error: out of memory"}},
            "failed to load: RuntimeError: [TensorRT-LLM][ERROR] CUDA runtime error: out of "
            "memory\n    lower tensorrt.max_batch_size",
        ),
        (
            {"fail": {"generate": "cudaMalloc: out of memory"}},
            "failed to generate: RuntimeError: cudaMalloc: out of memory\n"
            "    lower tensorrt.max_batch_size",
        ),
        ({"die": "build"}, "the builder was killed by SIGKILL"),
        ({"worker_dies": True}, "a worker of TensorRT-LLM died"),
        ({"fail": {"load": "tensor_parallel_size is odd"}}, "check tensorrt.tp_size"),
    ],
)
def test_a_failure_says_which_field_mends_it_and_leaves_nothing_running(
    machine: Machine, behaviour: dict[str, Any], said: str
) -> None:
    machine.behave(**behaviour)
    done = machine.run()

    assert done.code == 1
    assert said in done.error["message"]
    assert machine.workers() == []


def test_a_failed_build_leaves_no_engine_behind(machine: Machine) -> None:
    machine.behave(fail={"build": "broken"})
    machine.run()
    cache = machine.llem.folder / "home/cache"

    assert not [path for path in cache.rglob("*") if path.name.endswith(".engine")]
    machine.behave()
    assert machine.result()["resolved"]["backend"]["built_now"]


def test_an_argument_that_the_engine_rejects_is_named(machine: Machine) -> None:
    done = machine.run(EXPERIMENT + "passthrough_kwargs: {no_such_thing: 1}\n")

    assert "got invalid argument: no_such_thing" in done.error["message"]
    assert "check passthrough_kwargs" in done.error["message"]


@pytest.mark.parametrize("step", ["build", "load", "generate"])
def test_ctrl_c_ends_engine_and_workers(machine: Machine, step: str) -> None:
    machine.behave(hang=step)
    process = machine.llem.start("run", str(machine.llem.write("e.yaml", EXPERIMENT)))
    wait_for(lambda: "hanging" in machine.told() or process.poll() is not None)

    done = interrupt(process)

    assert done.code == 130, done.err
    assert machine.workers() == []


@pytest.mark.parametrize(
    ("version", "said"),
    [("0.21.0", "needs tensorrt-llm 1.0 or newer"), ("1.3.0", "builds no TensorRT engines")],
)
def test_a_version_that_cannot_serve_is_refused_before_anything_loads(
    tmp_path: Path, version: str, said: str
) -> None:
    machine = Machine(tmp_path, version=version)

    assert said in machine.run().error["message"]
    assert machine.told() == []


def test_too_few_gpus_are_found_before_anything_loads(machine: Machine) -> None:
    text = EXPERIMENT.replace("{max_batch_size: 2,", "{tp_size: 2, pp_size: 2, max_batch_size: 2,")

    assert "4 GPUs are asked for" in machine.run(text).error["message"]
    assert machine.told() == []


def test_a_machine_without_a_gpu_is_told_what_it_lacks(machine: Machine) -> None:
    machine.llem.environment["CUDA_VISIBLE_DEVICES"] = "-1"

    assert "TensorRT-LLM needs an NVIDIA GPU" in machine.run().error["message"]


def test_the_tests_of_every_backend_hold_on_the_stand_in(machine: Machine) -> None:
    # Memory apart: that of simulated GPUs is what it is, whatever is loaded.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov"),
            *("-k", "tensorrt and not memory", "tests/integration/test_backend_conformance.py"),
        ],
        cwd=Path(__file__).parents[2],
        env=machine.llem.variables(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout
    assert "skipped" not in done.stdout
