"""What each backend supports, stated once; everything that checks or documents it reads here."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4"]
DecodingStrategy = Literal["greedy", "sampling", "beam"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DECODING_STRATEGIES: tuple[DecodingStrategy, ...] = get_args(DecodingStrategy)

PRECISION_SUPPORT: dict[str, tuple[Precision, ...]] = {
    # int8 and int4 through bitsandbytes (LLM.int8(), NF4); no fp8 loader without extra kernels.
    # https://huggingface.co/docs/transformers/quantization/bitsandbytes
    "pytorch": ("fp32", "fp16", "bf16", "int8", "int4"),
    # int8 and int4 from checkpoints that are quantised (AWQ, GPTQ, compressed-tensors), fp8 while
    # loading as well. https://docs.vllm.ai/en/latest/features/quantization/
    "vllm": ("fp32", "fp16", "bf16", "int8", "fp8", "int4"),
    # fp8 and int4 from checkpoints that are quantised; its list of recipes names no int8, and its
    # attention kernels no fp32. https://nvidia.github.io/TensorRT-LLM/features/quantization.html
    "tensorrt": ("fp16", "bf16", "fp8", "int4"),
    # The scripted backend computes nothing, so every name is as good as another.
    "scripted": PRECISIONS,
}

DECODING_SUPPORT: dict[str, tuple[DecodingStrategy, ...]] = {
    # https://huggingface.co/docs/transformers/generation_strategies
    "pytorch": ("greedy", "sampling", "beam"),
    # Beam search through LLM.beam_search, https://docs.vllm.ai/en/latest/api/vllm/
    "vllm": ("greedy", "sampling", "beam"),
    # TensorRT-LLM has beam search too (https://nvidia.github.io/TensorRT-LLM/features/sampling.html);
    # it is not offered here yet.
    "tensorrt": ("greedy", "sampling"),
    "scripted": ("greedy", "sampling"),
}

WEIGHT_BITS: dict[Precision, int] = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "int8": 8,
    "fp8": 8,
    "int4": 4,
}

QUANTISED: tuple[Precision, ...] = ("int8", "fp8", "int4")


def compute_dtype(precision: Precision) -> str:
    """Name the type of what is not quantised, as torch does; the same in every engine."""
    return {"fp32": "float32", "fp16": "float16"}.get(precision, "bfloat16")


def compute_bytes(precision: Precision) -> int:
    """Bytes of a value that is not quantised: KV cache, embeddings, norms, activations."""
    return 4 if precision == "fp32" else 2


QUANTISATION_PRECISION: dict[str, dict[str, tuple[Precision, ...]]] = {
    # By backend: which `precision` each `quantization` method can mean. A method that is not here
    # is refused, since nobody could say what it computes.
    "vllm": {
        # Methods of checkpoints, whose own files say which of these they are.
        "awq": ("int4",),
        "awq_marlin": ("int4",),
        "auto_awq": ("int4",),
        "gptq": ("int8", "int4"),
        "gptq_marlin": ("int8", "int4"),
        "auto_gptq": ("int8", "int4"),
        "compressed-tensors": ("int8", "fp8", "int4"),
        "modelopt": ("fp8",),
        # Methods that quantise while loading. vLLM's online int8 (int8_per_channel_weight_only) is
        # of experts alone and leaves all else as it is (vllm/config/quantization.py). bitsandbytes
        # makes NF4 of plain weights (docs.vllm.ai of 0.19, "BitsAndBytes"); 0.32 has none. What the
        # installed version has is looked up before anything loads (quantisation.py of the backend).
        "fp8": ("fp8",),
        "fp8_per_tensor": ("fp8",),
        "fp8_per_block": ("fp8",),
        "fp8_per_channel": ("fp8",),
        "bitsandbytes": ("int4",),
    },
    # https://nvidia.github.io/TensorRT-LLM/features/quantization.html
    "tensorrt": {"fp8": ("fp8",), "int4_awq": ("int4",), "int4_gptq": ("int4",)},
}

QUANTISE_WHILE_LOADING = (
    "fp8",
    "fp8_per_tensor",
    "fp8_per_block",
    "fp8_per_channel",
    "bitsandbytes",
)
"""Methods of vLLM that take plain weights; the others need a checkpoint of their own."""
