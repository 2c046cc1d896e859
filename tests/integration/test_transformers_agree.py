"""What is read from config.json, held against what transformers makes of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from llenergymeasure.core import flops
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.families import FAMILIES
from tests.support.architectures import CONFIGS

torch = pytest.importorskip("torch", reason="needs the pytorch extra")
transformers = pytest.importorskip("transformers", reason="needs the pytorch extra")

TOKENS = 13  # longer than every window of these configurations
EAGER = flops.Execution("all", transformers=True)


# Built in every run; the others with the exhaustive ones.
OFTEN = [
    "llama",
    "llama with biases",
    "qwen2",
    "qwen3",
    "phi3",
    "gemma2",
    "gpt2",
    "gpt_neox",
    "opt",
    "falcon",
    "mixtral",
    "qwen2_moe",
    "deepseek_v3",
    "cohere",
    "stablelm",
    "gpt_oss",
    "olmo3",
    "mistral with a window",
    "gpt_neo",
    "mpt",
    "opt with projected embeddings",
    "apertus",
    "bitnet",
    "gemma3_text",
    "gemma4_text",
    "llama4_text",
    "gemma4_text with embeddings in layers",
    "gemma4_text with experts",
    "qwen3_next",
    "qwen3_5_text",
    "lfm2",
    "ernie4_5_moe",
    "glm4_moe",
    "jamba",
    "falcon_h1",
    "granitemoehybrid",
    "mamba",
    "mamba2",
]


def marked(name: str) -> Any:
    return pytest.param(name, marks=() if name in OFTEN else pytest.mark.exhaustive)


@pytest.fixture(params=map(marked, CONFIGS))
def built(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Any]:
    """A small model, with the configuration it was built from, as somebody may publish it."""
    stated = {"model_type": request.param.partition(" ")[0], **CONFIGS[request.param]}
    config = transformers.AutoConfig.for_model(**stated)
    slow = {"attn_implementation": "eager", "experts_implementation": "eager"}
    return stated, transformers.AutoModelForCausalLM.from_config(config, **slow).eval()


def test_weights_and_operations_are_those_that_pytorch_counts(
    built: tuple[dict[str, Any], Any],
) -> None:
    from tests.support.flop_counting import count

    stated, model = built
    saved = json.loads(model.config.to_json_string())  # what a directory of a model has
    for config in (stated, saved, model.config.to_dict()):
        shape = ModelArchitecture.from_config(config)
        assert shape.doubt is None
        assert shape.parameters == sum(one.numel() for one in model.parameters())

    prompt = torch.arange(TOKENS)[None]  # (1, tokens)
    length = np.array([float(TOKENS)])
    prefilled, cache = count(model, prompt)
    decoded, _ = count(model, prompt[:, :1], cache)
    expected = (
        flops.prefill_flops(shape, length, execution=EAGER),
        flops.decode_flops(shape, length, np.array([2.0]), execution=EAGER),
    )
    for counted, phase in zip((prefilled, decoded), expected, strict=True):
        assert counted.matrices == phase.linear + phase.lm_head
        assert counted.attention == phase.attention
        assert (counted.recurrence > 0) == (phase.recurrence > 0)


def test_what_is_built_in_every_run_is_there() -> None:
    assert set(OFTEN) <= CONFIGS.keys()


def test_every_family_is_held_against_transformers_or_named_here() -> None:
    tested = {name.partition(" ")[0] for name in CONFIGS}
    wrapped = {"llama4", "gemma4", "qwen3_5", "qwen3_5_moe"}  # rows of their language models
    assert FAMILIES.keys() - tested - wrapped == set()


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b"])
def test_transformers_understands_the_rope_scaling(name: str) -> None:
    published = catalogue.config(name)
    config = transformers.AutoConfig.for_model(**published)
    rope = config.rope_parameters
    assert rope["rope_type"] == "llama3"
    assert rope["rope_theta"] == 500000.0
    assert rope["factor"] == published["rope_scaling"]["factor"]
