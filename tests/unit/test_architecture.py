"""Shapes read from config.json."""

from __future__ import annotations

from typing import Any

import pytest

from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.exceptions import ConfigError
from tests.support.architectures import CONFIGS, SMALL


def test_the_counts_of_one_small_layer_by_pencil() -> None:
    one = ModelArchitecture.from_config(
        {
            "model_type": "llama",
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 16,
            "vocab_size": 10,
            "max_position_embeddings": 64,
        }
    )
    assert one.head_dim == 2
    # q 8x8, k 8x4, v 8x4, o 8x8 = 192; gate, up, down 3 x 8x16 = 384
    assert one.linear_parameters_active == 192 + 384
    assert one.embedding_parameters == 80
    assert one.parameters == 80 + 80 + 576 + 3 * 8  # embeddings, lm_head, layer, three norms
    assert one.kv_bytes_per_token(2) == 2 * 2 * 2 * 2  # keys and values, 2 heads of 2, 2 bytes
    assert one.context_limit == 64


def test_a_token_of_a_mixture_visits_only_some_experts() -> None:
    config = {"model_type": "mixtral", **CONFIGS["mixtral"]}
    mixture = ModelArchitecture.from_config(config)
    expert = 3 * 64 * 96
    assert mixture.parameters - mixture.parameters_active == 4 * 2 * expert
    assert mixture.linear_parameters(1) == mixture.linear_parameters(0) + 4 * expert


def test_shared_experts_take_part_in_every_token() -> None:
    with_shared = ModelArchitecture.from_config(
        {"model_type": "deepseek_v3", **CONFIGS["deepseek_v3"]}
    )
    without = ModelArchitecture.from_config(
        {"model_type": "deepseek_v3", **CONFIGS["deepseek_v3"], "n_shared_experts": None}
    )
    difference = with_shared.linear_parameters_active - without.linear_parameters_active
    assert difference == 3 * (3 * 64 * 32)  # three sparse layers


def test_latent_attention_caches_the_compressed_form() -> None:
    latent = ModelArchitecture.from_config({"model_type": "deepseek_v3", **CONFIGS["deepseek_v3"]})
    assert latent.kv_bytes_per_token(2) == 4 * (16 + 8) * 2


def test_a_multimodal_configuration_is_read_for_its_language_model() -> None:
    inner = {"model_type": "llama", **SMALL, "tie_word_embeddings": None}
    nested = {
        "model_type": "llava",
        "text_config": {key: value for key, value in inner.items() if value is not None},
        "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24},
        "tie_word_embeddings": True,
    }
    read = ModelArchitecture.from_config(nested)
    assert (read.model_type, read.hidden, read.layers, read.tied_embeddings) == (
        "llama",
        64,
        4,
        True,
    )


def test_an_unknown_model_type_is_read_by_common_names() -> None:
    unknown = ModelArchitecture.from_config({"model_type": "surprise", **SMALL})
    llama = ModelArchitecture.from_config({"model_type": "llama", **SMALL})
    assert unknown.parameters == llama.parameters


def test_the_activation_of_an_unknown_model_type_tells_whether_its_mlp_is_gated() -> None:
    plain = ModelArchitecture.from_config(
        {"model_type": "surprise", **SMALL, "hidden_act": "gelu_new"}
    )
    assert not plain.gated_mlp
    assert ModelArchitecture.from_config({**SMALL, "hidden_act": "silu"}).gated_mlp


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
def test_a_missing_key_is_named(key: str) -> None:
    config = {name: value for name, value in SMALL.items() if name != key}
    with pytest.raises(ConfigError, match=key) as caught:
        ModelArchitecture.from_config({"model_type": "llama", **config})
    assert caught.value.where == key


@pytest.mark.parametrize("value", ["64", 64.5, -1, True])
def test_a_value_that_is_no_count_is_named(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"hidden_size is .* positive integer"):
        ModelArchitecture.from_config({"model_type": "llama", **SMALL, "hidden_size": value})


def test_an_encoder_decoder_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoder-decoder"):
        ModelArchitecture.from_config({"model_type": "t5", "is_encoder_decoder": True, **SMALL})


def test_an_unknown_model_type_leaves_a_doubt() -> None:
    assert ModelArchitecture.from_config({"model_type": "llama", **SMALL}).doubt is None
    unknown = ModelArchitecture.from_config({"model_type": "surprise", **SMALL})
    assert unknown.doubt == "model type 'surprise' is not known here"


@pytest.mark.parametrize("strange", ["hyena", "linear_attention", "conv"])
def test_an_unknown_type_of_layer_leaves_a_doubt(strange: str) -> None:
    types = ["full_attention", strange, "full_attention", "full_attention"]
    read = ModelArchitecture.from_config({"model_type": "llama", **SMALL, "layer_types": types})
    assert read.doubt == f"layer_types names '{strange}', which is not known here"


@pytest.mark.parametrize(
    "changes",
    [
        {"use_bidirectional_attention": True},
        {"per_layer_config": {"1": {"skip": ["mlp"]}}},
    ],
)
def test_what_is_no_causal_decoder_leaves_a_doubt(changes: dict[str, Any]) -> None:
    read = ModelArchitecture.from_config({"model_type": "gemma3_text", **SMALL, **changes})
    assert read.doubt is not None


def test_layers_with_a_window_keep_no_more_than_it() -> None:
    shape = {**SMALL, "num_hidden_layers": 6, "head_dim": 16, "sliding_window": 100}
    read = ModelArchitecture.from_config({"model_type": "gemma3_text", **shape})
    layer = 2 * 2 * 16 * 2  # keys and values, 2 heads of 16, 2 bytes
    assert read.kv_bytes(50) == 50 * read.kv_bytes_per_token() == 50 * 6 * layer
    assert read.kv_bytes(1000) == (5 * 100 + 1000) * layer


def test_state_takes_the_same_memory_at_every_length() -> None:
    mamba = ModelArchitecture.from_config({"model_type": "mamba2", **CONFIGS["mamba2"]})
    assert mamba.kv_bytes(1) == mamba.kv_bytes(100_000) > 0
    assert mamba.kv_bytes_per_token() == 0
    assert (mamba.heads, mamba.attention_width) == (0, 0)


def test_borrowed_keys_and_values_are_kept_once() -> None:
    config = CONFIGS["gemma4_text with embeddings in layers"]
    shape = ModelArchitecture.from_config({"model_type": "gemma4_text", **config})
    # 8 layers keep their own: 6th full of heads of 32, 7 with windows of 5 and heads of 16
    assert shape.kv_bytes(20, 1) == 2 * 2 * (32 * 20 + 7 * 16 * 5)


@pytest.mark.parametrize(
    ("model_type", "changes", "windows"),
    [
        ("mistral", {"sliding_window": None}, 0),
        ("mistral", {}, 4),  # transformers' own default, where the configuration is silent
        ("phi3", {"sliding_window": 7}, 4),
        ("qwen2", {"sliding_window": 7}, 0),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 7}, 3),
        ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 7}, 4),
        ("gemma2", {"sliding_window": 7}, 2),
        ("gemma3_text", {"sliding_window_pattern": 2, "sliding_window": 7}, 2),
        ("llama", {"sliding_window": 7}, 0),
    ],
)
def test_windows_are_where_the_family_has_them(
    model_type: str, changes: dict[str, Any], windows: int
) -> None:
    read = ModelArchitecture.from_config({"model_type": model_type, **SMALL, **changes})
    assert read.sum(lambda layer: layer.mixers[0].sees is not None) == windows


def test_a_published_configuration_may_leave_out_what_transformers_takes_by_default() -> None:
    # https://huggingface.co/google/gemma-3-4b-it/blob/main/config.json names no more of its text
    nested = {
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "sliding_window": 1024,
        },
    }
    read = ModelArchitecture.from_config(nested)
    assert (read.heads, read.kv_heads, read.head_dim, read.vocabulary) == (8, 4, 256, 262_208)
    assert read.parameters == 3_880_263_168


@pytest.mark.parametrize(
    ("model_type", "key"),
    [("llama", "intermediate_size"), ("mistral", "num_key_value_heads"), ("gemma2", "head_dim")],
)
def test_what_transformers_fills_in_by_itself_leaves_a_doubt(model_type: str, key: str) -> None:
    stated = {"model_type": model_type, **SMALL, "head_dim": 16}
    assert ModelArchitecture.from_config(stated).doubt is None
    silent = {name: value for name, value in stated.items() if name != key}
    doubt = ModelArchitecture.from_config(silent).doubt
    assert doubt is not None
    assert doubt == f"config.json says nothing of {key}"
