"""From a configuration to the arguments of TensorRT-LLM, and from its errors back to fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import RANDOM_PREFIX, compute_dtype
from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.engines import sampling_options
from llenergymeasure.core.backends.shared.errors import Words
from llenergymeasure.core.backends.shared.problems import adapter_name, adapter_rank

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
    **{f"kv_cache_config.{theirs}": f"tensorrt.{ours}" for ours, theirs in CACHE_ARGUMENTS.items()},
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
"""Arguments of ``LLM``, or entries of one, that fields of the configuration decide."""

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


def engine_arguments(config: ExperimentConfig, model: str) -> dict[str, Any]:
    """Give the arguments of ``LLM``; what is null stays TensorRT-LLM's choice.

    Args:
        config: What to measure.
        model: Hub id or directory of the model.
    """
    section = config.tensorrt or TensorRTConfig()
    given = section.model_dump(exclude_none=True)
    passed: dict[str, Any] = dict(config.passthrough_kwargs or {})
    cache = {theirs: given[ours] for ours, theirs in CACHE_ARGUMENTS.items() if ours in given}
    arguments: dict[str, Any] = {
        "model": model,
        "tokenizer": model,
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
    if config.model.startswith(RANDOM_PREFIX):
        arguments["load_format"] = "dummy"
    if (adapter := adapter_name(config)) is not None:
        arguments["lora_config"] = {
            "lora_dir": [adapter],
            "max_lora_rank": adapter_rank(config) or 64,
            "max_loras": 1,
            "max_cpu_loras": 1,
        }
    return {**arguments, **passed}


def sampling_arguments(
    config: ExperimentConfig, request: Request, ends: Sequence[int], pad: int
) -> dict[str, Any]:
    """Give the arguments of ``SamplingParams`` for one request; null becomes neutral.

    The end of sequence is told, so that the model's ``generation_config`` decides nothing. Each
    request draws from a seed of its own, so that what it draws depends neither on the requests
    beside it nor on the passes before.

    Args:
        config: What to measure.
        request: The request.
        ends: Tokens that end a sequence, ascending.
        pad: The filler.
    """
    decoder, ignores_eos = config.decoder, config.ignores_eos or request.full_length
    arguments: dict[str, Any] = {
        "max_tokens": request.max_new_tokens,
        "end_id": ends[0] if ends else -1,
        "pad_id": pad,
        "ignore_eos": ignores_eos,
        "repetition_penalty": decoder.repetition_penalty or 1.0,
        "top_k": 1,
        "detokenize": False,
        "return_perf_metrics": True,
    }
    if len(ends) > 1 and not ignores_eos:
        arguments["stop_token_ids"] = list(ends[1:])
        arguments["include_stop_str_in_output"] = True
    if decoder.min_new_tokens is not None:
        arguments["min_tokens"] = min(decoder.min_new_tokens, request.max_new_tokens)
    if sampling := sampling_options(decoder):
        arguments |= sampling
        arguments["seed"] = config.random_seed + request.index
    return arguments


WORDS = Words(
    "TensorRT-LLM",
    less={
        "load": "lower tensorrt.max_batch_size, max_num_tokens or max_seq_len, raise "
        "tensorrt.tp_size, or choose a smaller model or precision",
        "generate": "lower tensorrt.max_batch_size or tensorrt.max_num_tokens, or leave more "
        "memory free with tensorrt.free_gpu_memory_fraction, e.g. 0.7",
    },
    remedies=(
        ("got invalid argument", "check passthrough_kwargs: TensorRT-LLM does not take it"),
        (
            "extra inputs are not permitted",
            "check passthrough_kwargs: TensorRT-LLM does not take it",
        ),
        ("should not exceed max_seq_len", "raise tensorrt.max_seq_len, or lower max_input_tokens"),
        (
            "should not exceed max_num_tokens",
            "raise tensorrt.max_num_tokens, set tensorrt.enable_chunked_prefill: true, or lower "
            "max_input_tokens",
        ),
        ("unsupported quantization_config", "name a checkpoint of NVIDIA's Model Optimizer"),
        ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
        ("lora", "check that lora names an adapter of this model"),
        ("only supported on sm", "choose another precision; this GPU lacks it"),
        ("unknown architecture", "choose a model that TensorRT-LLM has, or backend: pytorch"),
    ),
    fields={
        **DECIDED_ELSEWHERE,
        "cuda_graph_config": "tensorrt.cuda_graphs",
        "kv_cache_quant_algo": "tensorrt.kv_cache_dtype",
        "quant_algo": "tensorrt.quantization",
        **{name: f"tensorrt.{name}" for name in TensorRTConfig.model_fields},
    },
)
"""What TensorRT-LLM raises, in this package's words."""
