"""What a layer of a decoder consists of, and what it costs: weights, operations, memory.

A layer lets the tokens of a sequence see each other (its mixers: attention, a state-space model, a
convolution) and works on each token by itself (its feed-forward part: an MLP, or experts). Layers
that cost the same are equal, so a model is a few kinds of layers, each with a count.

Operations are those of products of matrices. Of recurrences, each element of the state counts 2
operations for each time it is written or read with a product: 4 in a state-space model, 6 with the
delta rule, which also reads what it corrects. A convolution counts 2 for each weight and token.
What is done element by element (norms, activations, rotary embeddings, softmax, decay) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Counts = NDArray[np.float64]  # exact up to 2^53, and sums of squares do not overflow


@dataclass(frozen=True, slots=True)
class Mixer:
    """What lets the tokens of a sequence see each other.

    Attributes:
        matrices: Weights that every token is multiplied with.
        vectors: Other elements: biases, norms, convolutions, rates of decay.
        pair_width: Elements of keys and of values over all query heads: what each pair of query and
            key is multiplied with. 0 without attention.
        sees: Most tokens a query sees, itself included; ``None`` for all before it.
        chunked: Whether it sees those since its chunk of ``sees`` tokens began, rather than the
            last ones.
        cached: Values of keys and values for a token of context.
        keeps: Most tokens they are kept for; ``None`` for all.
        borrowed: Whether they are those of an earlier layer, which keeps them.
        expand: Weights that transformers takes every kept token through again in each pass.
        state: Values kept for a sequence, however long it is.
        scan: Operations a token takes beside matrices and pairs: recurrences and convolutions.
    """

    matrices: int
    vectors: int = 0
    pair_width: int = 0
    sees: int | None = None
    chunked: bool = False
    cached: int = 0
    keeps: int | None = None
    borrowed: bool = False
    expand: int = 0
    state: int = 0
    scan: int = 0

    def pairs(self, lengths: Counts) -> Counts:
        """Count pairs of query and key in causal sequences: what each token sees, summed.

        Args:
            lengths: Tokens of each sequence, shape (sequences,).
        """
        if self.sees is None or not self.chunked:
            return _sliding(lengths, self.sees)
        whole, rest = lengths // self.sees, lengths % self.sees
        return whole * (self.sees * (self.sees + 1) / 2) + rest * (rest + 1) / 2

    def cache_reads(self, lengths: Counts) -> Counts:
        """Count the tokens whose keys and values are read, for each token in turn, summed."""
        return _sliding(lengths, self.keeps)

    def kept(self, context_tokens: float) -> float:
        """Count the values a sequence keeps at a length of ``context_tokens``."""
        tokens = context_tokens if self.keeps is None else min(context_tokens, self.keeps)
        return self.state + (0 if self.borrowed else self.cached * tokens)


def _sliding(lengths: Counts, window: int | None) -> Counts:
    """Sum min(1, window) + min(2, window) + ... + min(length, window), in closed form."""
    if window is None:
        return lengths * (lengths + 1) / 2
    growing: Counts = lengths.clip(max=window)
    return growing * (growing + 1) / 2 + (lengths - growing) * window


@dataclass(frozen=True, slots=True)
class FeedForward:
    """What works on each token by itself.

    Attributes:
        matrices: Weights that every token is multiplied with: MLP, router, shared experts.
        vectors: Other elements of those: biases, norms.
        experts: Routed experts.
        active: Routed experts a token visits.
        every_expert: Whether transformers computes every expert for every token all the same.
        expert: Weights of one routed expert.
        expert_vectors: Other elements of one.
    """

    matrices: int = 0
    vectors: int = 0
    experts: int = 0
    active: int = 0
    every_expert: bool = False
    expert: int = 0
    expert_vectors: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, or several that cost the same.

    Attributes:
        mixers: What lets tokens see each other; side by side where there are several.
        feed_forward: What works on each token.
        matrices: Weights beside those that every token is multiplied with.
        vectors: Elements of its norms.
        last_token_only: Whether a prefill needs it for its last token alone, since it keeps no keys
            and values of its own.
    """

    mixers: tuple[Mixer, ...]
    feed_forward: FeedForward = FeedForward()
    matrices: int = 0
    vectors: int = 0
    last_token_only: bool = False

    @property
    def unvisited(self) -> int:
        """Count the elements of the experts that a token does not visit."""
        work = self.feed_forward
        return (work.experts - work.active) * (work.expert + work.expert_vectors)

    def kept(self, context_tokens: float) -> float:
        """Count the values a sequence keeps at a length of ``context_tokens``."""
        return sum(one.kept(context_tokens) for one in self.mixers)

    def linear(self, experts: float | None = None) -> float:
        """Count the weights of its matrices, with that many routed experts; all by default."""
        work = self.feed_forward
        routed = work.expert * (work.experts if experts is None else min(experts, work.experts))
        return self.matrices + sum(one.matrices for one in self.mixers) + work.matrices + routed

    def computed(self, in_transformers: bool = False) -> float:
        """Count the weights a token is multiplied with, by every expert where that is so."""
        work = self.feed_forward
        every = in_transformers and work.every_expert
        return self.linear(work.experts if every else work.active)

    def others(self) -> int:
        """Count its elements that are in no matrix."""
        work = self.feed_forward
        routed = work.expert_vectors * work.experts
        return self.vectors + sum(one.vectors for one in self.mixers) + work.vectors + routed


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Attention over compressed keys and values (DeepSeek-V2, https://arxiv.org/abs/2405.04434).

    Attributes:
        query_rank: Width of the compressed query, or ``None`` where it is not compressed.
        key_value_rank: Width of the compressed keys and values.
        nope_dim: Width of a head's key without positions.
        rope_dim: Width of the rotary key that all heads share.
        value_dim: Width of a head's value.
    """

    query_rank: int | None
    key_value_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int

    def mixer(self, hidden: int, heads: int) -> Mixer:
        """Give what it costs; the compressed form is cached, an engine that expands it needs more.

        Args:
            hidden: Width of the residual stream.
            heads: Heads of queries, keys and values.
        """
        query_width = heads * (self.nope_dim + self.rope_dim)
        query = hidden * query_width
        if self.query_rank is not None:
            query = self.query_rank * (hidden + query_width)
        compress = hidden * (self.key_value_rank + self.rope_dim)
        expand = self.key_value_rank * heads * (self.nope_dim + self.value_dim)
        return Mixer(
            matrices=query + compress + expand + heads * self.value_dim * hidden,
            vectors=(self.query_rank or 0) + self.key_value_rank,
            pair_width=query_width + heads * self.value_dim,
            cached=self.key_value_rank + self.rope_dim,
            expand=expand,
        )


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of an attention.

    Attributes:
        queries: Query heads.
        keys: Heads of keys and values; fewer than ``queries`` where queries share them.
        dim: Width of a head.
        gated: Whether a gate, as wide as the queries, scales the result.
        values_are_keys: Whether one projection gives keys and values.
        borrowed: Whether keys and values are those of an earlier layer.
    """

    queries: int
    keys: int
    dim: int
    gated: bool = False
    values_are_keys: bool = False
    borrowed: bool = False

    def mixer(
        self, hidden: int, vectors: int = 0, *, window: int | None = None, chunked: bool = False
    ) -> Mixer:
        """Give what it costs.

        Args:
            hidden: Width of the residual stream.
            vectors: Elements of biases and norms.
            window: Most tokens a query sees, and keys and values are kept for.
            chunked: Whether windows do not slide.
        """
        projected = 0 if self.borrowed else self.keys * (1 if self.values_are_keys else 2)
        return Mixer(
            matrices=hidden * self.dim * (self.queries * (3 if self.gated else 2) + projected),
            vectors=vectors,
            pair_width=2 * self.queries * self.dim,
            sees=window,
            chunked=chunked,
            cached=2 * self.keys * self.dim,
            keeps=window,
            borrowed=self.borrowed,
        )


def delta_net(hidden: int, keys: tuple[int, int], values: tuple[int, int], kernel: int) -> Mixer:
    """Give what gated linear attention with the delta rule costs (https://arxiv.org/abs/2412.06464).

    Args:
        hidden: Width of the residual stream.
        keys: Heads of queries and keys, and their width.
        values: Heads of values, and their width.
        kernel: Tokens the convolution before it reaches over.
    """
    key_width, value_width = keys[0] * keys[1], values[0] * values[1]
    convolved = 2 * key_width + value_width
    state = values[0] * keys[1] * values[1]
    return Mixer(
        # queries, keys, values, the gate, two rates for each head of values; and the way back
        matrices=hidden * (convolved + value_width + 2 * values[0]) + value_width * hidden,
        vectors=convolved * kernel + 2 * values[0] + values[1],
        state=state + convolved * (kernel - 1),
        scan=6 * state + 2 * convolved * kernel,
    )


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A selective state-space model, Mamba or Mamba 2.

    Attributes:
        width: Channels.
        state: Values of state a channel.
        kernel: Tokens the convolution before it reaches over.
        convolution_bias: Whether that has a bias.
        bias: Whether the projection in has one.
        output_bias: Whether the projection out has one.
        normed: Whether the result (Mamba 2), or rates and state's inputs (Mamba), are normalised.
    """

    width: int
    state: int
    kernel: int
    convolution_bias: bool = True
    bias: bool = False
    output_bias: bool = False
    normed: bool = False

    def mamba(self, hidden: int, rank: int) -> Mixer:
        """Give what Mamba costs (https://arxiv.org/abs/2312.00752).

        Args:
            hidden: Width of the residual stream.
            rank: Width of the compressed rates of decay.
        """
        inputs = rank + 2 * self.state
        own = self.width * (self.state + 2)  # decay, the bias of its rates, and the skip
        return Mixer(
            matrices=self.width * (3 * hidden + inputs + rank),
            vectors=self._vectors(hidden, self.width, 2 * self.width) + own + self.normed * inputs,
            state=self.width * self.state + self.width * (self.kernel - 1),
            scan=4 * self.width * self.state + 2 * self.width * self.kernel,
        )

    def mamba2(self, hidden: int, heads: int, groups: int) -> Mixer:
        """Give what Mamba 2 costs (https://arxiv.org/abs/2405.21060).

        Args:
            hidden: Width of the residual stream.
            heads: Heads, each with one rate of decay.
            groups: Groups of heads that share the state's inputs and outputs.
        """
        convolved = self.width + 2 * groups * self.state
        projected = self.width + convolved + heads
        return Mixer(
            matrices=hidden * (projected + self.width),
            vectors=self._vectors(hidden, convolved, projected)
            + 3 * heads
            + self.normed * self.width,
            state=self.width * self.state + convolved * (self.kernel - 1),
            scan=4 * self.width * self.state + 2 * convolved * self.kernel,
        )

    def _vectors(self, hidden: int, convolved: int, projected: int) -> int:
        biases = self.bias * projected + self.output_bias * hidden
        return convolved * (self.kernel + self.convolution_bias) + biases


def short_convolution(hidden: int, kernel: int, *, bias: bool) -> Mixer:
    """Give what a gated short convolution costs (LFM2, https://arxiv.org/abs/2511.23404).

    Args:
        hidden: Width of the residual stream, and channels.
        kernel: Tokens it reaches over.
        bias: Whether convolution and projections have biases.
    """
    return Mixer(
        matrices=4 * hidden * hidden,
        vectors=hidden * kernel + bias * 5 * hidden,
        state=hidden * (kernel - 1),
        scan=2 * hidden * kernel,
    )
