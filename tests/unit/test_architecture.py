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
