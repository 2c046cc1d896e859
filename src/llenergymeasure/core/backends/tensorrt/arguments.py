"""From a configuration to the arguments of TensorRT-LLM; pure.

Everything here is plain data: it goes into the key of the engine cache and to the process that
builds. ``library`` turns it into the library's own records.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.precisions import compute_dtype
from llenergymeasure.core.backends.tensorrt.facts import EngineFacts

QUANT_ALGOS = {
    # TensorRT-LLM's own short names and the algorithms behind them, as its quantize_by_modelopt.py
    # has them; https://nvidia.github.io/TensorRT-LLM/reference/precision.html
    "fp8": "FP8",
    "int8_wo": "W8A16",
    "int8_sq": "W8A8_SQ_PER_CHANNEL",
    "int4_wo": "W4A16",
    "int4_awq": "W4A16_AWQ",
    "int4_gptq": "W4A16_GPTQ",
}
DEFAULT_METHODS = {"fp8": "fp8", "int8": "int8_wo", "int4": "int4_wo"}
"""Method of a quantised precision where none is named: those that need no calibration, but fp8."""

_INPUT_ROOM = 1024  # BuildConfig.max_input_len by default; one engine serves all shorter prompts

DECIDED_ELSEWHERE = {
    "max_batch_size": "tensorrt.max_batch_size",
    "tensor_parallel_size": "tensorrt.tp_size",
    "pipeline_parallel_size": "tensorrt.pp_size",
    "max_seq_len": "tensorrt.max_seq_len",
    "build_config": "tensorrt.max_batch_size, max_seq_len or kv_cache_type",
    "quant_config": "tensorrt.quantization",
    "model": "model",
    "tokenizer": "model",
    "revision": "revision",
    "tokenizer_revision": "revision",
    "trust_remote_code": "trust_remote_code",
    "dtype": "precision",
    "load_format": "model",
    "enable_lora": "lora",
    "lora_config": "lora",
}
"""Arguments of ``LLM`` that fields of the configuration decide."""

OURS = {
    "backend": "this version drives TensorRT engines",
    "context_parallel_size": "energy is read on tensorrt.tp_size x pp_size GPUs",
    "skip_tokenizer_init": "TensorRT-LLM knows the end of sequence from the tokenizer",
    "max_beam_width": "this version has no beam search on tensorrt",
    "speculative_config": "this version has no speculative decoding on tensorrt",
    "enable_build_cache": "llenergymeasure keeps the engines",
    "workspace": "llenergymeasure keeps the engines",
    "return_perf_metrics": "the times of requests come from these metrics",
}
"""Arguments of ``LLM`` that a measurement depends on, and why."""


class ModelFiles(NamedTuple):
    """What is to be loaded.

    Attributes:
        model: Hub id or directory.
        identity: What tells its contents from those of another: a commit, or a hash.
        is_random: Whether TensorRT-LLM makes up the weights.
        quantised_as: Algorithm that the checkpoint itself names, or ``None``.
        adapter: Directory of a LoRA adapter, or ``None``.
        adapter_rank: Its rank.
        adapter_identity: Hash of its configuration.
    """

    model: str
    identity: str
    is_random: bool = False
    quantised_as: str | None = None
    adapter: str | None = None
    adapter_rank: int | None = None
    adapter_identity: str | None = None


class EngineTokens(NamedTuple):
    """Tokens with a meaning of their own.

    Attributes:
        ends: Those that end a sequence, ascending.
        pad: The filler.
    """

    ends: tuple[int, ...]
    pad: int


def quantisation(config: ExperimentConfig, files: ModelFiles) -> str | None:
    """Give the algorithm that the build applies; ``None`` for none, or the checkpoint's own."""
    if files.quantised_as is not None:
        return None
    section = config.tensorrt or TensorRTConfig()
    method = section.quantization or DEFAULT_METHODS.get(config.precision)
    return QUANT_ALGOS[method] if method is not None else None


def build_arguments(config: ExperimentConfig, files: ModelFiles) -> dict[str, Any]:
    """Give the arguments of the ``LLM`` that builds; what is null stays TensorRT-LLM's choice."""
    section = config.tensorrt or TensorRTConfig()
    sizes: dict[str, Any] = {"max_input_len": max(_INPUT_ROOM, longest_prompt(config) or 0)}
    for name in ("max_batch_size", "max_seq_len"):
        if (value := getattr(section, name)) is not None:
            sizes[name] = value
    # TrtLlmArgs refuses or cuts (1.0 or 1.2) what is larger than in the build's own record.
    asked = {k: v for k, v in (config.passthrough_kwargs or {}).items() if k == "max_num_tokens"}
    shape = {**sizes, **asked}
    if section.kv_cache_type is not None:
        shape["kv_cache_type"] = section.kv_cache_type.upper()
    if files.adapter is not None:
        shape["lora_config"] = {
            "lora_dir": [files.adapter],
            "max_lora_rank": files.adapter_rank or 64,
        }
    arguments = {
        "model": files.model,
        "revision": config.revision,
        "dtype": compute_dtype(config.precision),
        "tensor_parallel_size": section.tp_size or 1,
        "pipeline_parallel_size": section.pp_size or 1,
        "build_config": shape,
        **sizes,
        **_common(config, files),
    }
    if (algorithm := quantisation(config, files)) is not None:
        arguments["quant_config"] = {"quant_algo": algorithm}
    if files.is_random:
        arguments["load_format"] = "dummy"
    return {**arguments, **_passed_through(config)}


def serving_arguments(
    config: ExperimentConfig, files: ModelFiles, facts: EngineFacts
) -> dict[str, Any]:
    """Give the arguments of the ``LLM`` that serves an engine.

    Its sizes are told again: ``LLM`` would take its own defaults over those of the engine, and the
    executor refuses what is larger than the engine.
    """
    sizes = {
        "max_batch_size": facts.max_batch_size,
        "max_seq_len": facts.max_seq_len,
        "max_input_len": facts.max_input_len,
        "max_num_tokens": facts.max_num_tokens,
    }
    return {
        "model": str(facts.directory),
        "tensor_parallel_size": facts.tp_size,
        "pipeline_parallel_size": facts.pp_size,
        **{name: value for name, value in sizes.items() if value is not None},
        **_common(config, files),
        **_passed_through(config),
    }


def sampling_arguments(
    config: ExperimentConfig, tokens: EngineTokens, max_new_tokens: int, request_index: int
) -> dict[str, Any]:
    """Give the arguments of ``SamplingParams`` for one request; null becomes neutral.

    The end of sequence is told, so that the model's ``generation_config`` decides nothing. Each
    request draws from a seed of its own, so that what it draws depends neither on the requests
    beside it nor on the passes before.
    """
    decoder = config.decoder
    arguments: dict[str, Any] = {
        "max_tokens": max_new_tokens,
        "end_id": tokens.ends[0] if tokens.ends else -1,
        "pad_id": tokens.pad,
        "ignore_eos": config.ignores_eos,
        "repetition_penalty": decoder.repetition_penalty or 1.0,
        "top_k": 1,
        "detokenize": False,
        "return_perf_metrics": True,
    }
    if len(tokens.ends) > 1 and not config.ignores_eos:
        arguments["stop_token_ids"] = list(tokens.ends[1:])
        arguments["include_stop_str_in_output"] = True
    if decoder.min_new_tokens is not None:
        arguments["min_tokens"] = min(decoder.min_new_tokens, max_new_tokens)
    if decoder.decoding_strategy == "sampling":
        arguments["temperature"] = decoder.temperature or 1.0
        arguments["top_p"] = decoder.top_p or 1.0
        arguments["top_k"] = decoder.top_k or 0
        arguments["seed"] = config.random_seed + request_index
    return arguments


def longest_prompt(config: ExperimentConfig) -> int | None:
    """Give the most tokens a prompt may have, or ``None`` without a limit."""
    if isinstance(config.dataset, SyntheticDataset):
        return config.dataset.synthetic.input_len
    section = config.tensorrt or TensorRTConfig()
    return config.max_input_tokens or section.max_seq_len


def _common(config: ExperimentConfig, files: ModelFiles) -> dict[str, Any]:
    asked = (config.passthrough_kwargs or {}).get("kv_cache_config")
    extra = asked if isinstance(asked, dict) else {}
    arguments: dict[str, Any] = {
        "tokenizer": files.model,
        "tokenizer_revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        # There is no call that empties a TensorRT engine's prefix cache between passes.
        "kv_cache_config": {"enable_block_reuse": False, **extra},
    }
    if files.adapter is not None:
        arguments["enable_lora"] = True
    return arguments


def _passed_through(config: ExperimentConfig) -> dict[str, Any]:
    extra = config.passthrough_kwargs or {}
    return {name: value for name, value in extra.items() if name != "kv_cache_config"}
