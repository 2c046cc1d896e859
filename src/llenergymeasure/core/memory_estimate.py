"""How much memory an experiment will need, from its configuration and the shape of its model.

An estimate to plan with, made before anything is loaded. It leaves out the constants of quantised
formats (3 to 12 % of their weights), draft models and adapters, and on a GPU what CUDA and the
engine take for themselves: context, workspaces, fragmentation, caches allocated ahead of need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.names import WEIGHT_BITS, Precision, compute_bytes
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core import live_tensors
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.units import MIB

ASSUMED_INPUT_TOKENS = 1024  # where prompts are never cut; mixed-1k ends at about this length
_LOGIT_BYTES = 4  # logits are raised to fp32 before the next token is chosen
# Eager attention in 16 bits on a CPU: oneDNN compiles both its products anew for every length of
# the context, 1.2 MiB by measurement, and keeps 1,024 kernels (ONEDNN_PRIMITIVE_CACHE_CAPACITY).
_COMPILED_MB = 1.2
_COMPILED_LENGTHS = 512


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory one copy of the model needs, over all devices that share it.

    Attributes:
        weights_mb: Weights, MiB.
        kv_cache_mb: Keys and values of the requests served at once, at full length, MiB.
        activations_mb: What is taken beside that at the worst moment, MiB; logits are in it, and on
            a CPU the holes of the heap.
        engine_mb: What the engine itself takes of RAM, MiB; 0 where that is not known.
        first_use_mb: What of that comes once it computes, MiB.
        shards: Devices the model is spread over.
        rows: Rows computed at once, beams included.
        input_tokens: Tokens of a prompt, as assumed.
        context_tokens: Tokens of prompt and answer assumed for each.
    """

    weights_mb: float
    kv_cache_mb: float
    activations_mb: float
    engine_mb: float
    first_use_mb: float
    shards: int
    rows: int
    input_tokens: int
    context_tokens: int

    @property
    def growth_mb(self) -> float:
        """What comes to a model that is loaded, MiB."""
        return self.kv_cache_mb + self.activations_mb + self.first_use_mb

    @property
    def total_mb(self) -> float:
        """Sum of the items, MiB."""
        return self.weights_mb + self.kv_cache_mb + self.activations_mb + self.engine_mb

    @property
    def per_device_mb(self) -> float:
        """Share of each device, MiB."""
        return self.total_mb / self.shards


def estimate_memory(
    config: ExperimentConfig, architecture: ModelArchitecture, *, on_cpu: bool = False
) -> MemoryEstimate:
    """Estimate the memory of one copy of the model; several processes each need as much.

    Args:
        config: The experiment.
        architecture: Shape of its model.
        on_cpu: Whether it runs on the CPU, where what the engine takes counts as well.
    """
    facts, section, rows = backend_entry(config.backend), config.section, rows_at_once(config)
    longest = architecture.context_limit or math.inf
    inputs = int(min(assumed_input_tokens(config), longest))
    context = int(min(inputs + config.max_new_tokens, longest))
    quantised = str(getattr(section, "kv_cache_dtype", None) or "").startswith(("fp8", "int8"))
    value_bytes = compute_bytes(config.precision)
    kv_bytes = rows * architecture.kv_bytes(context, 1 if quantised else value_bytes)
    eager = getattr(section, "attn_implementation", None) == "eager"
    first_use_mb = facts.first_use_mb.get(config.precision, 0.0) if on_cpu else 0.0
    if first_use_mb and eager and value_bytes == 2:
        first_use_mb += _COMPILED_MB * min(context - inputs, _COMPILED_LENGTHS)
    if facts.runs_transformers:
        call = live_tensors.Generation(
            rows=rows,
            prompt_tokens=inputs,
            context_tokens=context,
            value_bytes=value_bytes,
            eager=eager,
            padded=rows > 1 and not isinstance(config.dataset, SyntheticDataset),
            decoder=config.decoder,
            in_heap=on_cpu,
        )
        beside_bytes = live_tensors.peak_bytes(architecture, call) - kv_bytes
    else:
        passing = min(rows * inputs, facts.pass_tokens or rows * inputs)
        beside_bytes = activation_bytes(architecture, config.precision, passing, rows)
    return MemoryEstimate(
        weights_mb=weight_bytes(architecture, config.precision) / MIB,
        kv_cache_mb=kv_bytes / MIB,
        activations_mb=beside_bytes / MIB,
        engine_mb=facts.resident_mb + first_use_mb if on_cpu else 0.0,
        first_use_mb=first_use_mb,
        shards=facts.shards(section),
        rows=rows,
        input_tokens=inputs,
        context_tokens=context,
    )


def assumed_input_tokens(config: ExperimentConfig) -> int:
    """Say how long a prompt is taken to be by every estimate, of memory as of time.

    The exact length of synthetic ones; of others the longest that ``max_input_tokens`` lets
    through, or :data:`ASSUMED_INPUT_TOKENS` where that is null.
    """
    if isinstance(config.dataset, SyntheticDataset):
        return config.dataset.synthetic.input_len
    return config.max_input_tokens or ASSUMED_INPUT_TOKENS


def weight_bytes(architecture: ModelArchitecture, precision: Precision) -> float:
    """Count the bytes of all weights.

    Quantisation covers the matrices inside the layers; embeddings, lm_head, biases and norms stay
    at 16 bits (https://huggingface.co/docs/transformers/quantization/bitsandbytes).
    """
    linear = architecture.linear_parameters()
    rest = architecture.parameters - linear
    return linear * WEIGHT_BITS[precision] / 8 + rest * compute_bytes(precision)


def activation_bytes(
    architecture: ModelArchitecture, precision: Precision, tokens: int, rows: int
) -> float:
    """Count the bytes of buffers alive at the peak of a prefill, of an engine with fused kernels.

    The residual stream and its normalised copy, and beside them the larger of attention (queries,
    keys, values and the result) and MLP (its inner buffers and the result); then one row of logits
    for each row of the batch.
    """
    attention = 2 * architecture.attention_width + 2 * architecture.kv_heads * architecture.head_dim
    width, moe = architecture.intermediate, architecture.experts
    if moe is not None:
        dense = width if moe.layers < architecture.layers else 0
        width = max(dense, moe.active * moe.intermediate + moe.shared_intermediate)
    mlp = architecture.mlp_matrices * width + architecture.hidden
    values = 2 * architecture.hidden + max(attention, mlp)
    logits = rows * architecture.vocabulary * _LOGIT_BYTES
    return tokens * values * compute_bytes(precision) + logits


def rows_at_once(config: ExperimentConfig) -> int:
    """Count the rows computed at once: the batch, no more than there are prompts, times beams."""
    facts = backend_entry(config.backend)
    batch = getattr(config.section, facts.batch_field, None) or facts.default_batch
    return min(int(batch), config.n or MOST_PROMPTS) * (config.decoder.num_beams or 1)
