"""Read a ``config.json``: fields have other names in other families, and some are unsaid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llenergymeasure import plain_files
from llenergymeasure.config.plain_words import shown
from llenergymeasure.exceptions import ConfigError

MOST_BYTES = 128 * plain_files.MIB
"""Largest file of a model that is no weights; vocabularies come to some 40 MiB."""

_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "embedding_width": ("word_embed_proj_dim",),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "kv_channels"),
    "window": ("sliding_window", "window_size"),
    "chunk": ("attention_chunk_size",),
    "intermediate": (
        "intermediate_size",
        "n_inner",
        "ffn_dim",
        "ffn_hidden_size",
    ),
    "dense_intermediate": ("intermediate_size_mlp", "shared_intermediate_size"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "context": ("max_position_embeddings", "n_positions"),  # rows of a table of positions, if any
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_active": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_top_k",
        "moe_k",
        "top_k_experts",
    ),
    "shared_experts": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    "moe_intermediate": ("moe_intermediate_size", "expert_intermediate_size"),
    "shared_intermediate": ("shared_expert_intermediate_size", "shared_intermediate_size"),
    "query_rank": ("q_lora_rank",),
    "key_value_rank": ("kv_lora_rank",),
    "nope_dim": ("qk_nope_head_dim",),
    "rope_dim": ("qk_rope_head_dim",),
    "value_dim": ("v_head_dim",),
    "state": ("mamba_d_state", "state_size", "ssm_state_size"),
    "state_heads": ("mamba_n_heads", "mamba_num_heads", "num_heads"),
    "state_groups": ("mamba_n_groups", "n_groups"),
    "state_width": ("mamba_d_ssm",),
    "expand": ("mamba_expand", "expand"),
    "kernel": ("linear_conv_kernel_dim", "mamba_d_conv", "conv_kernel", "conv_L_cache"),
    "delta_key_heads": ("linear_num_key_heads",),
    "delta_key_dim": ("linear_key_head_dim",),
    "delta_value_heads": ("linear_num_value_heads",),
    "delta_value_dim": ("linear_value_head_dim",),
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
_MOST = {"layers": 10_000, "vocabulary": 10_000_000}
"""More than any model has, and no more than can be counted one by one."""
_STRETCHING = ("linear", "dynamic", "yarn")  # by a factor; others state the longer context
_STRETCHED_ALREADY = ("gemma3", "gemma3_text")
_MOST_OF_ANYTHING = 10**10
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_BIAS_KEYS = {
    "qkv_bias": (
        "attention_bias",
        "use_qkv_bias",
        "qkv_bias",
        "use_bias",
        "enable_bias",
        "bias",
    ),
    "output_bias": ("attention_out_bias", "attention_bias", "use_bias", "enable_bias", "bias"),
    "mlp_bias": ("mlp_bias", "use_bias", "enable_bias", "bias"),
    "convolution_bias": ("mamba_conv_bias", "use_conv_bias", "conv_bias"),
    "state_bias": ("mamba_proj_bias", "conv_bias", "use_bias"),
    "state_output_bias": ("projectors_bias", "mamba_proj_bias", "conv_bias", "use_bias"),
}
_UNGATED_ACTIVATIONS = ("gelu", "relu")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model.

    Raises:
        ConfigError: It cannot be read, is too large, or holds no JSON object.
    """
    try:
        data = json.loads(plain_files.read(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", where=str(path)) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply", where=str(path)) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no JSON object", where=str(path))
    return data


def stated_in(path: Path | None) -> dict[str, Any]:
    """Read what a JSON file of a model states; nothing where it is absent or no JSON object."""
    try:
        return read_object(path) if path else {}
    except ConfigError:
        return {}


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
        while True:
            parts = map(config.get, _NESTED)
            inner = next((part for part in parts if isinstance(part, Mapping)), None)
            if inner is None:
                return cls(config)
            config = {"tie_word_embeddings": config.get("tie_word_embeddings"), **inner}

    def completed(self, defaults: Mapping[str, Any]) -> ConfigReader:
        """Add what the configuration is silent about; what it sets to null stays null."""
        return ConfigReader({**defaults, **self.data})

    def at(self, layer: int) -> ConfigReader:
        """Take the overrides of one layer (``per_layer_config``) into account."""
        overrides = self.data.get("per_layer_config")
        if not isinstance(overrides, Mapping):
            return self
        # Keys are "5", or "05" where there are more than ten layers.
        own = [changes for key, changes in overrides.items() if int(key) == layer]
        return ConfigReader({**self.data, **own[0]}) if own else self

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
                f"config.json of model type '{shown(self.model_type)}' has no {names[0]}{others}",
                where=names[0],
            )
        return value

    def find(self, field: str) -> int | None:
        """Read a field under the first of its names that has a value, or give ``None``.

        Raises:
            ConfigError: The value is no positive integer.
        """
        values = ((name, self.data.get(name)) for name in _NAMES[field])
        name, value = next((pair for pair in values if pair[1] is not None), ("", None))
        most = _MOST.get(field, _MOST_OF_ANYTHING)
        return None if value is None else _count(name, value, most) or None

    def states(self, field: str) -> bool:
        """Tell whether a field is there under any of its names, be it null."""
        return any(name in self.data for name in _NAMES.get(field, (field,)))

    def name(self, field: str) -> str:
        """Give the name that most families have for a field."""
        return _NAMES.get(field, (field,))[0]

    def number(self, name: str, default: int) -> int:
        """Read a count that one family has, under its own name.

        Raises:
            ConfigError: The value is no positive integer.
        """
        value = self.data.get(name)
        return default if value is None else _count(name, value)

    def entries(self, name: str) -> Sequence[Any] | None:
        """Read a list, or give ``None``."""
        value = self.data.get(name)
        return value if isinstance(value, list | tuple) else None

    def entry(self, name: str, layer: int) -> Any:
        """Read what a list says of a layer, or give ``None``."""
        listed = self.entries(name) or ()
        return listed[layer] if layer < len(listed) else None

    @property
    def context_limit(self) -> int | None:
        """Most positions of prompt and answer together, by whichever name; ``None`` if unsaid.

        A family without a table of positions states what it was trained for, beyond which its
        answers mean nothing. Rotary positions that are stretched reach further than that.
        """
        limits = filter(None, (_whole(self.data.get(name)) for name in _CONTEXTS))
        limit = next(limits, None)
        rope = self.data.get("rope_scaling") or self.data.get("rope_parameters")
        if limit is None or not isinstance(rope, Mapping) or self.model_type in _STRETCHED_ALREADY:
            return limit
        factor = rope.get("factor")
        kind = rope.get("rope_type") or rope.get("type")
        if kind not in _STRETCHING or not isinstance(factor, int | float):
            return limit
        if not 0 < factor < _MOST_OF_ANYTHING:
            return limit
        trained = _whole(rope.get("original_max_position_embeddings")) or limit
        return max(limit, int(trained * factor))

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

    def gated(self, stated: bool | None) -> bool:
        """Tell whether MLPs are gated; for an unknown family the activation decides."""
        if stated is not None:
            return stated
        activation = self.data.get("hidden_act") or self.data.get("activation_function") or "silu"
        return not str(activation).startswith(_UNGATED_ACTIVATIONS)

    def intermediate(self, hidden: int) -> int:
        """Give the width of an MLP, which LFM2 derives from the one it states."""
        width = self.number("block_ff_dim", 0) or self.find("intermediate") or 4 * hidden
        if not self.flag("block_auto_adjust_ff_dim"):
            return width
        width = 2 * width // 3
        factor = self.data.get("block_ffn_dim_multiplier")
        if factor is None:
            return width
        multiple = self.number("block_multiple_of", 256)
        return -(-int(factor * width) // multiple) * multiple

    def sparse(self, layer: int) -> bool:
        """Tell whether a layer has experts instead of a dense MLP, by whichever keys say so."""
        if (listed := self.entries("moe_layers")) is not None:
            return layer in listed
        if (kind := self.entry("mlp_layer_types", layer)) is not None:
            return bool(kind == "sparse")
        if "expert_layer_period" in self.data:
            offset = self.number("expert_layer_offset", 0)
            return layer % self.number("expert_layer_period", 1) == offset
        if "moe_layer_start_index" in self.data:
            last = self.data.get("moe_layer_end_index")
            within = self.number("moe_layer_start_index", 0) <= layer
            within = within and (last in (None, -1) or layer <= int(last))
            return within and (layer + 1) % self.number("moe_layer_interval", 1) == 0
        return self._sparse_by_step(layer)

    def _sparse_by_step(self, layer: int) -> bool:
        """DeepSeek counts layers from 0, Qwen and Llama 4 from 1."""
        names = ("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq")
        steps = (self.data.get(name) for name in names)
        step = next((step for step in steps if isinstance(step, int) and step), 1)
        dense = self.entries("mlp_only_layers") or ()
        for name in ("first_k_dense_replace", "num_dense_layers"):
            if isinstance(first := self.data.get(name), int):
                return layer >= first and layer % step == 0
        return layer not in dense and (layer + 1) % step == 0


def _whole(value: Any) -> int | None:
    """Give a number of tokens, or ``None`` for anything else."""
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return min(value, _MOST_OF_ANYTHING) if is_whole and value > 0 else None


def _count(name: str, value: Any, most: int = _MOST_OF_ANYTHING) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(
            f"config.json: {name} is {shown(value)}; it must be a positive integer", where=name
        )
    if value > most:
        said = f"config.json: {name} is more than {most:,}, which no model has"
        raise ConfigError(said, where=name)
    return value
