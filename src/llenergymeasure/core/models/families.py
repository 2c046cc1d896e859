"""What the families of decoders are by construction, beyond what their ``config.json`` says.

Each row of ``FAMILIES`` states what the type's modelling code in transformers does
(https://github.com/huggingface/transformers/tree/main/src/transformers/models), and each is held
against a model that transformers builds. A type without a row may be built otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llenergymeasure.core.models.config_json import ConfigReader

LayerRule = Callable[[ConfigReader, int], str]
"""Names the type of a layer, counted from 0, where the configuration lists none."""


def every(interval: int, key: str = "", others: str = "sliding_attention") -> LayerRule:
    """Give full attention to each so many-th layer; ``key`` may say how many."""
    return lambda reader, layer: (
        others if (layer + 1) % (reader.number(key, interval) or 1) else "full_attention"
    )


def first_of(interval: int) -> LayerRule:
    """Give full attention to the first of each so many layers."""
    return lambda _, layer: "sliding_attention" if layer % interval else "full_attention"


def listed(key: str, others: str, unlisted: str) -> LayerRule:
    """Give full attention to the layers that ``key`` lists."""

    def rule(reader: ConfigReader, layer: int) -> str:
        full = reader.entries(key)
        if full is None:
            return unlisted
        return "full_attention" if layer in full else others

    return rule


def switched_on(reader: ConfigReader, _: int = 0) -> str:
    """Give every layer the window, where it is switched on."""
    return "sliding_attention" if reader.flag("use_sliding_window") else "full_attention"


def switched_on_above(reader: ConfigReader, layer: int) -> str:
    """Give the upper layers the window, where it is switched on."""
    upper = layer >= reader.number("max_window_layers", 28)
    return switched_on(reader) if upper else "full_attention"


def switched_on_below(reader: ConfigReader, layer: int) -> str:
    """Give every other one of the lower layers the window, where it is switched on."""
    lower = layer < reader.number("max_window_layers", 28) and layer % 2 == 0
    return switched_on(reader) if lower else "full_attention"


def rotary(reader: ConfigReader, layer: int) -> bool:
    """Tell whether a layer of a family that leaves some without rotary positions has them."""
    stated = reader.entry("no_rope_layers", layer)
    if stated is None:
        return bool((layer + 1) % (reader.number("no_rope_layer_interval", 4) or 1))
    return bool(stated)


def jamba(reader: ConfigReader, layer: int) -> str:
    """Give full attention to one layer of each period."""
    period, offset = reader.number("attn_layer_period", 8), reader.number("attn_layer_offset", 4)
    return "full_attention" if layer % period == offset else "linear_attention"


def gemma4(reader: ConfigReader, layer: int) -> str:
    """Give full attention to the last layer, wherever the pattern of six ends."""
    last = layer == reader.need("layers") - 1
    return "full_attention" if last else every(6)(reader, layer)


def gpt_neo(reader: ConfigReader, layer: int) -> str:
    """Read types that are listed a layer, or as a pattern and how often it comes."""
    types = reader.entries("attention_layers")
    if types is None:
        patterns = reader.entries("attention_types") or [[["global", "local"], 1]]
        most = reader.need("layers")
        types = [kind for pattern, times in patterns for kind in pattern * min(times, most)]
    return "full_attention" if types[layer % len(types)] == "global" else "local_attention"


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of one model type; the defaults are those of Llama.

    Attributes:
        layer: The type of every layer, or what names it for each, when the configuration is silent.
        linear: What a layer of type ``linear_attention`` is.
        recurrent: Whether layers are that alone, without attention or MLP.
        gated: Whether the MLP has a gate beside its up projection; ``None`` lets the activation
            decide.
        tied: Whether input and output embeddings are one matrix when the configuration is silent.
        norms: Normalisations a layer.
        norm_bias: Whether they have a bias beside their scale.
        final_norm: Whether one follows the last layer.
        embedding_norm: Whether one follows the embeddings.
        query_key_norm: Normalisation of queries and keys: of each head, or over all heads.
        inner_norms: Whether what goes into the output and down projections is normalised.
        state_norms: Whether a state-space model normalises inside.
        query_gate: Whether a gate scales the result of attention.
        qkv_bias: Bias of the query, key and value projections.
        output_bias: Bias of the attention's output projection; ``None`` for never.
        mlp_bias: Bias of the MLP's projections.
        lm_head_bias: Bias of the output embeddings, or the key that says so.
        router_bias: Whether the choice of experts has a bias.
        expert_bias: Whether the experts have biases.
        sinks: Whether each head has a learned score for attending to nothing.
        shared_experts: Experts every token visits when the configuration is silent.
        shared_gate: Whether a learned gate scales them.
        every_expert: Whether transformers computes every expert for every token.
        activation_parameters: Learned numbers of an MLP's activation.
        learned_positions: Whether positions are embedded by a table.
        extra_positions: Rows of that table beyond the context limit.
        defaults: What transformers takes where a published configuration is silent.
    """

    layer: LayerRule | str = "full_attention"
    linear: Literal["delta_net", "mamba", "mamba2"] | None = None
    recurrent: bool = False
    gated: bool | None = True
    tied: bool = False
    norms: int = 2
    norm_bias: bool = False
    final_norm: bool = True
    embedding_norm: bool = False
    query_key_norm: Literal["none", "head", "all"] = "none"
    inner_norms: bool = False
    state_norms: bool = False
    query_gate: bool = False
    qkv_bias: bool = False
    output_bias: bool | None = False
    mlp_bias: bool = False
    lm_head_bias: bool | str = False
    router_bias: bool = False
    expert_bias: bool = False
    sinks: bool = False
    shared_experts: int = 0
    shared_gate: bool = False
    every_expert: bool = False
    activation_parameters: int = 0
    learned_positions: bool = False
    extra_positions: int = 0
    defaults: Mapping[str, Any] = field(default_factory=dict)


_GPT_NEOX = Traits(gated=False, norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True)
_GPT2 = replace(_GPT_NEOX, tied=True, learned_positions=True)
_QWEN2_MOE = Traits(qkv_bias=True, shared_gate=True, layer=switched_on_below)
_QWEN3 = Traits(query_key_norm="head", layer=switched_on_above, defaults={"sliding_window": 4096})
_DELTA_NET_SIZES = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "head_dim": 256,
}
_QWEN3_NEXT = Traits(
    layer=every(4, "full_attention_interval", "linear_attention"),
    linear="delta_net",
    query_key_norm="head",
    query_gate=True,
    shared_gate=True,
    defaults=_DELTA_NET_SIZES,
)
_GEMMA2 = Traits(tied=True, norms=4, layer=every(2), defaults={"sliding_window": 4096})
_LLAMA4 = Traits(
    layer=lambda reader, layer: "chunked_attention" if rotary(reader, layer) else "full_attention",
    shared_experts=1,
    every_expert=True,
    defaults={
        "attention_chunk_size": 8192,
        "head_dim": 128,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 16384,
        "num_attention_heads": 40,
        "num_experts_per_tok": 1,
        "num_key_value_heads": 8,
        "vocab_size": 202048,
    },
)
_MAMBA2_SIZES = {"mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_groups": 1}

FAMILIES: dict[str, Traits] = {
    "llama": Traits(),
    "mistral": Traits(layer="sliding_attention", defaults={"sliding_window": 4096}),
    "mixtral": Traits(layer="sliding_attention"),
    "phi3": Traits(layer="sliding_attention"),
    "granite": Traits(),
    "smollm3": Traits(
        tied=True,
        layer=lambda reader, layer: (
            "full_attention" if rotary(reader, layer) else switched_on(reader)
        ),
    ),
    "deepseek_v2": Traits(),
    "deepseek_v3": Traits(defaults={"first_k_dense_replace": 3}),
    "qwen2": Traits(qkv_bias=True, layer=switched_on_above, defaults={"sliding_window": 4096}),
    "qwen2_moe": _QWEN2_MOE,
    "qwen3": _QWEN3,
    "qwen3_moe": replace(_QWEN3, layer=switched_on),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_text": _QWEN3_NEXT,
    "qwen3_5_moe_text": _QWEN3_NEXT,
    "olmo": Traits(norms=0, final_norm=False),
    "olmo2": Traits(query_key_norm="all"),
    "olmoe": Traits(query_key_norm="all"),
    "gemma": Traits(tied=True),
    "gemma2": _GEMMA2,
    "gemma3_text": replace(
        _GEMMA2,
        layer=every(6, "sliding_window_pattern"),
        query_key_norm="head",
        defaults={
            "head_dim": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "sliding_window": 4096,
            "vocab_size": 262_208,
        },
    ),
    "gemma4_text": replace(
        _GEMMA2,
        layer=gemma4,
        defaults={
            "enable_moe_block": False,
            "head_dim": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "sliding_window": 512,
            "vocab_size": 262_144,
        },
    ),
    "cohere": Traits(tied=True, norms=1, query_key_norm="all", defaults={"use_qk_norm": False}),
    "stablelm": Traits(norm_bias=True, query_key_norm="all", defaults={"qk_layernorm": False}),
    "starcoder2": replace(_GPT_NEOX, tied=True, layer="sliding_attention"),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "opt": replace(_GPT2, extra_positions=2),
    "gpt_neo": replace(_GPT2, qkv_bias=False, layer=gpt_neo, defaults={"window_size": 256}),
    "gptj": Traits(gated=False, norms=1, norm_bias=True, mlp_bias=True, lm_head_bias=True),
    "gpt_neox": _GPT_NEOX,
    "phi": replace(_GPT_NEOX, norms=1, lm_head_bias=True),
    "bloom": replace(_GPT_NEOX, tied=True, embedding_norm=True),
    "mpt": Traits(gated=False, tied=True),
    "falcon": Traits(gated=False, tied=True, norm_bias=True, defaults={"multi_query": True}),
    "apertus": Traits(gated=False, query_key_norm="head", activation_parameters=2),
    "bitnet": Traits(inner_norms=True),
    "ernie4_5_moe": Traits(
        tied=True,
        router_bias=True,
        lm_head_bias="use_bias",
        defaults={"moe_layer_start_index": 1, "moe_num_shared_experts": 2},
    ),
    "glm4_moe": Traits(
        query_key_norm="head",
        output_bias=None,
        defaults={"use_qk_norm": False, "first_k_dense_replace": 1},
    ),
    "llama4_text": _LLAMA4,
    "lfm2": Traits(
        layer=listed("full_attn_idxs", "conv", "full_attention"),
        tied=True,
        query_key_norm="head",
        defaults={
            "block_auto_adjust_ff_dim": True,
            "block_ffn_dim_multiplier": 1.0,
            "conv_L_cache": 3,
        },
    ),
    "jamba": Traits(
        layer=jamba,
        linear="mamba",
        state_norms=True,
        defaults={
            "expert_layer_offset": 1,
            "expert_layer_period": 2,
            "mamba_d_conv": 4,
            "mamba_d_state": 16,
            "mamba_expand": 2,
            "num_experts_per_tok": 2,
        },
    ),
    "granitemoehybrid": Traits(
        layer="linear_attention",
        linear="mamba2",
        state_norms=True,
        defaults={**_MAMBA2_SIZES, "num_experts_per_tok": 2},
    ),
    "falcon_h1": Traits(layer="hybrid", linear="mamba2", defaults=_MAMBA2_SIZES),
    "mamba": Traits(
        layer="linear_attention",
        linear="mamba",
        recurrent=True,
        tied=True,
        norms=1,
        defaults={"conv_kernel": 4, "expand": 2, "state_size": 16},
    ),
    "mamba2": Traits(
        layer="linear_attention",
        linear="mamba2",
        recurrent=True,
        norms=1,
        state_norms=True,
        defaults={"conv_kernel": 4, "expand": 2, "n_groups": 8, "state_size": 128},
    ),
}
FAMILIES |= {
    "arcee": Traits(gated=False),
    "bamba": Traits(
        layer=listed("attn_layer_indices", "linear_attention", "linear_attention"),
        linear="mamba2",
        state_norms=True,
        defaults=_MAMBA2_SIZES,
    ),
    "codegen": FAMILIES["gptj"],
    "cohere2": Traits(
        tied=True,
        norms=1,
        layer=every(4, "sliding_window_pattern"),
        defaults={"sliding_window": 4096},
    ),
    "ernie4_5": Traits(tied=True, defaults={"head_dim": 128}),
    "exaone4": Traits(query_key_norm="head", layer=every(4, "sliding_window_pattern")),
    "falcon_mamba": FAMILIES["mamba"],
    "flex_olmo": Traits(query_key_norm="all"),
    "glm": Traits(qkv_bias=True, output_bias=None),
    "glm4": Traits(norms=4, qkv_bias=True, output_bias=None),
    "glm4_moe_lite": Traits(),
    "gpt_oss": Traits(
        layer=every(2),
        qkv_bias=True,
        output_bias=True,
        router_bias=True,
        expert_bias=True,
        sinks=True,
        defaults={"head_dim": 64, "sliding_window": 128},
    ),
    "granitemoe": Traits(),
    "granitemoeshared": Traits(),
    "helium": Traits(),
    "hunyuan_v1_dense": Traits(query_key_norm="head"),
    "lfm2_moe": replace(FAMILIES["lfm2"], defaults={"conv_L_cache": 3, "num_dense_layers": 2}),
    "minimax_m2": Traits(query_key_norm="all"),
    "ministral": Traits(layer="sliding_attention"),
    "nemotron": Traits(gated=False, norm_bias=True),
    "olmo3": Traits(query_key_norm="all", layer=every(4), defaults={"sliding_window": 4096}),
    "seed_oss": Traits(qkv_bias=True, defaults={"attention_out_bias": False}),
    "cwm": Traits(layer=first_of(4), defaults={"sliding_window": 8192}),
    "exaone_moe": Traits(
        query_key_norm="head",
        layer=every(4, "sliding_window_pattern"),
        defaults={"first_k_dense_replace": 1, "num_shared_experts": 1, "sliding_window": 4096},
    ),
    "granite_swa": Traits(layer=first_of(4), tied=True, sinks=True),
    "granitemoe_swa": Traits(layer=first_of(4), sinks=True),
    "hy_v3": Traits(
        query_key_norm="head", defaults={"first_k_dense_replace": 1, "num_shared_experts": 1}
    ),
    "internlm3": Traits(),
    "iquestcoder": Traits(),
    "mellum": Traits(query_key_norm="head"),
    "minicpm3": Traits(tied=True, defaults={"q_lora_rank": 768}),
    "ministral3": Traits(layer="sliding_attention"),
    "phimoe": Traits(norm_bias=True, layer="sliding_attention", lm_head_bias="lm_head_bias"),
    "solar_open": Traits(defaults={"n_shared_experts": 1}),
    "vaultgemma": replace(FAMILIES["gemma2"], norms=2),
    "youtu": Traits(tied=True, defaults={"q_lora_rank": 1536}),
}
FAMILIES["gemma4"] = FAMILIES["gemma4_text"]
FAMILIES["llama4"] = FAMILIES["llama4_text"]
FAMILIES["qwen3_5"] = FAMILIES["qwen3_5_text"]
FAMILIES["qwen3_5_moe"] = FAMILIES["qwen3_5_moe_text"]

UNKNOWN = Traits(gated=None)
"""What a type without a row is taken to be: built like Llama."""

_FOUR_TIMES = "bloom codegen falcon gpt2 gpt_bigcode gpt_neo gptj mpt"
_NO_DENSE_MLP = "falcon_mamba mamba mamba2 mellum qwen3_5_moe_text qwen3_next solar_open"

UNSAID: dict[str, frozenset[str]] = {
    field: frozenset(families.split())
    for field, families in {
        "intermediate": " ".join(
            FAMILIES.keys() - f"{_FOUR_TIMES} {_NO_DENSE_MLP} qwen3_5_moe".split()
        ),
        "kv_heads": (
            "bamba bitnet cwm ernie4_5 exaone4 exaone_moe falcon_h1 gemma glm glm4 glm4_moe "
            "gpt_oss helium hy_v3 internlm3 iquestcoder jamba lfm2 lfm2_moe minimax_m2 "
            "ministral ministral3 mistral mixtral phimoe qwen2 qwen2_moe qwen3 "
            "qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next seed_oss solar_open "
            "stablelm starcoder2"
        ),
        "head_dim": (
            "cwm gemma gemma2 glm glm4 helium hy_v3 internlm3 iquestcoder mellum minimax_m2 "
            "ministral3 qwen3 seed_oss solar_open vaultgemma"
        ),
        "experts": (
            "deepseek_v2 deepseek_v3 ernie4_5_moe exaone_moe flex_olmo glm4_moe "
            "glm4_moe_lite gpt_oss granitemoe granitemoe_swa granitemoehybrid "
            "granitemoeshared hy_v3 jamba lfm2_moe llama4_text mellum minimax_m2 mixtral "
            "olmoe phimoe qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next solar_open"
        ),
        "moe_intermediate": (
            "deepseek_v2 deepseek_v3 ernie4_5_moe exaone_moe glm4_moe glm4_moe_lite hy_v3 "
            "lfm2_moe mellum qwen2_moe qwen3_5_moe_text qwen3_moe qwen3_next solar_open"
        ),
        "shared_intermediate": "granitemoehybrid qwen2_moe qwen3_5_moe_text qwen3_next",
        "shared_experts": "deepseek_v2 deepseek_v3 ernie4_5_moe glm4_moe glm4_moe_lite",
        "key_value_rank": "deepseek_v2 deepseek_v3 glm4_moe_lite minicpm3 youtu",
        "query_rank": "deepseek_v2 deepseek_v3 glm4_moe_lite",
        "value_dim": "deepseek_v2 deepseek_v3 glm4_moe_lite youtu",
        "window": "exaone4 granite_swa granitemoe_swa mellum ministral",
    }.items()
}
"""Fields of which transformers has a number of its own in these families.

A published configuration states them; where one is silent all the same, that number is not known
here, and what is counted is in doubt.
"""
