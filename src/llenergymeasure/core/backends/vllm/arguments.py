"""From a configuration to the arguments of vLLM; pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import DecoderConfig, ExperimentConfig
from llenergymeasure.config.names import compute_dtype
from llenergymeasure.core.backends.shared.engines import sampling_options

DRAFT_TOKENS = 5
"""Tokens drafted a step, as in vLLM's examples (docs.vllm.ai, "Speculative Decoding"); it has no
default of its own."""

WORKER = "llenergymeasure.core.backends.vllm.worker.WorkerFacts"
_MAX_LOGPROBS = 20  # vLLM's own limit
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what max_lora_rank accepts

DECIDED_ELSEWHERE = {
    **{name: f"vllm.{name}" for name in VLLMConfig.model_fields},
    "model": "model",
    "tokenizer": "model",
    "revision": "revision",
    "tokenizer_revision": "revision",
    "trust_remote_code": "trust_remote_code",
    "dtype": "precision",
    "quantization_config": "vllm.quantization",
    "seed": "random_seed",
    "enable_lora": "lora",
    "load_format": "model",
    "spec_method": "decoder.draft_model",
    "spec_model": "decoder.draft_model",
    "spec_tokens": "decoder.draft_model",
}
"""Arguments of ``LLM`` that fields of the configuration decide."""

OURS = {
    "generation_config": "a model's own sampling defaults never change the workload",
    "override_generation_config": "the section decoder decides how tokens are chosen",
    "disable_log_stats": "the times of requests come from these statistics",
    "worker_extension_cls": "memory and threads of the workers are asked through it",
    "skip_tokenizer_init": "vLLM knows the end of sequence from the tokenizer",
}
"""Arguments of ``LLM`` that a measurement depends on, and why."""

ELSEWHERE = (
    "prefill_context_parallel_size",
    "data_parallel_",
    "distributed_executor_backend",
    "device_ids",
    "nnodes",
    "node_rank",
    "master_addr",
    "enable_elastic_ep",
    "elastic_ep_max_dp_size",
)
"""How the names of arguments begin that take workers beyond the first ``tensor_parallel_size`` x
``pipeline_parallel_size`` devices (vLLM 0.32, ``config/parallel.py``)."""

ON_THIS_MACHINE: dict[str, tuple[str | int | None, ...]] = {
    "distributed_executor_backend": (None, "mp", "uni"),
    "prefill_context_parallel_size": (1,),
    "data_parallel_size": (1,),
    "nnodes": (1,),
}
"""Values of them that do not."""


class ModelFiles(NamedTuple):
    """What is to be loaded, as vLLM is told.

    Attributes:
        model: Hub id or directory.
        is_random: Whether vLLM makes up the weights.
        quantised_as: Quantisation that the checkpoint itself names, or ``None``.
        draft: Hub id or directory of the drafting model, or ``None``.
        lora_rank: Rank of the adapter, where it is known.
    """

    model: str
    is_random: bool = False
    quantised_as: str | None = None
    draft: str | None = None
    lora_rank: int | None = None


def engine_arguments(config: ExperimentConfig, files: ModelFiles) -> dict[str, Any]:
    """Give the arguments of ``vllm.LLM``; what is null stays vLLM's own choice."""
    section = config.vllm or VLLMConfig()
    arguments: dict[str, Any] = {
        "model": files.model,
        "revision": config.revision,
        "tokenizer_revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
        "dtype": compute_dtype(config.precision),
        "seed": config.random_seed,
        "generation_config": "vllm",
        "disable_log_stats": False,
        "worker_extension_cls": WORKER,
        **section.model_dump(exclude_none=True),
    }
    if config.precision == "fp8" and not (files.quantised_as or section.quantization):
        arguments["quantization"] = "fp8"
    if files.is_random:
        arguments["load_format"] = "dummy"
    # A step of beam search asks for twice as many candidates as there are beams.
    asked = 2 * (config.decoder.num_beams or 1)
    if asked > _MAX_LOGPROBS:
        arguments["max_logprobs"] = asked
    return {
        **arguments,
        **_adapter(files, config),
        **_draft(files),
        **(config.passthrough_kwargs or {}),
    }


def sampling_arguments(config: ExperimentConfig, max_new_tokens: int) -> dict[str, Any]:
    """Give the arguments of ``vllm.SamplingParams`` for one request; null becomes neutral.

    No request has a seed of its own: vLLM would draw for each in turn, and leave its fast samplers
    (``v1/sample/ops/topk_topp_sampler.py``). All draw from the engine's seed.
    """
    decoder = config.decoder
    return {
        "max_tokens": max_new_tokens,
        "min_tokens": min(decoder.min_new_tokens or 0, max_new_tokens),
        "ignore_eos": config.ignores_eos,
        "repetition_penalty": decoder.repetition_penalty or 1.0,
        "temperature": 0.0,
        "detokenize": False,
        **sampling_options(decoder),
    }


def beam_arguments(decoder: DecoderConfig, max_new_tokens: int, ignore_eos: bool) -> dict[str, Any]:
    """Give the arguments of ``vllm.sampling_params.BeamSearchParams``."""
    return {
        "beam_width": decoder.num_beams,
        "max_tokens": max_new_tokens,
        "ignore_eos": ignore_eos,
        "temperature": 0.0,
    }


def _adapter(files: ModelFiles, config: ExperimentConfig) -> dict[str, Any]:
    if config.lora is None:
        return {}
    room = [rank for rank in _LORA_RANKS if rank >= (files.lora_rank or 16)]
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(room, default=512)}


def _draft(files: ModelFiles) -> dict[str, Any]:
    if files.draft is None:
        return {}
    speculation = {
        "method": "draft_model",
        "model": files.draft,
        "num_speculative_tokens": DRAFT_TOKENS,
    }
    return {"speculative_config": speculation}
