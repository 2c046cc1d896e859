"""How much memory an experiment will need, from its configuration and the shape of its model.

An estimate to plan with, made before anything is loaded. It leaves out what the engine itself takes
(CUDA context, workspaces, fragmentation, caches allocated ahead of need), the constants of
quantised formats (3 to 12 % of their weights), draft models and adapters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import WEIGHT_BITS, Precision, compute_bytes
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.units import MIB

ASSUMED_INPUT_TOKENS = 1024  # where prompts are never cut; mixed-1k ends at about this length
_LOGIT_BYTES = 4  # logits are raised to fp32 before the next token is chosen


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Memory one copy of the model needs, over all devices that share it.

    Attributes:
        weights_mb: Weights, MiB.
        kv_cache_mb: Keys and values of the requests served at once, at full length, MiB.
        activations_mb: Buffers at the peak of prefill, and the logits, MiB.
        shards: Devices the model is spread over.
        rows: Rows computed at once, beams included.
        input_tokens: Tokens of a prompt, as assumed.
        context_tokens: Tokens of prompt and answer assumed for each.
    """

    weights_mb: float
    kv_cache_mb: float
    activations_mb: float
    shards: int
    rows: int
    input_tokens: int
    context_tokens: int

    @property
    def total_mb(self) -> float:
        """Sum of the items, MiB."""
        return self.weights_mb + self.kv_cache_mb + self.activations_mb

    @property
    def per_device_mb(self) -> float:
        """Share of each device, MiB."""
        return self.total_mb / self.shards


def estimate_memory(config: ExperimentConfig, architecture: ModelArchitecture) -> MemoryEstimate:
    """Estimate the memory of one copy of the model; several processes each need as much.

    Args:
        config: The experiment.
        architecture: Shape of its model.
    """
    facts, section, rows = backend_entry(config.backend), config.section, rows_at_once(config)
    longest = architecture.context_limit or math.inf
    inputs = int(min(assumed_input_tokens(config), longest))
    context = int(min(inputs + config.max_new_tokens, longest))
    passing = min(rows * inputs, facts.pass_tokens or rows * inputs)
    quantised = str(getattr(section, "kv_cache_dtype", None) or "").startswith(("fp8", "int8"))
    kv_bytes = architecture.kv_bytes_per_token(1 if quantised else compute_bytes(config.precision))
    return MemoryEstimate(
        weights_mb=weight_bytes(architecture, config.precision) / MIB,
        kv_cache_mb=kv_bytes * rows * context / MIB,
        activations_mb=activation_bytes(architecture, config.precision, passing, rows) / MIB,
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
    if not isinstance(config.dataset, str):
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
    """Count the bytes of buffers alive at the peak of a prefill.

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
    return min(int(batch), config.n) * (config.decoder.num_beams or 1)
