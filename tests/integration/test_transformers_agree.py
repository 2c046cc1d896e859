"""What is read from config.json, held against what transformers makes of it."""

from __future__ import annotations

import pytest

from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from tests.support.architectures import CONFIGS

torch = pytest.importorskip("torch", reason="needs the pytorch extra")
transformers = pytest.importorskip("transformers", reason="needs the pytorch extra")


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_model_that_transformers_builds(name: str) -> None:
    config = {"model_type": name.partition(" ")[0], **CONFIGS[name]}
    full = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(full)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert ModelArchitecture.from_config(config).parameters == built
    assert ModelArchitecture.from_config(full.to_dict()).parameters == built


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b"])
def test_transformers_understands_the_rope_scaling(name: str) -> None:
    published = catalogue.config(name)
    config = transformers.AutoConfig.for_model(**published)
    rope = config.rope_parameters
    assert rope["rope_type"] == "llama3"
    assert rope["rope_theta"] == 500000.0
    assert rope["factor"] == published["rope_scaling"]["factor"]
