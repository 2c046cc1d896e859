"""Read a ``config.json``: fields go by different names in different families, and some are unsaid.

A model type has traits by construction. Each row of ``FAMILIES`` states what the type's modelling
code in transformers does
(https://github.com/huggingface/transformers/tree/main/src/transformers/models).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from llenergymeasure.exceptions import ConfigError

_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "context": ("max_position_embeddings", "n_positions"),  # rows of a table of positions, if any
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_active": ("num_experts_per_tok", "num_experts_per_token", "moe_top_k"),
    "shared_experts": ("n_shared_experts", "num_shared_experts"),
    "moe_intermediate": ("moe_intermediate_size", "expert_intermediate_size"),
    "shared_intermediate": ("shared_expert_intermediate_size",),
    "query_rank": ("q_lora_rank",),
    "key_value_rank": ("kv_lora_rank",),
    "nope_dim": ("qk_nope_head_dim",),
    "rope_dim": ("qk_rope_head_dim",),
    "value_dim": ("v_head_dim",),
}
_CONTEXTS = (
    *_NAMES["context"],
    "n_ctx",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "seq_length",
    "seq_len",
    "context_length",
    "model_max_length",
)
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_BIAS_KEYS = {
    "qkv_bias": ("attention_bias", "use_qkv_bias", "qkv_bias", "use_bias", "enable_bias", "bias"),
    "output_bias": ("attention_bias", "use_bias", "enable_bias", "bias"),
    "mlp_bias": ("mlp_bias", "use_bias", "enable_bias", "bias"),
}
_UNGATED_ACTIVATIONS = ("gelu", "relu")


def stated_in(path: Path | None) -> dict[str, Any]:
    """Read what a JSON file of a model states; nothing where it is absent or no JSON object."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return stated if isinstance(stated, dict) else {}


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of one model type; the defaults are those of Llama.

    Attributes:
        gated: Whether the MLP has a gate beside its up projection; ``None`` lets the activation
            decide.
        tied: Whether input and output embeddings are one matrix when the configuration is silent.
        norms: Normalisations a layer.
        norm_bias: Whether they have a bias beside their scale.
        final_norm: Whether one follows the last layer.
        embedding_norm: Whether one follows the embeddings.
        query_key_norm: Normalisation of queries and keys: of each head, or over all heads.
        qkv_bias: Bias of the query, key and value projections.
        output_bias: Bias of the attention's output projection.
        mlp_bias: Bias of the MLP's projections.
        lm_head_bias: Bias of the output embeddings.
        learned_positions: Whether positions are embedded by a table.
        extra_positions: Rows of that table beyond the context limit.
    """

    gated: bool | None = True
    tied: bool = False
    norms: int = 2
    norm_bias: bool = False
    final_norm: bool = True
    embedding_norm: bool = False
    query_key_norm: Literal["none", "head", "all"] = "none"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    learned_positions: bool = False
    extra_positions: int = 0


_GPT_NEOX = Traits(gated=False, norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True)
_GPT2 = replace(_GPT_NEOX, tied=True, learned_positions=True)

FAMILIES: dict[str, Traits] = {
    "llama": Traits(),
    "mistral": Traits(),
    "mixtral": Traits(),
    "phi3": Traits(),
    "granite": Traits(),
    "smollm3": Traits(tied=True),
    "deepseek_v2": Traits(),
    "deepseek_v3": Traits(),
    "qwen2": Traits(qkv_bias=True),
    "qwen2_moe": Traits(qkv_bias=True),
    "qwen3": Traits(query_key_norm="head"),
    "qwen3_moe": Traits(query_key_norm="head"),
    "olmo": Traits(norms=0, final_norm=False),
    "olmo2": Traits(query_key_norm="all"),
    "olmoe": Traits(query_key_norm="all"),
    "gemma": Traits(tied=True),
    "gemma2": Traits(tied=True, norms=4),
    "gemma3_text": Traits(tied=True, norms=4, query_key_norm="head"),
    "cohere": Traits(tied=True, norms=1),
    "stablelm": Traits(norm_bias=True),
    "starcoder2": replace(_GPT_NEOX, tied=True),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "opt": replace(_GPT2, extra_positions=2),
    "gpt_neo": replace(_GPT2, qkv_bias=False),
    "gptj": Traits(gated=False, norms=1, norm_bias=True, mlp_bias=True, lm_head_bias=True),
    "gpt_neox": _GPT_NEOX,
    "phi": replace(_GPT_NEOX, norms=1, lm_head_bias=True),
    "bloom": replace(_GPT_NEOX, tied=True, embedding_norm=True),
    "falcon": Traits(gated=False, tied=True, norm_bias=True),
}

UNKNOWN = Traits(gated=None)
"""What a type without a row is taken to be: built like Llama."""


@dataclass(frozen=True, slots=True)
class ConfigReader:
    """A ``config.json`` with one name a field.

    Attributes:
        data: The part that describes the language model.
    """

    data: Mapping[str, Any]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Take the language model out of a configuration that describes more than one."""
        for name in _NESTED:
            inner = config.get(name)
            if isinstance(inner, Mapping):
                return cls.of({"tie_word_embeddings": config.get("tie_word_embeddings"), **inner})
        return cls(config)

    @property
    def model_type(self) -> str:
        """The family, or ``"unknown"``."""
        return str(self.data.get("model_type") or "unknown")

    def need(self, field: str) -> int:
        """Read a field that must be there.

        Raises:
            ConfigError: It is missing or no positive integer.
        """
        value = self.find(field)
        if value is None:
            names = _NAMES[field]
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise ConfigError(
                f"config.json of model type '{self.model_type}' has no {names[0]}{others}",
                where=names[0],
            )
        return value

    def find(self, field: str) -> int | None:
        """Read a field under the first of its names that has a value, or give ``None``.

        Raises:
            ConfigError: The value is no positive integer.
        """
        for name in _NAMES[field]:
            value = self.data.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(
                    f"config.json: {name} is {value!r}; it must be a positive integer", where=name
                )
            return value or None
        return None

    @property
    def context_limit(self) -> int | None:
        """Most positions of prompt and answer together, by whichever name; ``None`` if unsaid.

        A family without a table of positions states what it was trained for, beyond which its
        answers mean nothing.
        """
        stated = (self.data.get(name) for name in _CONTEXTS)
        whole = (
            value for value in stated if isinstance(value, int) and not isinstance(value, bool)
        )
        return next((value for value in whole if value > 0), None)

    def flag(self, name: str, default: bool = False) -> bool:
        """Read a switch."""
        value = self.data.get(name)
        return default if value is None else bool(value)

    def bias(self, kind: str, default: bool) -> bool:
        """Tell whether a group of projections has a bias, by whichever key says so."""
        for name in _BIAS_KEYS[kind]:
            value = self.data.get(name)
            if isinstance(value, bool):
                return value
        return default

    def kv_heads(self, heads: int) -> int:
        """Count key and value heads; families with one for all queries say so in a switch."""
        if self.flag("multi_query") and not self.flag("new_decoder_architecture"):
            return 1
        return self.find("kv_heads") or heads

    def norms(self, traits: Traits) -> int:
        """Count the normalisations of a layer; Falcon's parallel layers share one."""
        parallel = self.flag("parallel_attn", True) and not self.flag("new_decoder_architecture")
        return 1 if self.model_type == "falcon" and parallel else traits.norms

    def gated(self, traits: Traits) -> bool:
        """Tell whether MLPs are gated; for an unknown family the activation decides."""
        if traits.gated is not None:
            return traits.gated
        activation = self.data.get("hidden_act") or self.data.get("activation_function") or "silu"
        return not str(activation).startswith(_UNGATED_ACTIVATIONS)

    def sparse_layers(self, layers: int) -> list[int]:
        """List the layers that have experts instead of a dense MLP."""
        step = self.data.get("decoder_sparse_step") or self.data.get("moe_layer_freq") or 1
        step = step if isinstance(step, int) else 1
        first = self.data.get("first_k_dense_replace")
        dense = set(self.data.get("mlp_only_layers") or ())
        if isinstance(first, int):  # DeepSeek counts layers from 0, Qwen from 1
            return [layer for layer in range(first, layers) if layer % step == 0]
        return [layer for layer in range(layers) if layer not in dense and (layer + 1) % step == 0]
