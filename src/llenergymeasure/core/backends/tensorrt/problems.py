"""What stops a configuration of the TensorRT-LLM backend here, found before anything loads.

TensorRT-LLM itself is not imported: that takes seconds, and starts with touching the GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.model_names import RANDOM_PREFIX
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plugins import installed_version
from llenergymeasure.config.precisions import QUANTISED
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.backends.shared.context import least_context
from llenergymeasure.core.backends.shared.nvml_devices import (
    ListDevices,
    capability_problems,
    visible_devices,
)
from llenergymeasure.core.backends.tensorrt.arguments import (
    DECIDED_ELSEWHERE,
    OURS,
    QUANT_ALGOS,
    longest_prompt,
)
from llenergymeasure.core.backends.tensorrt.facts import EngineFacts, read_engine
from llenergymeasure.core.backends.tensorrt.model import (
    adapter_directory,
    checkpoint_algorithm,
)
from llenergymeasure.core.models import quantised, sources
from llenergymeasure.core.models.hub import ADAPTER_FILE
from llenergymeasure.exceptions import ConfigError, Problem

LAST_WITH_ENGINES = (1, 2)
"""Later versions have no TensorRT engine (nvidia.github.io/TensorRT-LLM, "Migration Guide: TensorRT
Backend Removed")."""

_FIXED_BY_ENGINE = ("max_batch_size", "max_seq_len", "kv_cache_type", "tp_size", "pp_size")
_CALIBRATED = ("int4_gptq",)  # cannot be made while building, only by who makes the checkpoint
_OLDER_GPUS = "use precision: fp16, or a weight-only one (int8, int4)"


def found(
    config: ExperimentConfig, section: TensorRTConfig, devices: ListDevices = visible_devices
) -> list[Problem]:
    """List every problem.

    Args:
        config: What to measure.
        section: Its tensorrt section, or the defaults.
        devices: Lists the GPUs that can be seen.
    """
    engine, engine_problems = _given_engine(config, section)
    return [
        *version_problems(installed_version(backend_entry("tensorrt"))),
        *engine_problems,
        *_device_problems(config, section, engine, devices),
        *_builder_problems(section),
        *([] if section.engine_path else _quantisation_problems(config, section)),
        *_length_problems(config, section, engine),
        *_decoding_problems(config),
        *_adapter_problems(config, section),
        *_passthrough_problems(config.passthrough_kwargs or {}),
    ]


def world_size(section: TensorRTConfig) -> int:
    """Count the GPUs that work.

    Raises:
        ConfigError: ``engine_path`` names no engine.
    """
    if section.engine_path is not None:
        return read_engine(Path(section.engine_path).expanduser()).world_size
    return (section.tp_size or 1) * (section.pp_size or 1)


def version_problems(version: str | None) -> Iterator[Problem]:
    """Refuse versions that have no TensorRT engine any more; older ones are the registry's."""
    numbers = tuple(int(part) for part in (version or "").split(".")[:2] if part.isdecimal())
    if numbers > LAST_WITH_ENGINES:
        yield Problem(
            f"TensorRT-LLM {version} builds no TensorRT engines; the last that does is 1.2",
            "backend",
            "pip install 'tensorrt-llm>=1.0,<1.3', or a container of that version "
            "(nvcr.io/nvidia/tensorrt-llm/release)",
        )


def precision_of(engine: EngineFacts) -> str | None:
    """Name the precision of an engine, or ``None`` for one that has no name here."""
    algorithm = engine.quant_algo or ""
    if algorithm not in ("", "NO_QUANT"):
        return quantised.of_algorithm(algorithm)
    return {"float16": "fp16", "bfloat16": "bf16"}.get(engine.dtype or "")


def _given_engine(
    config: ExperimentConfig, section: TensorRTConfig
) -> tuple[EngineFacts | None, list[Problem]]:
    if section.engine_path is None:
        return None, []
    try:
        engine = read_engine(Path(section.engine_path).expanduser())
    except ConfigError as error:
        remedy = "name a directory that trtllm-build or LLM.save wrote, or remove engine_path"
        return None, [Problem(error.message, "tensorrt.engine_path", remedy)]
    return engine, [*_engine_precision(config, engine), *_engine_shape(section, engine)]


def _engine_precision(config: ExperimentConfig, engine: EngineFacts) -> Iterator[Problem]:
    stated = precision_of(engine)
    if stated != config.precision:
        what = f"{engine.dtype}, {engine.quant_algo or 'not quantised'}"
        yield Problem(
            f"the engine is {stated or 'of another precision'} ({what}), not {config.precision}",
            "precision",
            f"use precision: {stated}" if stated else "name another engine",
        )


def _engine_shape(section: TensorRTConfig, engine: EngineFacts) -> Iterator[Problem]:
    for name in _FIXED_BY_ENGINE:
        asked, has = getattr(section, name), getattr(engine, name)
        if asked is not None and has is not None and asked != has:
            yield Problem(
                f"the engine was built with {name}: {has}, not {asked}",
                f"tensorrt.{name}",
                f"remove it, or remove engine_path to have an engine built with {asked}",
            )
    if section.quantization is not None:
        yield Problem(
            "the engine in engine_path is quantised as it is",
            "tensorrt.quantization",
            "remove it; precision tells what the engine is",
        )


def _device_problems(
    config: ExperimentConfig,
    section: TensorRTConfig,
    engine: EngineFacts | None,
    list_all: ListDevices,
) -> Iterator[Problem]:
    try:
        devices = list_all()
    except LookupError as error:
        yield Problem(
            f"TensorRT-LLM needs an NVIDIA GPU: {error}",
            "backend",
            "check nvidia-smi -L and CUDA_VISIBLE_DEVICES, or use backend: pytorch",
            kind="hardware",
        )
        return
    wanted = engine.world_size if engine else (section.tp_size or 1) * (section.pp_size or 1)
    if wanted > len(devices):
        yield Problem(
            f"{wanted} GPUs are asked for (tp_size x pp_size), {len(devices)} can be seen",
            "tensorrt.engine_path" if engine else "tensorrt.tp_size",
            "use fewer, or check CUDA_VISIBLE_DEVICES",
            kind="hardware",
        )
    yield from capability_problems(config.precision, devices[:wanted], _OLDER_GPUS)


def _builder_problems(section: TensorRTConfig) -> Iterator[Problem]:
    if section.builder_opt_level is not None:
        yield Problem(
            "the LLM API of TensorRT-LLM 1.x takes no level of optimisation; engines are built "
            "with TensorRT's default",
            "tensorrt.builder_opt_level",
            "remove it",
        )


def _quantisation_problems(config: ExperimentConfig, section: TensorRTConfig) -> Iterator[Problem]:
    method, stated = section.quantization, checkpoint_algorithm(config)
    if stated is not None:
        yield from _checkpoint_problems(config, method, stated)
    elif other := quantised.in_config(sources.resolve(config.model, config.revision)):
        yield Problem(
            f"the checkpoint is quantised ({other}) by other means than NVIDIA's Model Optimizer, "
            "and no engine is built of it here",
            "model",
            "name the unquantised model, which is quantised while its engine is built, or a "
            "checkpoint with a hf_quant_config.json",
        )
    elif method in _CALIBRATED and not config.model.startswith(RANDOM_PREFIX):
        yield Problem(
            f"{method} needs a checkpoint that is quantised so; '{config.model}' is none",
            "tensorrt.quantization",
            "name such a checkpoint, or use int4_wo or int4_awq",
        )


def _checkpoint_problems(
    config: ExperimentConfig, method: str | None, stated: str
) -> Iterator[Problem]:
    facts = EngineFacts(Path(), None, None, stated, 1, 1)
    precision = precision_of(facts)
    if precision != config.precision:
        yield Problem(
            f"the checkpoint is quantised ({stated}), which {config.precision} is not",
            "precision",
            f"use precision: {precision}" if precision else "name another checkpoint",
        )
    elif method is not None and QUANT_ALGOS.get(method) != stated and config.precision in QUANTISED:
        yield Problem(
            f"the checkpoint is quantised as {stated}, not {method}",
            "tensorrt.quantization",
            "remove it",
        )


def _length_problems(
    config: ExperimentConfig, section: TensorRTConfig, engine: EngineFacts | None
) -> Iterator[Problem]:
    limit = engine.max_seq_len if engine else section.max_seq_len
    needed = least_context(config)
    if limit is not None and limit < needed:
        yield Problem(
            f"max_seq_len: {limit} is less than the {needed} tokens of a prompt with its answer",
            "tensorrt.engine_path" if engine else "tensorrt.max_seq_len",
            f"use {needed} or more, or lower max_new_tokens",
        )
    longest = longest_prompt(config)
    if engine and engine.max_input_len and longest and longest > engine.max_input_len:
        yield Problem(
            f"prompts may have {longest} tokens, and the engine takes {engine.max_input_len}",
            "max_input_tokens",
            f"set it to {engine.max_input_len} or less",
        )


def _decoding_problems(config: ExperimentConfig) -> Iterator[Problem]:
    if config.decoder.speculative_decoding:
        yield Problem(
            "this version has no speculative decoding on tensorrt",
            "decoder.speculative_decoding",
            "remove it, or use backend: pytorch or vllm",
        )


def _adapter_problems(config: ExperimentConfig, section: TensorRTConfig) -> Iterator[Problem]:
    if config.lora is None:
        return
    if config.lora.merge_weights:
        yield Problem(
            "TensorRT-LLM keeps an adapter beside the weights; it does not merge them",
            "lora.merge_weights",
            "remove it, or merge with peft's merge_and_unload and name the merged model",
        )
    if section.engine_path is not None:
        yield Problem(
            "an engine takes adapters only if it was built for them, which its files do not say",
            "tensorrt.engine_path",
            "remove it to have an engine built, or remove lora",
        )
    adapter = adapter_directory(config)
    if adapter is None:
        yield Problem(
            "TensorRT-LLM reads adapters from a directory, not from the Hub",
            "lora.adapter_id",
            f"hf download {config.lora.adapter_id} --local-dir DIR, and set lora.adapter_path: DIR",
        )
    elif not (adapter / ADAPTER_FILE).is_file():
        yield Problem(
            f"'{adapter}' holds no {ADAPTER_FILE}",
            "lora.adapter_path",
            "name the directory that peft's save_pretrained wrote",
        )


def _passthrough_problems(extra: dict[str, Any]) -> Iterator[Problem]:
    for name, value in extra.items():
        where = f"passthrough_kwargs.{name}"
        if field := DECIDED_ELSEWHERE.get(name):
            yield Problem(f"{field} already decides '{name}'", where, f"remove it; set {field}")
        elif reason := OURS.get(name):
            yield Problem(f"'{name}' cannot be changed: {reason}", where, "remove it")
        elif name == "kv_cache_config" and not _is_usable_cache(value):
            yield Problem(
                "kv_cache_config is a mapping without enable_block_reuse, which stays off: nothing "
                "empties a TensorRT engine's prefix cache between passes",
                where,
                "e.g. {free_gpu_memory_fraction: 0.8}",
            )


def _is_usable_cache(value: object) -> bool:
    return isinstance(value, dict) and "enable_block_reuse" not in value
