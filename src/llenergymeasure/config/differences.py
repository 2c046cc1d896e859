"""What engines do each in their own way and cannot be made equal, stated once.

A study over several engines tells those that apply to it. What stands here is what the modules in
``core/backends`` do; their pages in ``docs/engines`` say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Condition = Literal[
    "always",
    "not fp32",
    "int8",
    "int4",
    "fp8",
    "random weights",
    "warm-up",
    "sampling",
    "beam search",
    "speculation",
    "on a CPU",
]


class Difference(NamedTuple):
    """One thing that engines do each in their own way.

    Attributes:
        about: What, with the figures that it bears on, in a few words.
        ways: What each backend does; a name in braces is a setting in force.
        so: What follows for a comparison, a sentence.
        when: Of which results it holds.
    """

    about: str
    ways: Mapping[str, str]
    so: str
    when: Condition = "always"


DIFFERENCES = (
    Difference(
        "scheduling (TTFT)",
        {
            "pytorch": "one padded batch after another ({batching_strategy}, batch_size "
            "{batch_size}), TTFT from the start of the batch and the same for all its rows",
            "vllm": "requests as they fit, up to {max_num_seqs} side by side (continuous "
            "batching), TTFT from the step in which a request was first scheduled",
            "tensorrt": "requests as they fit, up to {max_batch_size} side by side (in-flight "
            "batching), TTFT from the step in which a request was first scheduled",
        },
        "TTFT does not compare as it stands.",
    ),
    Difference(
        "KV cache (peak memory)",
        {
            "pytorch": "grown with each batch, so that peak memory is what the requests needed",
            "vllm": "reserved while loading, so that on a GPU peak memory is what the engine was "
            "given; prompts of a pass share beginnings they have in common where "
            "enable_prefix_caching is true ({enable_prefix_caching})",
            "tensorrt": "taken whole while loading; memory is what NVML shows over that before; "
            "prompts of a pass share beginnings they have in common where enable_block_reuse is "
            "true ({enable_block_reuse})",
        },
        "Peak memory does not compare as it stands.",
    ),
    Difference(
        "clocks (TTFT, TPOT, ITL)",
        {
            "pytorch": "when a step's logits are there, by a hook in generate: the clock on a CPU, "
            "CUDA events on a GPU",
            "vllm": "when a step's tokens are known on the host, by the engine core",
            "tensorrt": "first and last token, by TensorRT-LLM; ITL is not told",
        },
        "Small differences of times may be those of the clocks.",
    ),
    Difference(
        "kernels (rounding)",
        {
            "pytorch": "attention by {attn_implementation}, the same batches in every pass",
            "vllm": "attention by {attention_backend}, batches that change from step to step",
            "tensorrt": "attention by {attn_backend}, batches that change from step to step",
        },
        "Greedy answers may part after some tokens.",
        "not fp32",
    ),
    Difference(
        "int8",
        {
            "pytorch": "bitsandbytes LLM.int8()",
            "vllm": "vLLM's method {quantization}",
            "tensorrt": "TensorRT-LLM's method {quantization}",
        },
        "One name, other arithmetic.",
        "int8",
    ),
    Difference(
        "int4",
        {
            "pytorch": "bitsandbytes NF4",
            "vllm": "vLLM's method {quantization}",
            "tensorrt": "TensorRT-LLM's method {quantization}",
        },
        "One name, other arithmetic.",
        "int4",
    ),
    Difference(
        "fp8",
        {
            "vllm": "vLLM's method {quantization}",
            "tensorrt": "TensorRT-LLM's method {quantization}",
        },
        "One name, other arithmetic.",
        "fp8",
    ),
    Difference(
        "random weights (energy)",
        {
            "pytorch": "drawn by transformers from random_seed",
            "vllm": "drawn by vLLM from a seed of its own",
            "tensorrt": "drawn by TensorRT-LLM from a seed of its own",
        },
        "Power depends on the values, so a difference of energy may be theirs.",
        "random weights",
    ),
    Difference(
        "sampled tokens",
        {
            "pytorch": "one stream of PyTorch's random numbers a pass, from random_seed",
            "vllm": "one stream of vLLM's random numbers for all requests, from random_seed",
            "tensorrt": "request i by TensorRT-LLM's sampler, from random_seed + i",
        },
        "One seed, other tokens.",
        "sampling",
    ),
    Difference(
        "beam search",
        {
            "pytorch": "inside generate; times are those of search steps; it ends at every end of "
            "sequence of the model",
            "vllm": "each step of a search is a request of its own; no times are told; it ends at "
            "the tokenizer's end of sequence alone",
        },
        "TTFT, TPOT and ITL do not compare, and answers may be of other lengths.",
        "beam search",
    ),
    Difference(
        "speculative decoding",
        {
            "pytorch": "transformers decides how many tokens are drafted, one request at a time",
            "vllm": "{num_speculative_tokens} tokens are drafted a step, many requests at a time",
        },
        "What is accepted differs, and the work with it.",
        "speculation",
    ),
    Difference(
        "warm-up",
        {
            "pytorch": "a warm-up batch is one batch; torch_compile ({torch_compile}) compiles "
            "in it",
            "vllm": "a warm-up batch is a whole pass; compilation and graph capture are part of "
            "loading",
            "tensorrt": "a warm-up batch is a whole pass; autotuning and graph capture are part "
            "of loading",
        },
        "The same warmup.n_warmup is more work where a batch is a pass.",
        "warm-up",
    ),
    Difference(
        "CPU threads",
        {
            "pytorch": "{num_threads}",
            "vllm": "{worker_threads} in the workers, {client_threads} in the calling process",
        },
        "Set pytorch.num_threads to compare equal numbers.",
        "on a CPU",
    ),
)
