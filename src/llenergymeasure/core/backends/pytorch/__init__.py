"""The pytorch backend, Hugging Face transformers on PyTorch: what it is, without importing it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from llenergymeasure.config.backend_facts import (
    ANSWERS,
    LEFT_TO_ENGINES,
    SAMPLING,
    SPECULATION,
    BackendFacts,
)
from llenergymeasure.config.base import FieldProblem
from llenergymeasure.config.experiment_fields import ExperimentFields

_BY_PRECISION = {"load_in_4bit": "int4", "load_in_8bit": "int8"}
"""Flags that must agree with the precision, which decides."""


def contradictions(config: ExperimentFields) -> Iterator[FieldProblem]:
    """List what in a configuration contradicts its pytorch section."""
    section = config.pytorch
    if section is None:
        return
    if config.decoder.speculative_decoding:
        alone = "speculative decoding in transformers takes one request at a time"
        if section.batching_strategy == "dynamic":
            yield FieldProblem("pytorch.batching_strategy", alone, "remove it")
        if (section.batch_size or 1) > 1:
            yield FieldProblem("pytorch.batch_size", alone, "set batch_size: 1")
    for flag, precision in _BY_PRECISION.items():
        wanted = getattr(section, flag)
        if wanted is not None and wanted != (config.precision == precision):
            yield FieldProblem(
                f"pytorch.{flag}",
                f"{str(wanted).lower()} contradicts precision: {config.precision}",
                f"remove it (precision decides) or set precision: {precision}",
            )
    if section.device is not None and section.device_map is not None:
        yield FieldProblem(
            "pytorch.device_map", "contradicts pytorch.device", "keep one of the two"
        )


def spelled(section: dict[str, Any], prompts: int) -> dict[str, Any]:
    """Take a static batch to be no larger than the prompts that a process has."""
    left = {name: value for name, value in section.items() if name not in _BY_PRECISION}
    if "batch_size" in left and left.get("batching_strategy", "static") == "static":
        share = math.ceil(prompts / left.get("num_processes", 1))
        left["batch_size"] = min(left["batch_size"], share)
    return left


FACTS = BackendFacts(
    name="pytorch",
    implementation="llenergymeasure.core.backends.pytorch.loader:PyTorchBackend",
    section="llenergymeasure.config.backend_configs:PyTorchConfig",
    package="transformers",
    module="transformers",
    minimum="5.0",
    install="pip install 'llenergymeasure[pytorch]'",
    also=("torch",),
    companions=("accelerate", "peft", "bitsandbytes"),
    # int8 and int4 through bitsandbytes (LLM.int8(), NF4); no fp8 loader without extra kernels.
    # https://huggingface.co/docs/transformers/quantization/bitsandbytes
    precisions=("fp32", "fp16", "bf16", "int8", "int4"),
    # https://huggingface.co/docs/transformers/generation_strategies
    decoding=("greedy", "sampling", "beam"),
    honours=SAMPLING | SPECULATION | ANSWERS | {*LEFT_TO_ENGINES},
    neutral={
        "batch_size": 1,
        "batching_strategy": "static",
        "torch_compile": False,
        "num_processes": 1,
    },
    spelled=spelled,
    contradictions=contradictions,
    differs={
        "scheduling": "one padded batch after another ({batching_strategy}, batch_size "
        "{batch_size}), TTFT from the start of the batch and the same for all its rows",
        "kv_cache": "grown with each batch, so that peak memory is what the requests needed",
        "clocks": "when a step's logits are there, by a hook in generate: the clock on a CPU, "
        "CUDA events on a GPU",
        "kernels": "attention by {attn_implementation}, the same batches in every pass",
        "int8": "bitsandbytes LLM.int8()",
        "int4": "bitsandbytes NF4",
        "random_weights": "drawn by transformers from random_seed",
        "sampling": "one stream of PyTorch's random numbers a pass, from random_seed",
        "beam_search": "inside generate; TTFT and ITL are those of search steps, E2E ends with the "
        "search of the batch; it ends at every end of sequence of the model",
        "speculation": "transformers decides how many tokens are drafted, one request at a time",
        "warm_up": "a warm-up batch is one batch; torch_compile ({torch_compile}) compiles in it",
        "threads": "{num_threads}",
    },
    runs_transformers=True,
    # Code of libtorch and its kernels, thread pools, and buffers of MKL and oneDNN, by measurement
    # (benchmarks/memory_estimates.py); of torch 2.13 and transformers 5.23 on x86.
    resident_mb=390.0,
    first_use_mb={"fp32": 8.0, "fp16": 16.0, "bf16": 16.0},
    plain_fields=("batching_strategy", "attn_implementation"),
    less_padding=("batching_strategy", "dynamic"),
    # transformers imports most of itself on first use, so what loading and generating need is named
    preload=(
        "torch",
        "transformers",
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
        "transformers.generation.utils",
        "transformers.models.llama.modeling_llama",
        "transformers.models.mistral.modeling_mistral",
        "transformers.models.qwen2.modeling_qwen2",
    ),
    needs_torch_for_gpus=True,
    has_dockerfile=True,
)
