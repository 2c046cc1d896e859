"""What the PyTorch backend refuses before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.allowance import allowance
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.exceptions import Problem

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without CUDA")


@pytest.fixture(scope="module")
def model(engines) -> Path:
    return engines.model


def problems(model: Path | str = "random:tiny-llama", **fields: Any) -> dict[str, Problem]:
    config = ExperimentConfig(model=str(model), **fields)
    return {problem.where: problem for problem in PyTorchBackend().problems(config)}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("dtype", "precision"),
        ("torch_dtype", "precision"),
        ("attn_implementation", "pytorch.attn_implementation"),
        ("device_map", "pytorch.device_map"),
        ("revision", "revision"),
        ("trust_remote_code", "trust_remote_code"),
    ],
)
def test_a_passthrough_argument_never_overrules_a_field(name, field):
    found = problems(passthrough_kwargs={name: "x"})

    assert field in found[f"passthrough_kwargs.{name}"].remedy


@no_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_cuda_device_that_is_not_there_is_a_problem(device):
    found = problems(pytorch={"device": device})

    assert "no CUDA device" in found["pytorch.device"].what
    assert "remove pytorch.device" in found["pytorch.device"].remedy


@no_cuda
def test_layers_cannot_be_spread_over_no_gpus(model):
    assert (
        "no CUDA device"
        in problems(model, pytorch={"device_map": "auto"})["pytorch.device_map"].what
    )


def test_a_device_map_that_is_no_strategy_is_a_problem(model):
    config = ExperimentConfig(model=str(model), pytorch={"device_map": "cuda:0"})
    found = PyTorchBackend().problems(config)

    assert any("a single device goes to pytorch.device" in problem.remedy for problem in found)


def test_random_weights_cannot_be_spread():
    found = PyTorchBackend().problems(
        ExperimentConfig(model="random:tiny-llama", pytorch={"device_map": "auto"})
    )

    assert any("random weights" in problem.what for problem in found)


@no_cuda
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_loading_needs_cuda_and_bitsandbytes(model, precision):
    config = ExperimentConfig(model=str(model), precision=precision)
    found = PyTorchBackend().problems(config)

    assert {problem.where for problem in found} == {"precision"}
    assert any("CUDA" in problem.what for problem in found)


def test_random_weights_cannot_be_quantised():
    assert "random weights" in "".join(
        problem.what
        for problem in PyTorchBackend().problems(
            ExperimentConfig(model="random:tiny-llama", precision="int8")
        )
    )


@no_cuda
@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3"])
def test_flash_attention_is_refused_with_the_line_that_installs_it(model, kernel):
    config = ExperimentConfig(model=str(model), pytorch={"attn_implementation": kernel})
    found = PyTorchBackend().problems(config)

    assert {problem.where for problem in found} == {"pytorch.attn_implementation"}
    assert any(problem.remedy.startswith("pip install flash-attn") for problem in found)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pytorch": {"device_map": "auto"}}, "device_map spreads one model over all GPUs"),
        ({"pytorch": {"device": "cuda:0"}}, "2 processes cannot share cuda:0"),
        ({"n": 1}, "2 processes have only 1 prompts to share"),
    ],
)
def test_processes_that_have_nothing_of_their_own_are_refused(model, fields, said):
    section = {"num_processes": 2, **fields.pop("pytorch", {})}
    config = ExperimentConfig(model=str(model), pytorch=section, **fields)

    assert any(said in problem.what for problem in PyTorchBackend().problems(config))


@no_cuda
def test_more_processes_than_cores_are_refused():
    cores = allowance().threads

    assert problems(pytorch={"num_processes": cores}) == {}
    found = problems(pytorch={"num_processes": cores + 1})["pytorch.num_processes"]
    assert found.remedy == f"set num_processes: {cores} or less"


@no_cuda
def test_processes_share_the_threads_of_one(model):
    config = ExperimentConfig(model=str(model), pytorch={"num_processes": 2, "batch_size": 3})
    ranks = PyTorchBackend().ranks(config)

    assert len(ranks) == 2
    assert {rank.config.pytorch.num_threads for rank in ranks} == {
        max(1, min(torch.get_num_threads(), allowance().threads) // 2)
    }
    assert all(rank.config.pytorch.num_processes is None for rank in ranks)
    assert all(rank.config.pytorch.batch_size == 3 for rank in ranks)


@no_cuda
def test_without_a_gpu_the_cpu_does_the_work(model):
    target = PyTorchBackend().target(ExperimentConfig(model=str(model)))

    assert (target.kind, target.gpu_uuids) == ("cpu", ())
