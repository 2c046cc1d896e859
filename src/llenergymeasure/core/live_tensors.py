"""What is alive at once while transformers generates: bytes of tensors, counted from its code.

transformers runs a model module by module, and a tensor lives as long as a variable of some frame
holds it. What is alive at the worst moment so follows from the source, on every device alike
(transformers 5: ``models/llama/modeling_llama.py``, ``cache_utils.py``, ``generation/utils.py``,
``integrations/sdpa_attention.py``). With H the width of the residual stream, A that of all query
heads, K of all key heads, and F of the MLP, a token of a pass has at once, in elements:

    everywhere      2H, the embeddings and the layer's input, and cosines and sines of positions
    normalisation   + H, the residual, and two copies in fp32
    rotation        + H, the normalised input, the queries, keys and values, and three more queries
    attention       + H, queries and result, keys and values repeated for all query heads where the
                    kernel is not told of groups, and the result's projection
    MLP             + 2H, the residual and its normalised copy, and three of F (two without a gate)

To this come the mask, (rows, queries, keys), and of eager attention the scores, (rows, heads,
queries, keys), in several copies: scaled and masked, then in fp32 for the softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

from llenergymeasure.config.models import DecoderConfig
from llenergymeasure.core.models.architecture import ModelArchitecture

_FP32 = 4


@dataclass(frozen=True, slots=True)
class Generation:
    """One call of ``generate``.

    Attributes:
        rows: Sequences computed at once, beams included.
        prompt_tokens: Of each, padding included.
        context_tokens: Of each at the end, with the answer.
        value_bytes: Bytes of an element that is not raised to fp32.
        eager: Whether attention is computed operation by operation.
        padded: Whether prompts differ in length, which takes a mask.
        decoder: How tokens are chosen.
    """

    rows: int
    prompt_tokens: int
    context_tokens: int
    value_bytes: int
    eager: bool
    padded: bool
    decoder: DecoderConfig


def peak_bytes(shape: ModelArchitecture, call: Generation) -> float:
    """Count the bytes alive at the worst moment of prefill and answer, weights left out."""
    prompt, context = call.prompt_tokens, call.context_tokens
    kv_bytes = call.rows * shape.kv_bytes_per_token(call.value_bytes)
    before, beside = _scores_bytes(shape, call)
    prefill = prompt * kv_bytes + _layer_bytes(shape, call, prompt, prompt)
    # The cache grows by concatenation: the old keys of a layer stand beside the new ones.
    growing = context * kv_bytes / shape.layers / 2
    decode = max(before + growing + _layer_bytes(shape, call, 1, context), beside)
    return max(prefill, context * kv_bytes + decode)


def _layer_bytes(shape: ModelArchitecture, call: Generation, queries: int, keys: int) -> float:
    """Count what is alive at the worst moment of a layer, its part of the cache left out."""
    tokens, pairs = call.rows * queries, call.rows * queries * keys
    hidden, width = shape.hidden, shape.attention_width
    key_width = width if shape.latent else shape.kv_heads * shape.head_dim
    everywhere = 2 * hidden + 2 * shape.head_dim
    rotation = hidden + 4 * width + 2 * key_width
    mlp = 2 * hidden + _mlp_width(shape)
    attention = hidden + 2 * width + hidden
    value, repeated, scores, kept = call.value_bytes, 0.0, 0.0, 0.0
    masked = call.eager or (call.padded and queries > 1)
    if masked and key_width < width:
        repeated = 2 * call.rows * keys * width * value
    if call.eager:
        scores = pairs * shape.heads * (2 * _FP32 if value == _FP32 else value + 2 * _FP32)
        kept = pairs * shape.heads * value  # attention returns its weights
    # In bool, and for the kernel in the type of the values; eager attention has the latter alone.
    mask = pairs * (value if call.eager else 1 + value) if masked else 0
    moments = (
        tokens * (hidden * value + 2 * hidden * _FP32),
        tokens * rotation * value,
        tokens * attention * value + repeated + scores,
        tokens * mlp * value + kept,
    )
    return tokens * everywhere * value + mask + max(moments)


def _mlp_width(shape: ModelArchitecture) -> int:
    """Count the elements of a token that an MLP has alive at once, of a dense or a sparse layer."""
    dense, moe = shape.mlp_matrices * shape.intermediate, shape.experts
    if moe is None:
        return dense
    # Each token is copied for each expert that it visits, and so is the result.
    routed = moe.active * (2 * shape.hidden + shape.mlp_matrices * moe.intermediate)
    sparse = routed + shape.mlp_matrices * moe.shared_intermediate
    return max(sparse, dense if moe.layers < shape.layers else 0)


def _scores_bytes(shape: ModelArchitecture, call: Generation) -> tuple[float, float]:
    """Count logits and what is made of them: those kept over a pass, and the most at once.

    Logits are raised to fp32; of the step before, they are still there when the next ones are.
    """
    decoder, tables = call.decoder, 1
    if decoder.decoding_strategy != "greedy":
        tables += 1  # probabilities, of their logarithms
    filtered = decoder.top_k is not None or decoder.temperature is not None
    tables += filtered or decoder.repetition_penalty is not None
    logits = call.rows * shape.vocabulary
    sorting = 6 * _FP32 if decoder.top_p is not None else 0  # values, indices, softmax, sum
    before = logits * tables * _FP32
    return before, before + logits * (call.value_bytes + _FP32 + sorting)
