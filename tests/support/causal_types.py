"""Every type of model that transformers loads as a causal one, built on no device."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from tests.support.architectures import CONFIGS

LAYERS = 8  # in which most patterns of layers fit
SLOW = {"attn_implementation": "eager", "experts_implementation": "batched_mm"}


def names() -> list[str]:
    """List the causal types of the installed transformers, in alphabetical order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def configurations(name: str) -> Iterator[Any]:
    """Make configurations of a type.

    With the sizes of transformers and few layers, with all of them, and with small sizes: some
    types cannot be built with what transformers gives them by default.
    """
    from transformers import CONFIG_MAPPING

    few, made = {"num_hidden_layers": LAYERS}, CONFIG_MAPPING[name]
    nested = "text_config" in made.sub_configs
    for fields in ({"text_config": few} if nested else few, {}, CONFIGS.get(name, {})):
        with contextlib.suppress(Exception):  # whatever a type holds against them
            yield made(**fields)


def models(name: str) -> Iterator[Any]:
    """Build models of a type on no device, so that their size does not matter."""
    import torch
    from transformers import AutoModelForCausalLM

    logging.getLogger("transformers").setLevel(logging.ERROR)
    for config in configurations(name):
        for options in (SLOW, {"attn_implementation": "eager"}, {}):
            model = None
            with contextlib.suppress(Exception), torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, **options).eval()
            if model is not None:
                yield model
                break
