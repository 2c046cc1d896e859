"""From a configuration to the arguments of TensorRT-LLM; pure, and plain data."""

from __future__ import annotations

from typing import Any, NamedTuple

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.precisions import compute_dtype

DEFAULT_MAX_NUM_TOKENS = 8192
"""``TorchLlmArgs.max_num_tokens``, 1.3.0rc29."""

ARGUMENTS = {
    **{
        name: name
        for name in (
            "max_batch_size",
            "max_num_tokens",
            "max_seq_len",
            "enable_chunked_prefill",
            "attn_backend",
        )
    },
    "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "moe_tp_size": "moe_tensor_parallel_size",
    "moe_ep_size": "moe_expert_parallel_size",
}
"""Fields of the section, and the arguments of ``LLM`` that they are."""

CACHE_ARGUMENTS = {
    "free_gpu_memory_fraction": "free_gpu_memory_fraction",
    "kv_cache_dtype": "dtype",
    "enable_block_reuse": "enable_block_reuse",
}
"""Fields of the section, and the entries of ``kv_cache_config`` that they are."""

DECIDED_ELSEWHERE = {
    **{theirs: f"tensorrt.{ours}" for ours, theirs in ARGUMENTS.items()},
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
    "backend": "PyTorch is the executor that this version drives",
    "context_parallel_size": "energy is read on tensorrt.tp_size x pp_size GPUs",
    "orchestrator_type": "the processes of the engine are those that MPI starts",
    "skip_tokenizer_init": "TensorRT-LLM knows the end of sequence from the tokenizer",
    "generation_config": "a model's own sampling defaults never change the workload",
    "max_beam_width": "this version has no beam search on tensorrt",
    "speculative_config": "this version has no speculative decoding on tensorrt",
}
"""Arguments of ``LLM`` that a measurement depends on, and why."""


class ModelFiles(NamedTuple):
    """What is to be loaded.

    Attributes:
        model: Hub id or directory.
        is_random: Whether TensorRT-LLM makes up the weights.
        adapter: Directory of a LoRA adapter, or ``None``.
        adapter_rank: Its rank, where it states one.
    """

    model: str
    is_random: bool = False
    adapter: str | None = None
    adapter_rank: int | None = None


class EngineTokens(NamedTuple):
    """Tokens with a meaning of their own.

    Attributes:
        ends: Those that end a sequence, ascending.
        pad: The filler.
    """

    ends: tuple[int, ...]
    pad: int


def engine_arguments(config: ExperimentConfig, files: ModelFiles) -> dict[str, Any]:
    """Give the arguments of ``LLM``; what is null stays TensorRT-LLM's choice."""
    section = config.tensorrt or TensorRTConfig()
    given = section.model_dump(exclude_none=True)
    passed: dict[str, Any] = dict(config.passthrough_kwargs or {})
    cache = {theirs: given[ours] for ours, theirs in CACHE_ARGUMENTS.items() if ours in given}
    arguments: dict[str, Any] = {
        "model": files.model,
        "tokenizer": files.model,
        "revision": config.revision,
        "tokenizer_revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        "dtype": compute_dtype(config.precision),
        **{theirs: given[ours] for ours, theirs in ARGUMENTS.items() if ours in given},
    }
    if cache := {**cache, **(passed.pop("kv_cache_config", None) or {})}:
        arguments["kv_cache_config"] = cache
    if section.cuda_graphs is not None:
        arguments["cuda_graph_config"] = {} if section.cuda_graphs else None
    if files.is_random:
        arguments["load_format"] = "dummy"
    if files.adapter is not None:
        arguments["lora_config"] = {
            "lora_dir": [files.adapter],
            "max_lora_rank": files.adapter_rank or 64,
            "max_loras": 1,
            "max_cpu_loras": 1,
        }
    return {**arguments, **passed}


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
