"""What stops a configuration of the TensorRT-LLM backend here, found before anything loads.

TensorRT-LLM itself is not imported: that takes seconds, and starts with touching the GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.names import QUANTISED
from llenergymeasure.core.backends.shared.nvml_devices import (
    ListDevices,
    gpu_problems,
    visible_devices,
)
from llenergymeasure.core.backends.shared.problems import (
    adapter_problems,
    context_problems,
    kind_problems,
    length_problems,
    passthrough_problems,
)
from llenergymeasure.core.backends.tensorrt import FACTS
from llenergymeasure.core.backends.tensorrt.arguments import (
    DECIDED_ELSEWHERE,
    OURS,
)
from llenergymeasure.core.models import quantised, sources
from llenergymeasure.exceptions import Problem

READS = ("modelopt", "fp8")
"""Methods of checkpoints that it reads: those of NVIDIA's Model Optimizer, and FP8 in blocks
(https://nvidia.github.io/TensorRT-LLM/features/quantization.html)."""

ALGORITHMS = {
    "fp8": ("FP8", "FP8_BLOCK_SCALES", "FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN"),
    "int4_awq": ("W4A16_AWQ", "W4A8_AWQ"),
    "int4_gptq": ("W4A16_GPTQ",),
}
"""Algorithms (``QuantAlgo`` in ``tensorrt_llm/quantization/mode.py``) behind each method."""


_NO_GPU = (
    "TensorRT-LLM needs an NVIDIA GPU",
    "check nvidia-smi -L and CUDA_VISIBLE_DEVICES, or use backend: pytorch",
)
_INSTEAD = {"fp8": "use precision: bf16 or fp16", "bf16": "use precision: fp16"}


def found(config: ExperimentConfig, devices: ListDevices = visible_devices) -> list[Problem]:
    """List every problem.

    Args:
        config: What to measure.
        devices: Lists the GPUs that can be seen.
    """
    return [
        *gpu_problems(config, devices, _NO_GPU, _INSTEAD),
        *checkpoint_problems(
            config, is_here=sources.resolve(config.model, config.revision).kind != "hub"
        ),
        *kind_problems(config, others=None),
        *context_problems(config),
        *_length_problems(config),
        *adapter_problems(config, keeps_apart="TensorRT-LLM", from_hub=False),
        *_passthrough_problems(config),
    ]


def checkpoint_problems(config: ExperimentConfig, *, is_here: bool) -> Iterator[Problem]:
    """Hold what was asked for against what the checkpoint says of its quantisation.

    Args:
        config: What to measure.
        is_here: Whether all files are on this machine, so that what they do not say is not so.
    """
    method = config.tensorrt.quantization if config.tensorrt else None
    stated = quantised.of_model(config.model, config.revision)
    if stated is None:
        if is_here and config.precision in QUANTISED:
            yield Problem(
                f"'{config.model}' is not quantised, and TensorRT-LLM quantises nothing itself",
                "precision",
                f"name a checkpoint of {config.precision} by NVIDIA's Model Optimizer, or use "
                "precision: bf16",
            )
    elif problem := quantised.disagreement(stated, config.precision):
        yield problem
    elif stated.method not in READS:
        yield Problem(
            f"the checkpoint is quantised ({stated}) in a format that TensorRT-LLM does not read",
            "model",
            "name a checkpoint of NVIDIA's Model Optimizer (hf_quant_config.json), or use "
            "backend: vllm",
        )
    elif method and stated.said not in (
        "",
        *(f"quant_algo: {each}" for each in ALGORITHMS[method]),
    ):
        yield Problem(
            f"the checkpoint is quantised otherwise ({stated}), not by {method}",
            "tensorrt.quantization",
            "remove it; the checkpoint decides",
        )


def _length_problems(config: ExperimentConfig) -> Iterator[Problem]:
    yield from length_problems(config, "max_seq_len")
    section = config.tensorrt or TensorRTConfig()
    synthetic = config.dataset.synthetic if isinstance(config.dataset, SyntheticDataset) else None
    prompt = synthetic.input_len if synthetic else 1
    step = section.max_num_tokens or FACTS.pass_tokens or prompt
    if prompt > step and not section.enable_chunked_prefill:
        yield Problem(
            f"prompts of {prompt} tokens are longer than a step of the engine (max_num_tokens: "
            f"{step})",
            "tensorrt.max_num_tokens",
            f"use {prompt} or more, or set tensorrt.enable_chunked_prefill: true",
        )


def _passthrough_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Look into the arguments that are records of the library's own."""
    extra, decided = config.passthrough_kwargs or {}, dict(DECIDED_ELSEWHERE)
    if config.tensorrt and config.tensorrt.cuda_graphs is not None:
        decided["cuda_graph_config"] = "tensorrt.cuda_graphs"
    for name in ("kv_cache_config", "cuda_graph_config"):
        if name not in decided and not isinstance(extra.get(name, {}), dict):
            where = f"passthrough_kwargs.{name}"
            yield Problem(f"{name} is a mapping", where, "write its entries as {name: value}")
    yield from passthrough_problems(config, decided, OURS)
