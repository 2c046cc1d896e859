"""Names of models, of arithmetic and of decoding, and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

RANDOM_PREFIX = "random:"
"""How the name of a model begins that has an architecture and no trained weights."""
PATH_PREFIXES = ("./", "../", "/", "~")
"""How the name of a model begins that is a local directory whether or not it exists."""

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4"]
DecodingStrategy = Literal["greedy", "sampling", "beam"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DECODING_STRATEGIES: tuple[DecodingStrategy, ...] = get_args(DecodingStrategy)

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


def other_arithmetic(precision: Precision, in_force: Mapping[str, Any]) -> str | None:
    """Say what an engine does otherwise than its ``precision`` means, or ``None``.

    Args:
        precision: What was asked for.
        in_force: ``resolved.backend`` of the result; an engine that does not tell its
            ``compute_dtype`` or ``quantization`` is taken at its word.
    """
    dtype, wanted = in_force.get("compute_dtype"), compute_dtype(precision)
    if dtype not in (None, wanted):
        return f"precision: {precision} means to compute in {wanted}, and the engine has {dtype}"
    if "quantization" not in in_force:
        return None
    method = in_force["quantization"]
    if precision in QUANTISED and method is None:
        return f"precision: {precision} means quantised weights, and those of the engine are not"
    if precision not in QUANTISED and method is not None:
        return f"precision: {precision} means plain weights, and the engine has {method}"
    return None
