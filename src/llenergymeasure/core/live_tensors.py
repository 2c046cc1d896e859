"""What is alive at once while transformers generates: blocks of memory, counted from its code.

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

On a GPU that is what is taken. On a CPU the heap of the C library has as much again in holes, for
blocks below 32 MiB, which it does not map one by one: PyTorch asks for aligned memory, and the hole
that a tensor left is too small for an aligned one of the same size (glibc, ``_int_memalign``), so
that a layer's tensors stand beside the holes of the last one's. How far holes join and are used
again changes from run to run; between none and all was seen, and all is what is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from llenergymeasure.config.models import DecoderConfig
from llenergymeasure.core.models.architecture import ModelArchitecture

MAPPED_BYTES = 32 << 20
"""Blocks of that size and more are always given back at once (mallopt(3), M_MMAP_THRESHOLD)."""

_FP32 = 4


class Blocks(NamedTuple):
    """Blocks of one size that are alive at the same time.

    Attributes:
        size_bytes: Of each.
        number: How many.
    """

    size_bytes: float
    number: float

    @property
    def total_bytes(self) -> float:
        """Bytes of all."""
        return self.size_bytes * self.number


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
        in_heap: Whether memory is the C library's, as on a CPU.
    """

    rows: int
    prompt_tokens: int
    context_tokens: int
    value_bytes: int
    eager: bool
    padded: bool
    decoder: DecoderConfig
    in_heap: bool = False


def peak_bytes(shape: ModelArchitecture, call: Generation) -> float:
    """Count the bytes taken at the worst moment of prefill and answer, weights left out."""
    prompt, context = call.prompt_tokens, call.context_tokens
    pieces = 2 * shape.layers  # keys and values of each
    started, whole = (
        Blocks(call.rows * shape.kv_bytes(tokens, call.value_bytes) / pieces, pieces)
        for tokens in (prompt, context)
    )
    table = call.rows * shape.vocabulary
    before = Blocks(table * _FP32, _tables(call.decoder))
    # Logits, raised to fp32; those of the step before are still there. Nuclei are found by sorting:
    # values, 8 bytes of indices, a softmax and its sum.
    after = [before, Blocks(table * call.value_bytes, 1), Blocks(table * _FP32, 1)]
    after += [Blocks(table * _FP32, 5)] if call.decoder.top_p is not None else []
    # The cache grows by concatenation: the old keys of a layer stand beside the new ones.
    growing = [before, whole._replace(number=1)]
    prefill = [started, *_layer(shape, call, prompt, prompt)]
    decode = max([*growing, *_layer(shape, call, 1, context)], after, key=_total)
    holes = [one for one in prefill if call.in_heap and one.size_bytes < MAPPED_BYTES]
    return max(_total(prefill), _total([whole, *decode])) + _total(holes)


def _total(blocks: Iterable[Blocks]) -> float:
    return sum(one.total_bytes for one in blocks)


def _tables(decoder: DecoderConfig) -> int:
    """Count the tables of the vocabulary in fp32 that a step leaves for the next."""
    changed = decoder.temperature, decoder.top_k, decoder.top_p, decoder.repetition_penalty
    processed = any(setting is not None for setting in changed)
    return 1 + processed + (decoder.decoding_strategy != "greedy")  # probabilities, or their logs


def _layer(shape: ModelArchitecture, call: Generation, queries: int, keys: int) -> list[Blocks]:
    """List what is alive at the worst moment of a layer, its part of the cache left out."""
    tokens, pairs, value = call.rows * queries, call.rows * queries * keys, call.value_bytes
    residual = tokens * shape.hidden
    heads, key_heads = tokens * shape.attention_width, tokens * shape.kv_heads * shape.head_dim
    masked = call.eager or (call.padded and queries > 1)
    everywhere = [Blocks(residual * value, 2), Blocks(tokens * shape.head_dim * value, 2)]
    if masked:
        everywhere.append(Blocks(pairs * (value if call.eager else 1), 1))
    attention = [Blocks(residual * value, 2), Blocks(heads * value, 2)]
    if (masked and shape.kv_heads < shape.heads) or shape.latent is not None:  # repeated, expanded
        attention.append(Blocks(call.rows * keys * shape.attention_width * value, 2))
    scores, weights = pairs * shape.heads, list[Blocks]()
    if call.eager:
        attention.append(Blocks(scores * _FP32, 2))
        weights.append(Blocks(scores * value, 1))  # attention returns them
        attention += weights if value < _FP32 else []
    elif masked:
        attention.append(Blocks(pairs * value, 1))  # the mask, as the kernel wants it
    moments = (
        [Blocks(residual * value, 1), Blocks(residual * _FP32, 2)],
        [Blocks(residual * value, 1), Blocks(heads * value, 4), Blocks(key_heads * value, 2)],
        attention,
        [*weights, Blocks(residual * value, 2), *_mlp(shape, tokens * value)],
    )
    return [*everywhere, *max(moments, key=_total)]


def _mlp(shape: ModelArchitecture, token_bytes: float) -> Iterator[Blocks]:
    """Yield the inner blocks of an MLP, of a sparse layer where there is one."""
    moe = shape.experts
    if moe is None:
        yield Blocks(token_bytes * shape.intermediate, shape.mlp_matrices)
        return
    # Each token is copied for each expert that it visits, and so is the result.
    yield Blocks(token_bytes * moe.active * shape.hidden, 2)
    yield Blocks(token_bytes * moe.active * moe.intermediate, shape.mlp_matrices)
    if moe.shared_intermediate:
        yield Blocks(token_bytes * moe.shared_intermediate, shape.mlp_matrices)
