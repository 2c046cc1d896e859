"""What a ``config.json`` leaves unsaid: traits that a model type has by construction.

Each row states what the type's modelling code in transformers does
(https://github.com/huggingface/transformers/tree/main/src/transformers/models).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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


_BIASED = {"norm_bias": True, "qkv_bias": True, "output_bias": True, "mlp_bias": True}
_GPT2 = Traits(gated=False, tied=True, learned_positions=True, **_BIASED)  # type: ignore[arg-type]

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
    "starcoder2": Traits(gated=False, tied=True, **_BIASED),  # type: ignore[arg-type]
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "opt": Traits(
        gated=False,
        tied=True,
        learned_positions=True,
        extra_positions=2,
        **_BIASED,  # type: ignore[arg-type]
    ),
    "gpt_neo": Traits(
        gated=False,
        tied=True,
        learned_positions=True,
        norm_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
    "gptj": Traits(gated=False, norms=1, norm_bias=True, mlp_bias=True, lm_head_bias=True),
    "gpt_neox": Traits(gated=False, **_BIASED),  # type: ignore[arg-type]
    "phi": Traits(gated=False, norms=1, lm_head_bias=True, **_BIASED),  # type: ignore[arg-type]
    "bloom": Traits(gated=False, tied=True, embedding_norm=True, **_BIASED),  # type: ignore[arg-type]
    "falcon": Traits(gated=False, tied=True, norm_bias=True),
}

UNKNOWN = Traits(gated=None)


def traits_of(model_type: str) -> Traits:
    """Look a model type up; an unknown one is taken to be built like Llama."""
    return FAMILIES.get(model_type, UNKNOWN)
