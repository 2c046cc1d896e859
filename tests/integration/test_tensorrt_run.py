"""Whole experiments on the tensorrt backend: everything but TensorRT-LLM and the GPU is real.

The stand-in of ``tests/support/fake_tensorrt_llm.py`` and the simulated NVML show how this package
deals with an engine; they show nothing about TensorRT-LLM.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, Request
from llenergymeasure.core.backends.shared.processes import MARK
from llenergymeasure.core.backends.tensorrt.engine import TensorRTBackend, TensorRTEngine
from llenergymeasure.core.models import catalogue, tokenizer_files
from llenergymeasure.exceptions import BackendError, ConfigError
from tests.support import fake_tensorrt_llm as fake
from tests.support.cli import Done, Llem, interrupt, wait_for
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode
from tests.support.simulated_device.profiles import A100

needs_gpus = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

EXPERIMENT = """
model: random:tiny-llama
backend: tensorrt
precision: bf16
energy_backend: nvml
n: 4
max_input_tokens: 64
max_new_tokens: 6
warmup: {n_warmup: 1, thermal_floor_seconds: 0}
baseline: {enabled: false}
tensorrt: {tp_size: 2, max_batch_size: 2, max_seq_len: 128}
"""


class Machine:
    """A machine with simulated GPUs, the stand-in, and ``llem``."""

    def __init__(self, folder: Path, version: str = fake.VERSION) -> None:
        (folder / "node").mkdir()
        self.node = SimulatedNode(folder / "node", (Board(A100),) * 2)
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

    def told(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [json.loads(line)[0] for line in lines]

    def workers(self) -> list[psutil.Process]:
        """List the processes of engines that are there still."""
        return [each for each in psutil.process_iter() if _carries(each, str(self.calls))]


def _carries(process: psutil.Process, log: str) -> bool:
    try:
        variables = process.environ()
    except (psutil.Error, OSError):
        return False
    return MARK in variables and log in variables.get("FAKE_TENSORRT_LLM", "")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@needs_gpus
def test_an_experiment_runs_from_checkpoint_to_result(machine: Machine) -> None:
    machine.behave(chatter=1 << 20)  # standard output is the result's all the same
    done = machine.run()
    assert done.code == 0, done.out + done.err
    result = json.loads(done.out)
    backend, notes = result["resolved"]["backend"], result["reproducibility_notes"]

    assert machine.told() == ["load"]
    assert result["throughput"]["output_tokens"] == 4 * 6
    assert result["ttft_ms"] > 0
    assert result["tpot_ms"] > 0
    assert (backend["max_batch_size"], backend["max_seq_len"], backend["tp_size"]) == (2, 128, 2)
    assert (backend["attn_backend"], backend["compute_dtype"]) == ("TRTLLM", "bfloat16")
    assert result["multi_gpu"]["devices"] == [machine.node.uuid(0), machine.node.uuid(1)]
    assert any("a seed of the engine's own" in note for note in notes)
    assert any("never with another pass (cache_salt)" in note for note in notes)
    assert machine.workers() == []


@needs_gpus
def test_ctrl_c_ends_engine_and_workers(machine: Machine) -> None:
    machine.behave(hang="generate")
    process = machine.llem.start("run", str(machine.llem.write("e.yaml", EXPERIMENT)))
    wait_for(lambda: "hanging" in machine.told() or process.poll() is not None)

    done = interrupt(process)

    assert done.code == 130, done.err
    assert machine.workers() == []


@needs_gpus
@pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc28"])
def test_too_old_a_version_is_refused_before_anything_loads(tmp_path: Path, version: str) -> None:
    machine = Machine(tmp_path, version=version)
    message = machine.run().error["message"]

    assert f"needs tensorrt-llm 1.3.0rc29 or newer, found {version}" in message
    assert "pip install 'llenergymeasure[tensorrt]' --upgrade" in message
    assert machine.told() == []


@needs_gpus
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
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 13
    assert "skipped" not in done.stdout


# --- a loaded engine, in this process


Load = Callable[..., TensorRTEngine]
REQUESTS = tuple(Request(index, (5, 6, 7 + index), 4) for index in range(4))


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load an engine of the stand-in, which behaves as told; all are closed at the end."""
    monkeypatch.syspath_prepend(fake.install(tmp_path / "site"))
    engines: list[TensorRTEngine] = []

    def make(behaviour: dict[str, Any] | None = None, **fields: Any) -> TensorRTEngine:
        said = {"log": str(tmp_path / "calls"), **(behaviour or {})}
        monkeypatch.setenv("FAKE_TENSORRT_LLM", json.dumps(said))
        given = {"model": "random:tiny-llama", "backend": "tensorrt", **fields}
        engines.append(TensorRTBackend().load(ExperimentConfig(**given), tmp_path))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


def workers(folder: Path) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if _carries(each, str(folder / "calls"))]


def run(engine: TensorRTEngine, pass_index: int = 0) -> Any:
    return engine.serve([Arrival(each) for each in REQUESTS], pass_index, lambda _: None).samples()


def run_and_close(load: Load, behaviour: dict[str, Any]) -> None:
    engine = load(behaviour)
    try:
        run(engine)
    finally:
        engine.close()


def test_prompts_of_one_pass_are_not_found_in_the_cache_by_the_next(load: Load) -> None:
    engine = load()
    for pass_index in (-1, 0, 1):
        assert {sample.cached_input_tokens for sample in run(engine, pass_index)} == {0}


def test_an_end_of_sequence_that_only_the_generation_config_names_counts(
    load: Load, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tokenizer_files.packaged(), model)
    shape = {**catalogue.config("tiny-llama"), "eos_token_id": 7, "vocab_size": 1024}
    (model / "config.json").write_text(json.dumps(shape))
    (model / "generation_config.json").write_text('{"eos_token_id": [9, 11]}')

    report = load(model=str(model)).inspect()

    assert report.resolved["eos_token_ids"] == [1, 7, 9, 11]
    assert report.context_limit == shape["max_position_embeddings"]


@pytest.mark.parametrize("behaviour", [{"no_metrics": True}, {"clock_offset_s": 5.0}])
def test_without_times_of_our_clock_latency_is_unknown_and_said_so(
    load: Load, behaviour: dict[str, Any]
) -> None:
    engine = load(behaviour)
    samples = run(engine)

    assert {sample.first_token_ns for sample in samples} == {None}
    assert any("told no times of 4 requests" in note for note in engine.inspect().notes)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (
            {"fail": {"load": "[TensorRT-LLM][ERROR] CUDA runtime error: out of memory"}},
            "failed to load: RuntimeError: [TensorRT-LLM][ERROR] CUDA runtime error: out of "
            "memory\n    lower tensorrt.max_batch_size",
        ),
        ({"fail": {"load": "tensor_parallel_size is odd"}}, "check tensorrt.tp_size"),
        (
            {"fail": {"generate": "cudaMalloc: out of memory"}},
            "failed to generate: RuntimeError: cudaMalloc: out of memory\n"
            "    lower tensorrt.max_batch_size",
        ),
        ({"worker_dies": True}, "a worker of TensorRT-LLM died"),
    ],
)
def test_a_failure_says_which_field_mends_it_and_leaves_nothing_running(
    load: Load, tmp_path: Path, behaviour: dict[str, Any], said: str
) -> None:
    with pytest.raises(BackendError) as failure:
        run_and_close(load, behaviour)

    assert said in failure.value.message
    assert workers(tmp_path) == []


def test_an_argument_that_the_engine_rejects_is_named(load: Load) -> None:
    with pytest.raises(BackendError, match="got invalid argument: no_such_thing") as failure:
        load(passthrough_kwargs={"no_such_thing": 1})

    assert "check passthrough_kwargs" in failure.value.message


def test_a_checkpoint_is_looked_at_again_when_all_of_it_is_here(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not quantised"):
        load(precision="int4")

    assert workers(tmp_path) == []
