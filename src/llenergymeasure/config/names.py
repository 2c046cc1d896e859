"""Names of models, of arithmetic and of decoding, and what they mean."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

RANDOM_PREFIX = "random:"
"""How the name of a model begins that has an architecture and no trained weights."""
PATH_PREFIXES = ("./", "../", "/", "~")
"""How the name of a model begins that is a local directory whether or not it exists."""

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8", "int4"]
DecodingStrategy = Literal["greedy", "sampling", "beam"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DECODING_STRATEGIES: tuple[DecodingStrategy, ...] = get_args(DecodingStrategy)

PROMPT_FILES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
"""How the name of a file of prompts ends, in small or capital letters."""

WEIGHT_BITS: dict[Precision, int] = {
    "fp32": 32,
    "fp16": 16,
    "bf16": 16,
    "int8": 8,
    "fp8": 8,
    "int4": 4,
}

QUANTISED: tuple[Precision, ...] = ("int8", "fp8", "int4")


def prompt_file_ending(name: str) -> str | None:
    """Give the ending that makes a name that of a file of prompts; ``None`` for another name."""
    return next((ending for ending in PROMPT_FILES if name.lower().endswith(ending)), None)


def without_tilde(path: str) -> Path:
    """Give a path with the home directory written out; ``~`` of no such user stays, as in a shell.

    ``Path.expanduser`` raises there.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111


def compute_dtype(precision: Precision) -> str:
    """Name the type of what is not quantised, as torch does; the same in every engine."""
    return {"fp32": "float32", "fp16": "float16"}.get(precision, "bfloat16")


def compute_bytes(precision: Precision) -> int:
    """Bytes of a value that is not quantised: KV cache, embeddings, norms, activations."""
    return 4 if precision == "fp32" else 2
