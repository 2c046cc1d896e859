"""One section of the configuration a backend; ``null`` always means the backend's own default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue
from pydantic.json_schema import SkipJsonSchema

from llenergymeasure.config.base import ConfigModel

MOST = 1_000_000_000
"""Of anything that is counted or lasts. Products of several such numbers are still exact; of the
largest that Python has, sums and plans overflow."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Milliseconds = Annotated[float, Field(ge=0, le=MOST)]
Watts = Annotated[float, Field(ge=0, le=MOST)]

REMOVED: dict[str, JsonValue] = {"removed": ""}
"""Mark of a field that only stored configurations may have; its description says why, and what to
do in its place."""

# https://nvidia.github.io/TensorRT-LLM/legacy/tensorrt-backend-removal.html; the notes of
# https://github.com/NVIDIA/TensorRT-LLM/releases/tag/v1.3.0rc20 name the last release that had it.
_NO_BUILDER = "TensorRT-LLM has no engine builder after 1.3.0rc20"


class PyTorchConfig(ConfigModel):
    """Hugging Face transformers on PyTorch, one ``generate`` call a batch."""

    batch_size: Count | None = Field(
        None,
        description="Requests a batch (default 1). For dynamic batching: the token budget "
        "of a batch is this many times the longest request.",
    )
    batching_strategy: Literal["static", "dynamic"] | None = Field(
        None,
        description="static (default): batches in dataset order, each of batch_size requests. "
        "dynamic: sorted by length and filled up to a token budget, so that padding is rare.",
    )
    attn_implementation: (
        Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None
    ) = Field(
        None,
        description="Attention kernel, as transformers names it (default: sdpa where the model "
        "has it).",
    )
    torch_compile: bool | None = Field(
        None, description="Compile the model's forward pass; warm-up pays for it (default false)."
    )
    load_in_4bit: bool | None = Field(
        None, description="Load through bitsandbytes NF4; must agree with precision: int4."
    )
    load_in_8bit: bool | None = Field(
        None, description="Load through bitsandbytes LLM.int8(); must agree with precision: int8."
    )
    num_processes: Count | None = Field(
        None,
        description="Processes that each load the model and share the prompts out among them "
        "(default 1): each takes a GPU of its own, or an even share of the CPU threads.",
    )
    device: str | None = Field(
        None,
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="cpu, cuda or cuda:N (default: cuda where there is a GPU).",
    )
    device_map: str | None = Field(
        None, description="Spread layers over GPUs as accelerate does, e.g. auto; not with device."
    )
    num_threads: Count | None = Field(
        None,
        description="CPU threads of PyTorch's operators, a process (default: PyTorch's own, "
        "shared out among num_processes).",
    )


class VLLMConfig(ConfigModel):
    """vLLM's offline engine."""

    max_num_seqs: Count | None = Field(None, description="Sequences served at once.")
    max_model_len: Count | None = Field(None, description="Longest context, input and output.")
    tensor_parallel_size: Count | None = Field(None, description="GPUs a layer is split over.")
    pipeline_parallel_size: Count | None = Field(
        None, description="GPUs the stack of layers is split over."
    )
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="Share of GPU memory, or of a CPU's, the engine may take."
    )
    enable_prefix_caching: bool | None = Field(
        None, description="Reuse the KV cache of shared prompt beginnings."
    )
    enable_chunked_prefill: bool | None = Field(
        None, description="Mix pieces of long prefills with decode steps."
    )
    block_size: Count | None = Field(None, description="Tokens a KV-cache block holds.")
    quantization: str | None = Field(
        None,
        description="Weight quantisation method; must agree with precision.",
        examples=["fp8"],
    )
    kv_cache_dtype: str | None = Field(None, description="Data type of the KV cache.")
    enforce_eager: bool | None = Field(None, description="Do without compilation and CUDA graphs.")


class TensorRTConfig(ConfigModel):
    """TensorRT-LLM's LLM API: arguments of ``tensorrt_llm.LLM``, named in brackets.

    Source: ``TorchLlmArgs`` and ``KvCacheConfig`` in ``tensorrt_llm/llmapi/llm_args.py`` of
    1.3.0rc29, https://nvidia.github.io/TensorRT-LLM/1.3.0rc29/_modules/tensorrt_llm/llmapi/llm_args.html
    """

    max_batch_size: Count | None = Field(
        None, description="Most requests served at once (max_batch_size)."
    )
    max_num_tokens: Count | None = Field(
        None,
        description="Most tokens of one step; a longer prompt needs enable_chunked_prefill "
        "(max_num_tokens).",
    )
    max_seq_len: Count | None = Field(
        None, description="Longest context, input and output (max_seq_len)."
    )
    tp_size: Count | None = Field(
        None, description="GPUs a layer is split over (tensor_parallel_size)."
    )
    pp_size: Count | None = Field(
        None, description="GPUs the stack of layers is split over (pipeline_parallel_size)."
    )
    moe_tp_size: Count | None = Field(
        None,
        description="GPUs of tp_size that each expert is split over (moe_tensor_parallel_size).",
    )
    moe_ep_size: Count | None = Field(
        None,
        description="GPUs of tp_size that experts are shared out among (moe_expert_parallel_size).",
    )
    quantization: str | None = Field(
        None,
        description="Method that the checkpoint is quantised with; must agree with precision and "
        "with the checkpoint, which decides.",
        examples=["fp8"],
    )
    free_gpu_memory_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the GPU memory left beside the model that the KV cache takes "
        "(kv_cache_config.free_gpu_memory_fraction).",
    )
    kv_cache_dtype: str | None = Field(
        None,
        description="Data type of the KV cache, e.g. fp8 (kv_cache_config.dtype).",
        examples=["fp8"],
    )
    enable_block_reuse: bool | None = Field(
        None,
        description="Reuse the KV cache of shared prompt beginnings, within a pass "
        "(kv_cache_config.enable_block_reuse).",
    )
    enable_chunked_prefill: bool | None = Field(
        None,
        description="Prefill prompts longer than max_num_tokens in pieces "
        "(enable_chunked_prefill).",
    )
    cuda_graphs: bool | None = Field(
        None, description="Replay decode steps from CUDA graphs (cuda_graph_config; false: null)."
    )
    attn_backend: Literal["TRTLLM", "FLASHINFER", "VANILLA"] | None = Field(
        None, description="Attention kernels (attn_backend)."
    )
    kv_cache_type: SkipJsonSchema[str | None] = Field(
        None,
        description=f"{_NO_BUILDER}, and its KV cache is always paged; remove it",
        json_schema_extra=REMOVED,
    )
    builder_opt_level: SkipJsonSchema[int | None] = Field(
        None, description=f"{_NO_BUILDER}; remove it", json_schema_extra=REMOVED
    )
    engine_path: SkipJsonSchema[str | None] = Field(
        None,
        description=f"{_NO_BUILDER}, nor does it serve engines built before; remove it: the "
        "checkpoint that model names is loaded directly",
        json_schema_extra=REMOVED,
    )


class ScriptedConfig(ConfigModel):
    """A backend that computes nothing: it keeps to a script of latencies and failures.

    For tests, documentation and rehearsals of a study on a machine without an engine.
    """

    ttft_ms: Milliseconds = Field(20.0, description="Time from scheduled to the first token.")
    itl_ms: Milliseconds = Field(5.0, description="Time between tokens.")
    output_tokens: Count | None = Field(
        None, description="Tokens every request produces, at most its max_new_tokens (default)."
    )
    batch_size: Count = Field(1, description="Requests that run side by side.")
    fail_at: Literal["load", "warmup", "measure"] | None = Field(
        None, description="Phase in which the engine breaks; in warmup and measure, half-way."
    )
    device_uuids: tuple[str, ...] = Field(
        (), description="Devices it claims to have worked on.", strict=False
    )
    load_log: str | None = Field(
        None,
        description="File to which each change of load is appended: monotonic seconds and watts.",
        json_schema_extra={"is_path": ""},
    )
    idle_w: Watts = Field(60.0, description="Power written to load_log between batches.")
    prefill_w: Watts = Field(400.0, description="Power written to load_log until the first token.")
    decode_w: Watts = Field(300.0, description="Power written to load_log after it.")
