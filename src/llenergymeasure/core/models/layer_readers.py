"""Read the layers of a decoder from its ``config.json`` and the traits of its family."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llenergymeasure.config.plain_words import shown
from llenergymeasure.core.models.config_json import ConfigReader
from llenergymeasure.core.models.families import FAMILIES, UNSAID, Traits
from llenergymeasure.core.models.layers import (
    FeedForward,
    Heads,
    LatentAttention,
    Layer,
    Mixer,
    StateSpace,
    delta_net,
    short_convolution,
)

GEMMA4 = ("gemma4", "gemma4_text")
_OLD_NAMES = {"attention": "full_attention", "mamba": "linear_attention"}
_LINEAR = ("linear_attention", "hybrid")  # alone, or beside attention
_WINDOWS = {
    "sliding_attention": "window",
    "local_attention": "window",
    "chunked_attention": "chunk",
}
_BIDIRECTIONAL = "use_bidirectional_attention"


@dataclass(frozen=True, slots=True)
class Experts:
    """The mixture-of-experts part of a model.

    Attributes:
        total: Routed experts a layer has.
        active: Routed experts a token visits.
        intermediate: Width of one routed expert.
        shared_intermediate: Width of the experts every token visits, all together; 0 without.
        shared_gate: Whether a learned gate scales the shared experts.
        layers: Layers that have experts; the others have a dense MLP.
    """

    total: int
    active: int
    intermediate: int
    shared_intermediate: int
    shared_gate: bool
    layers: int


def stack_of(
    reader: ConfigReader, traits: Traits, layers: int
) -> tuple[tuple[tuple[Layer, int], ...], set[str]]:
    """Give the kinds of layers with their counts, and the names of their types."""
    kinds = [_kind(reader, traits, index) for index in range(layers)]
    build = _gemma4_layer if reader.model_type in GEMMA4 else _layer
    built = (build(reader.at(index), traits, kind, index) for index, kind in enumerate(kinds))
    return tuple(Counter(built).items()), set(kinds)


def doubt_of(reader: ConfigReader, kinds: set[str]) -> str | None:
    """Say why what is counted cannot be trusted, or give ``None``."""
    traits = FAMILIES.get(reader.model_type)
    if traits is None:
        return f"model type '{shown(reader.model_type)}' is not known here"
    for field, families in UNSAID.items():
        if reader.model_type in families and not reader.states(field):
            return f"config.json says nothing of {reader.name(field)}"
    known = {"full_attention", *_WINDOWS, *(_LINEAR if traits.linear else ())}
    known |= {"conv"} if reader.find("kernel") else set()
    if strange := sorted(kinds - known):
        return f"layer_types names '{shown(strange[0])}', which is not known here"
    if reader.flag(_BIDIRECTIONAL) and reader.data[_BIDIRECTIONAL] != "vision":
        return f"{_BIDIRECTIONAL} is set: attention is not that of a decoder"
    if isinstance(overrides := reader.data.get("per_layer_config"), Mapping):
        skipped = any("skip" in own for own in overrides.values())
        return "per_layer_config skips parts of layers" if skipped else None
    return None


def experts_of(reader: ConfigReader, traits: Traits, layers: int) -> Experts | None:
    """Read the mixture of experts; ``None`` for a dense model."""
    total = reader.find("experts")
    if total is None or total < 2 or not reader.flag("enable_moe_block", True):
        return None
    width = reader.find("moe_intermediate") or reader.intermediate(reader.need("hidden"))
    shared = reader.find("shared_intermediate")
    visited_by_all = reader.find("shared_experts") or traits.shared_experts
    return Experts(
        total=total,
        active=reader.need("experts_active"),
        intermediate=width,
        shared_intermediate=shared or width * visited_by_all,
        shared_gate=traits.shared_gate,
        layers=sum(map(reader.sparse, range(layers))),
    )


def latent_of(reader: ConfigReader) -> LatentAttention | None:
    """Read latent attention; ``None`` for any other."""
    rank = reader.find("key_value_rank")
    if rank is None:
        return None
    value_dim = reader.find("value_dim") or reader.need("hidden") // reader.need("heads")
    nope_dim, rope_dim = reader.need("nope_dim"), reader.need("rope_dim")
    return LatentAttention(reader.find("query_rank"), rank, nope_dim, rope_dim, value_dim)


def per_layer_embeddings(reader: ConfigReader, layers: int) -> dict[str, int]:
    """Count what Gemma 4 has outside its layers to add an embedding of the token in each."""
    width = reader.number("hidden_size_per_layer_input", 256)
    return {
        "looked_up": reader.number("vocab_size_per_layer_input", 262_144) * layers * width,
        "outer_matrices": reader.need("hidden") * layers * width,
        "outer_vectors": reader.need("hidden") + width,
    }


def norm_width(reader: ConfigReader, traits: Traits) -> int:
    """Count the elements of one normalisation of the residual stream."""
    learned = reader.flag("layer_norm_elementwise_affine", True)
    return reader.need("hidden") * (2 if traits.norm_bias else 1) * learned


def _kind(reader: ConfigReader, traits: Traits, index: int) -> str:
    rule = traits.layer
    unsaid = rule if isinstance(rule, str) else rule(reader, index)
    stated = reader.entry("layer_types", index) or unsaid
    return _OLD_NAMES.get(stated, stated)


def _layer(reader: ConfigReader, traits: Traits, kind: str, index: int) -> Layer:
    return Layer(
        mixers=_mixers(reader, traits, kind),
        feed_forward=FeedForward() if traits.recurrent else _feed_forward(reader, traits, index),
        vectors=_norms(reader, traits) * norm_width(reader, traits),
    )


def _norms(reader: ConfigReader, traits: Traits) -> int:
    """Count the normalisations of a layer; those that work in parallel share one."""
    parallel = reader.model_type == "falcon" and reader.flag("parallel_attn", True)
    parallel = parallel and not reader.flag("new_decoder_architecture")
    parallel |= reader.model_type == "stablelm" and reader.flag("use_parallel_residual")
    return 1 if parallel else traits.norms


def _mixers(reader: ConfigReader, traits: Traits, kind: str) -> tuple[Mixer, ...]:
    """Read what mixes tokens in a layer; a type that is not known is taken to attend to all."""
    if kind == "conv" and reader.find("kernel"):
        bias = reader.bias("convolution_bias", False)
        return (short_convolution(reader.need("hidden"), reader.need("kernel"), bias=bias),)
    if traits.linear is not None and kind in _LINEAR:
        linear = (
            _delta_net(reader) if traits.linear == "delta_net" else _state_space(reader, traits)
        )
        return (linear,) if kind == "linear_attention" else (_attention(reader, traits), linear)
    field = _WINDOWS.get(kind)
    window = None if field is None else reader.find(field)
    attention = _attention(reader, traits, window, chunked=kind == "chunked_attention")
    # GPT-Neo sees a window, and keeps everything.
    return (replace(attention, keeps=None) if kind == "local_attention" else attention,)


def _attention(
    reader: ConfigReader, traits: Traits, window: int | None = None, *, chunked: bool = False
) -> Mixer:
    hidden, heads = reader.need("hidden"), reader.need("heads")
    if (latent := latent_of(reader)) is not None:
        return latent.mixer(hidden, heads)
    dim = reader.find("head_dim") or hidden // heads
    shape = Heads(heads, reader.kv_heads(heads), dim, gated=traits.query_gate)
    queries, keys = shape.queries * dim, shape.keys * dim
    vectors = reader.bias("qkv_bias", traits.qkv_bias) * (queries + 2 * keys)
    if traits.output_bias is not None:
        vectors += reader.bias("output_bias", traits.output_bias) * hidden
    if reader.flag("use_qk_norm", True) and reader.flag("qk_layernorm", True):
        vectors += {"none": 0, "head": 2 * dim, "all": queries + keys}[traits.query_key_norm]
    vectors += traits.inner_norms * queries + traits.sinks * heads
    return shape.mixer(hidden, vectors, window=window, chunked=chunked)


def _delta_net(reader: ConfigReader) -> Mixer:
    return delta_net(
        reader.need("hidden"),
        keys=(reader.need("delta_key_heads"), reader.need("delta_key_dim")),
        values=(reader.need("delta_value_heads"), reader.need("delta_value_dim")),
        kernel=reader.need("kernel"),
    )


def _state_space(reader: ConfigReader, traits: Traits) -> Mixer:
    hidden = reader.need("hidden")
    part = StateSpace(
        width=reader.find("state_width") or reader.need("expand") * hidden,
        state=reader.need("state"),
        kernel=reader.need("kernel"),
        convolution_bias=reader.bias("convolution_bias", True),
        bias=reader.bias("state_bias", False),
        output_bias=reader.bias("state_output_bias", False),
        normed=reader.flag("mamba_rms_norm", traits.state_norms),
    )
    if traits.linear == "mamba2":
        return part.mamba2(hidden, reader.need("state_heads"), reader.need("state_groups"))
    stated = (reader.data.get(name) for name in ("mamba_dt_rank", "time_step_rank"))
    rank = next((one for one in stated if isinstance(one, int)), math.ceil(hidden / 16))
    return part.mamba(hidden, rank)


def _mlp(reader: ConfigReader, traits: Traits, width: int, *, bias: bool = False) -> FeedForward:
    hidden, gated = reader.need("hidden"), reader.gated(traits.gated)
    biases = bias * (width * (2 if gated else 1) + hidden)
    return FeedForward(
        matrices=(3 if gated else 2) * hidden * width,
        vectors=biases + traits.inner_norms * width + traits.activation_parameters,
    )


def _feed_forward(reader: ConfigReader, traits: Traits, index: int) -> FeedForward:
    hidden, experts = reader.need("hidden"), experts_of(reader, traits, 1)
    bias = reader.bias("mlp_bias", traits.mlp_bias)
    if experts is None or not reader.sparse(index):
        width = reader.find("dense_intermediate") or reader.intermediate(hidden)
        return _mlp(reader, traits, width, bias=bias)
    shared = FeedForward()
    one = _mlp(reader, traits, experts.intermediate, bias=traits.expert_bias)
    if experts.shared_intermediate:
        shared = _mlp(reader, traits, experts.shared_intermediate, bias=bias)
    return FeedForward(
        matrices=shared.matrices + hidden * (experts.total + experts.shared_gate),
        vectors=shared.vectors + traits.router_bias * experts.total,
        experts=experts.total,
        active=experts.active,
        every_expert=traits.every_expert,
        expert=one.matrices,
        expert_vectors=one.vectors,
    )


def _gemma4_layer(reader: ConfigReader, traits: Traits, kind: str, index: int) -> Layer:
    """Layers differ in heads, the last ones may borrow keys and values, and embeddings join in."""
    hidden, heads = reader.need("hidden"), reader.need("heads")
    full = kind == "full_attention"
    dim, keys = reader.need("head_dim"), reader.kv_heads(heads)
    same = reader.flag("attention_k_eq_v") and full
    if full and "per_layer_config" not in reader.data:
        dim = reader.number("global_head_dim", 512)
        keys = reader.number("num_global_key_value_heads", keys) if same else keys
    borrowed = index >= reader.need("layers") - reader.number("num_kv_shared_layers", 0)
    shape = Heads(heads, keys, dim, values_are_keys=same, borrowed=borrowed)
    window = None if full else reader.find("window")
    wide = borrowed and reader.flag("use_double_wide_mlp")
    mlp = _mlp(reader, traits, reader.intermediate(hidden) * (2 if wide else 1))
    norms, narrow = traits.norms, reader.number("hidden_size_per_layer_input", 256)
    experts = experts_of(reader, traits, 1)
    if experts is not None:  # beside the MLP, with three norms more and learned scales
        one = _mlp(reader, traits, experts.intermediate)
        mlp = FeedForward(
            matrices=mlp.matrices + hidden * experts.total,
            vectors=mlp.vectors + hidden + experts.total,
            experts=experts.total,
            active=experts.active,
            expert=one.matrices,
        )
        norms += 3
    return Layer(
        mixers=(shape.mixer(hidden, dim if borrowed else 2 * dim, window=window),),
        feed_forward=mlp,
        matrices=2 * hidden * narrow,
        vectors=(norms + (narrow > 0)) * hidden,
        last_token_only=borrowed,
    )
