"""The shape of a decoder-only transformer, read from a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from llenergymeasure.core.models.config_json import FAMILIES, UNKNOWN, ConfigReader, Traits
from llenergymeasure.exceptions import ConfigError


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

    def parameters(self, hidden: int, heads: int) -> int:
        """Count the weights of one layer's attention matrices."""
        query_width = heads * (self.nope_dim + self.rope_dim)
        query = hidden * query_width
        if self.query_rank is not None:
            query = self.query_rank * (hidden + query_width)
        compress = hidden * (self.key_value_rank + self.rope_dim)
        expand = self.key_value_rank * heads * (self.nope_dim + self.value_dim)
        return query + compress + expand + heads * self.value_dim * hidden


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """Shape of a model, and the counts that follow from it.

    Sliding windows are not modelled: every layer is taken to attend to the whole context.

    Attributes:
        model_type: As the configuration names it.
        layers: Decoder layers.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; fewer than ``heads`` with grouped queries.
        head_dim: Width of a head; with latent attention the mean of key and value.
        intermediate: Width of a dense MLP.
        gated_mlp: Whether the MLP has a gate beside its up projection.
        vocabulary: Rows of the embedding table.
        tied_embeddings: Whether the output embeddings are the input embeddings.
        context_limit: Most positions, or ``None`` where the configuration names none.
        position_rows: Rows of a learned table of positions; 0 without one.
        vector_parameters: Elements of all biases and normalisations.
        experts: The mixture of experts, or ``None`` for a dense model.
        latent: Latent attention, or ``None``.
        doubt: Why what follows from the shape cannot be trusted, or ``None``.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated_mlp: bool
    vocabulary: int
    tied_embeddings: bool
    context_limit: int | None
    position_rows: int = 0
    vector_parameters: int = 0
    experts: Experts | None = None
    latent: LatentAttention | None = None
    doubt: str | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a ``config.json``; a multimodal one is read for its language model.

        A model type that is not known here is read by the common names of its fields and taken to
        be built like Llama, so its small terms (biases, norms) may be off.

        Raises:
            ConfigError: A key that is needed is missing or no positive integer; the message names
                it. Models that are not decoder-only are refused.
        """
        reader = ConfigReader.of(config)
        if reader.flag("is_encoder_decoder"):
            raise ConfigError(
                "config.json describes an encoder-decoder model; only decoder-only models "
                "are covered",
                where="is_encoder_decoder",
            )
        return cls(**_shape(reader, FAMILIES.get(reader.model_type, UNKNOWN)))

    @property
    def attention_width(self) -> int:
        """Elements of all query heads of one token."""
        return self.heads * self.head_dim

    @property
    def mlp_matrices(self) -> int:
        """Matrices of an MLP: up, down, and the gate where there is one."""
        return 3 if self.gated_mlp else 2

    @property
    def embedding_parameters(self) -> int:
        """Weights of the input embeddings, learned positions included."""
        return (self.vocabulary + self.position_rows) * self.hidden

    @property
    def lm_head_parameters(self) -> int:
        """Weights of the output embeddings, whether or not they are the input embeddings."""
        return self.hidden * self.vocabulary

    @property
    def attention_parameters(self) -> int:
        """Weights of one layer's attention matrices."""
        if self.latent is not None:
            return self.latent.parameters(self.hidden, self.heads)
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)

    def linear_parameters(self, experts_a_layer: float | None = None) -> float:
        """Weights of the matrices inside the layers: attention, MLPs, routers.

        Args:
            experts_a_layer: Routed experts to count in each layer that has them; all by default.
        """
        mlp = self.mlp_matrices * self.hidden
        attention = self.layers * self.attention_parameters
        if self.experts is None:
            return attention + self.layers * mlp * self.intermediate
        moe = self.experts
        routed = (moe.total if experts_a_layer is None else experts_a_layer) * moe.intermediate
        router = self.hidden * (moe.total + moe.shared_gate)
        sparse = mlp * (routed + moe.shared_intermediate) + router
        dense = (self.layers - moe.layers) * mlp * self.intermediate
        return attention + dense + moe.layers * sparse

    @property
    def linear_parameters_active(self) -> int:
        """Weights a token is multiplied with inside the layers; no embeddings, no lm_head."""
        return int(self.linear_parameters(self.experts.active if self.experts else None))

    @property
    def parameters(self) -> int:
        """All parameters, embeddings included; a tied matrix counts once."""
        return self._with_the_rest(int(self.linear_parameters()))

    @property
    def parameters_active(self) -> int:
        """Parameters that take part in one token: all but the experts it does not visit."""
        return self._with_the_rest(self.linear_parameters_active)

    def kv_bytes_per_token(self, bytes_per_value: float = 2) -> float:
        """Bytes of KV cache a token needs over all layers.

        Latent attention caches the compressed form; an engine that expands it needs more.
        """
        if self.latent is not None:
            return (
                self.layers * (self.latent.key_value_rank + self.latent.rope_dim) * bytes_per_value
            )
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value

    def _with_the_rest(self, linear: int) -> int:
        head = 0 if self.tied_embeddings else self.lm_head_parameters
        return self.embedding_parameters + head + linear + self.vector_parameters


def _shape(reader: ConfigReader, traits: Traits) -> dict[str, Any]:
    hidden, heads = reader.need("hidden"), reader.need("heads")
    rank, latent, head_dim = reader.find("key_value_rank"), None, reader.find("head_dim")
    if rank is not None:
        nope_dim, rope_dim, value_dim = map(reader.need, ("nope_dim", "rope_dim", "value_dim"))
        query_rank = reader.find("query_rank")
        latent = LatentAttention(query_rank, rank, nope_dim, rope_dim, value_dim)
        head_dim = (nope_dim + rope_dim + value_dim) // 2
    shape: dict[str, Any] = {
        "model_type": reader.model_type,
        "layers": reader.need("layers"),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": reader.kv_heads(heads),
        "head_dim": head_dim or hidden // heads,
        "intermediate": reader.find("intermediate") or 4 * hidden,
        "gated_mlp": reader.gated(traits),
        "vocabulary": reader.need("vocabulary"),
        "tied_embeddings": reader.flag("tie_word_embeddings", traits.tied),
        "context_limit": reader.find("context"),
        "latent": latent,
        "doubt": (
            None
            if reader.model_type in FAMILIES
            else f"model type '{reader.model_type}' is not known here"
        ),
    }
    shape["experts"] = _experts(reader, shape["intermediate"], shape["layers"])
    if traits.learned_positions:
        shape["position_rows"] = reader.need("context") + traits.extra_positions
    return {**shape, "vector_parameters": _vectors(reader, traits, shape)}


def _experts(reader: ConfigReader, intermediate: int, layers: int) -> Experts | None:
    total = reader.find("experts")
    if total is None or total < 2:
        return None
    width = reader.find("moe_intermediate") or intermediate
    shared = reader.find("shared_intermediate")
    return Experts(
        total=total,
        active=reader.need("experts_active"),
        intermediate=width,
        shared_intermediate=shared or width * (reader.find("shared_experts") or 0),
        shared_gate=shared is not None,
        layers=len(reader.sparse_layers(layers)),
    )


def _vectors(reader: ConfigReader, traits: Traits, shape: dict[str, Any]) -> int:
    hidden, layers = shape["hidden"], shape["layers"]
    dense = layers - (shape["experts"].layers if shape["experts"] else 0)
    norm = hidden * (2 if traits.norm_bias else 1)
    norms = reader.norms(traits) * layers + traits.final_norm + traits.embedding_norm
    latent: LatentAttention | None = shape["latent"]
    if latent is not None:
        attention = (latent.query_rank or 0) + latent.key_value_rank
    else:
        queries, keys = (shape[name] * shape["head_dim"] for name in ("heads", "kv_heads"))
        normed = {"none": 0, "head": 2 * shape["head_dim"], "all": queries + keys}
        attention = normed[traits.query_key_norm]
        attention += reader.bias("qkv_bias", traits.qkv_bias) * (queries + 2 * keys)
        attention += reader.bias("output_bias", traits.output_bias) * hidden
    mlp_bias = reader.bias("mlp_bias", traits.mlp_bias)
    mlp = mlp_bias * (shape["intermediate"] * (2 if shape["gated_mlp"] else 1) + hidden)
    head = traits.lm_head_bias * shape["vocabulary"]
    return int(norms * norm + layers * attention + dense * mlp + head)
