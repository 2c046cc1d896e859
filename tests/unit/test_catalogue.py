"""The architectures that ship with the package."""

from __future__ import annotations

import json

import pytest

from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.exceptions import ConfigError

# Sizes as the model cards state them.
PUBLISHED = {
    "llama-3.1-8b": 8.03e9,
    "llama-3.2-1b": 1.2358e9,  # 1.23 billion on the card
    "mistral-7b": 7.25e9,
    "qwen2.5-0.5b": 0.494e9,
    "qwen2.5-7b": 7.62e9,
    "tiny-llama": 6.0e6,
}


def test_every_architecture_has_a_published_size_to_compare_with() -> None:
    assert catalogue.names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_match_the_published_size_within_a_hundredth(name: str) -> None:
    counted = ModelArchitecture.from_config(catalogue.config(name)).parameters
    assert counted == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_where_the_figures_come_from_is_recorded_but_not_part_of_the_configuration(
    name: str,
) -> None:
    source = json.loads((catalogue.FOLDER / f"{name}.json").read_text())[catalogue.SOURCE]
    assert "_source" not in catalogue.config(name)
    if name == "tiny-llama":
        assert source["description"]
        return
    assert source["url"].startswith("https://huggingface.co/")
    assert "Licence" in source["note"]
    assert source["parameters"] == ModelArchitecture.from_config(catalogue.config(name)).parameters


def test_a_misspelt_name_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'llama-3\.1-8b'"):
        catalogue.config("llama-3.1-8B-x")


def test_a_strange_name_gets_the_list() -> None:
    with pytest.raises(ConfigError, match=r"valid names: llama-3\.1-8b, .*tiny-llama"):
        catalogue.config("zzzzzz")
