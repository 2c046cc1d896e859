"""The shape of a decoder-only model, read from a Hugging Face ``config.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from llenergymeasure.config.plain_words import shown
from llenergymeasure.core.models.config_json import ConfigReader
from llenergymeasure.core.models.families import FAMILIES, UNKNOWN, Traits
from llenergymeasure.core.models.layer_readers import (
    GEMMA4,
    Experts,
    doubt_of,
    experts_of,
    latent_of,
    norm_width,
    per_layer_embeddings,
    stack_of,
)
from llenergymeasure.core.models.layers import LatentAttention, Layer
from llenergymeasure.exceptions import ConfigError

if TYPE_CHECKING:
    from llenergymeasure.core.models.layers import Counts


@dataclass(frozen=True, slots=True)
class ModelArchitecture:
    """Shape of a model, and the counts that follow from it.

    Attributes:
        model_type: As the configuration names it.
        layers: Decoder layers.
        stack: Kinds of layers, and how many there are of each.
        hidden: Width of the residual stream.
        heads: Query heads; 0 without attention.
        kv_heads: Key and value heads; fewer than ``heads`` with grouped queries.
        head_dim: Width of a head; with latent attention the mean of key and value.
        intermediate: Width of a dense MLP.
        gated_mlp: Whether the MLP has a gate beside its up projection.
        vocabulary: Rows of the embedding table.
        embedding_width: Width of that table, and of what the output embeddings are given.
        tied_embeddings: Whether the output embeddings are the input embeddings.
        context_limit: Most positions, or ``None`` where the configuration names none.
        doubt: Why the counts cannot be trusted, or ``None``: a type or a layer that is not known.
        looked_up: Elements of further tables of which a token takes a row, such as positions.
        outer_matrices: Weights outside the layers that every token is multiplied with.
        outer_vectors: Elements of biases and norms outside the layers.
        experts: The mixture of experts, or ``None`` for a dense model.
        latent: Latent attention, or ``None``.
    """

    model_type: str
    layers: int
    stack: tuple[tuple[Layer, int], ...]
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated_mlp: bool
    vocabulary: int
    embedding_width: int
    tied_embeddings: bool
    context_limit: int | None
    doubt: str | None = None
    looked_up: int = 0
    outer_matrices: int = 0
    outer_vectors: int = 0
    experts: Experts | None = None
    latent: LatentAttention | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a ``config.json``; a multimodal one is read for its language model.

        A model type that is not known here is read by the common names of its fields and taken to
        be built like Llama; ``doubt`` says so.

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
        traits = FAMILIES.get(reader.model_type, UNKNOWN)
        try:
            return cls(**_shape(reader.completed(traits.defaults), traits))
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            # Anybody may have written it, and any entry may be of any kind.
            raise ConfigError(
                "config.json describes no model: an entry is of another kind than it can be "
                f"({shown(str(error), 80)})",
                where="model",
            ) from None

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
        return self.vocabulary * self.embedding_width + self.looked_up

    @property
    def lm_head_parameters(self) -> int:
        """Weights of the output embeddings, whether or not they are the input embeddings."""
        return self.embedding_width * self.vocabulary

    @property
    def vector_parameters(self) -> int:
        """Elements of all biases, normalisations and convolutions."""
        return int(self.sum(Layer.others)) + self.outer_vectors

    def sum(self, of: Callable[[Layer], float]) -> float:
        """Sum what a layer has over all layers."""
        return sum(count * of(layer) for layer, count in self.stack)

    def linear_parameters(self, experts_a_layer: float | None = None) -> float:
        """Weights of the matrices that tokens pass: attention, MLPs, routers.

        Args:
            experts_a_layer: Routed experts to count in each layer that has them; all by default.
        """
        return self.sum(lambda layer: layer.linear(experts_a_layer)) + self.outer_matrices

    @property
    def linear_parameters_active(self) -> int:
        """Weights a token is multiplied with inside the layers; no embeddings, no lm_head."""
        return int(self.linear_parameters(self.experts.active if self.experts else None))

    @property
    def parameters(self) -> int:
        """All parameters, embeddings included; a tied matrix counts once."""
        head = 0 if self.tied_embeddings else self.lm_head_parameters
        linear = int(self.linear_parameters())
        return self.embedding_parameters + head + linear + self.vector_parameters

    @property
    def parameters_active(self) -> int:
        """Parameters that take part in one token: all but the experts it does not visit."""
        unvisited = self.sum(lambda layer: layer.unvisited)
        return self.parameters - int(unvisited)

    def kv_bytes_per_token(self, bytes_per_value: float = 2) -> float:
        """Bytes of KV cache a token needs over all layers, within every window.

        Latent attention caches the compressed form; an engine that expands it needs more.
        """
        return self.sum(lambda layer: layer.kept(1) - layer.kept(0)) * bytes_per_value

    def kv_bytes(self, context_tokens: float, bytes_per_value: float = 2) -> float:
        """Bytes that a sequence of that many tokens keeps: KV cache, and state of recurrences.

        Layers with a sliding window, or attention in chunks, keep no more than that many tokens.
        """
        return self.sum(lambda layer: layer.kept(context_tokens)) * bytes_per_value

    def kv_values_read(self, before: Counts, after: Counts) -> Counts:
        """Count the values of KV cache and state that decode passes read.

        Args:
            before: Tokens of each sequence before the first pass, shape (sequences,).
            after: Tokens after the last one.
        """
        total = before * 0.0
        for layer, count in self.stack:
            for mixer in layer.mixers:
                tokens = mixer.cache_reads(after) - mixer.cache_reads(before)
                total = total + count * (mixer.cached * tokens + mixer.state * (after - before))
        return total


def _shape(reader: ConfigReader, traits: Traits) -> dict[str, Any]:
    hidden, layers = reader.need("hidden"), reader.need("layers")
    heads = 0 if traits.recurrent else reader.need("heads")
    latent, vocabulary = latent_of(reader), reader.need("vocabulary")
    head_dim = reader.find("head_dim") or hidden // max(heads, 1)
    if latent is not None:
        head_dim = (latent.nope_dim + latent.rope_dim + latent.value_dim) // 2
    width = reader.find("embedding_width") or hidden
    stack, kinds = stack_of(reader, traits, layers)
    tied = reader.flag("tie_word_embeddings", traits.tied)
    final_norm = traits.final_norm and reader.flag("do_layer_norm_before", True)
    final_norm = final_norm and not reader.flag("_remove_final_layer_norm")
    outer = final_norm + traits.embedding_norm
    head_bias = traits.lm_head_bias
    if isinstance(head_bias, str):
        head_bias = reader.flag(head_bias)
    shape: dict[str, Any] = {
        "model_type": reader.model_type,
        "layers": layers,
        "stack": stack,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": reader.kv_heads(heads) if heads else 0,
        "head_dim": head_dim if heads else 0,
        "intermediate": reader.intermediate(hidden),
        "gated_mlp": reader.gated(traits.gated),
        "vocabulary": vocabulary,
        "embedding_width": width,
        "tied_embeddings": reader.flag("tie_embedding", tied),
        "context_limit": reader.context_limit,
        "doubt": doubt_of(reader, kinds),
        "outer_matrices": 2 * hidden * width if width != hidden else 0,
        "outer_vectors": outer * norm_width(reader, traits) + head_bias * vocabulary,
        "experts": experts_of(reader, traits, layers),
        "latent": latent,
    }
    if traits.learned_positions:
        shape["looked_up"] = (reader.need("context") + traits.extra_positions) * hidden
    if reader.model_type in GEMMA4:
        shape |= per_layer_embeddings(reader, layers)
    return shape
