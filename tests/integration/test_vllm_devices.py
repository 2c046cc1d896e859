"""Which GPUs vLLM is measured on: the backend's own answer, on simulated GPUs.

vLLM itself computes on no simulated GPU. A stand-in for its engine claims what the backend says;
everything else, from the target to the result, is the real thing.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Llem
from tests.support.node_program import environment
from tests.support.simulated_device.build import compiler_missing
from tests.support.simulated_device.device import Board, SimulatedNode

pytestmark = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))

BACKEND = """
import os

from llenergymeasure.config.backend_configs import ScriptedConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.scripted.engine import ScriptedBackend, ScriptedEngine
from llenergymeasure.core.backends.vllm.engine import VLLMBackend

def asked():  # not while it is imported: a configuration lists the plugins, and this is one
    return ExperimentConfig(
        model="random:tiny-llama", backend="vllm", vllm={"tensor_parallel_size": 2}
    )


class Backend(ScriptedBackend):
    def problems(self, config):
        return VLLMBackend().problems(asked())

    def target(self, config):
        return VLLMBackend().target(asked())

    def load(self, config, cache_dir):
        return ScriptedEngine(config, ScriptedConfig(
            ttft_ms=100, itl_ms=5, load_log=os.environ["LOG"], prefill_w=330, decode_w=270
        ))
"""
OTHERS_W = 390.0
SECOND_W = 140.0
RUN = ("experiment.yaml", "--energy-backend", "nvml")
EXPERIMENT = """
model: random:tiny-llama
backend: thirdparty
n: 12
max_new_tokens: 40
warmup: {n_warmup: 1, thermal_floor_seconds: 0}
baseline: {enabled: false}
"""


def prepared(folder: Path, node: SimulatedNode, first: int = 0, visible: str = "") -> Llem:
    """Make the command of a machine whose first GPU in use follows the engine."""
    llem = Llem(folder)
    about = "site/vllm-0.32.0.dist-info/METADATA"
    llem.write(about, "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")  # a build for GPUs
    llem.plugin(BACKEND)
    llem.source_path = [str(folder / "site"), *llem.source_path]
    seen = environment(node)
    llem.environment |= {name: seen[name] for name in ("LD_LIBRARY_PATH", "PATH", "SIMULATED_NVML")}
    llem.environment |= {"LOG": str(node.load_log(first)), "CUDA_VISIBLE_DEVICES": visible}
    llem.write("experiment.yaml", EXPERIMENT)
    return llem


@pytest.mark.parametrize(("visible", "used"), [(None, (0, 1)), ((3, 1, 0), (3, 1))])
def test_two_of_four_gpus_are_the_two_that_are_measured(
    tmp_path: Path, visible: tuple[int, ...] | None, used: tuple[int, int]
) -> None:
    node = SimulatedNode(tmp_path, [Board(seed=number) for number in range(4)])
    for number in range(4):
        node.set_load(SECOND_W if number == used[1] else OTHERS_W, number)
    llem = prepared(tmp_path, node, used[0], ",".join(map(node.uuid, visible or ())))

    done = llem("run", *RUN, "--json", timeout_s=300)

    assert done.code == 0, done.err
    found = json.loads(done.out)

    energy, window = found["energy"], found["window"]
    t0_s, t1_s = window["t0_ns"] / 1e9, window["t1_ns"] / 1e9
    truth_j = {node.uuid(number): node.true_energy_j(t0_s, t1_s, number) for number in used}
    told = {part["name"]: part for part in energy["components"]}
    assert {*told} == {*truth_j}
    for uuid, true_j in truth_j.items():
        assert told[uuid]["energy_j"] == pytest.approx(true_j, abs=told[uuid]["interval95_j"])
    assert energy["total_j"] == pytest.approx(sum(truth_j.values()), abs=energy["interval95_j"])
    assert {*found["multi_gpu"]["energy_j"]} == {*truth_j}
    assert sum(found["multi_gpu"]["energy_j"].values()) == pytest.approx(energy["total_j"])
    assert energy["total_j"] < OTHERS_W * (t1_s - t0_s) * 2, "its neighbours are not in it"


def test_more_gpus_than_can_be_seen_are_refused_before_anything_loads(tmp_path: Path) -> None:
    node = SimulatedNode(tmp_path, [Board(seed=number) for number in range(4)])
    said = prepared(tmp_path, node, visible=node.uuid(2)).fails("run", *RUN)

    assert "2 GPUs are asked for (tensor_parallel_size x pipeline_parallel_size), 1 can be" in said
