"""Every type of model that transformers loads as a causal one, built on no device, and its work."""

from __future__ import annotations

import contextlib
import inspect
import logging
from typing import Any, NamedTuple

from llenergymeasure.core.models.counted import Counted, count

LAYERS = 8  # of the types that let it be told: each pattern of layers that is known fits in
TOKENS = 16


class Work(NamedTuple):
    """Operations of one forward pass over ``TOKENS`` tokens, as PyTorch counts them.

    Attributes:
        linear: Products with weights: layers, experts that were visited, output head.
        attention: Products of activations with each other, the whole square of positions.
        logit_rows: Positions that gave logits.
    """

    linear: int
    attention: int
    logit_rows: int


class Built(NamedTuple):
    """A model without weights.

    Attributes:
        config: Its configuration, as ``config.json`` holds it.
        counted: Its parameters.
        model: The model.
    """

    config: dict[str, Any]
    counted: Counted | None
    model: Any


def names() -> list[str]:
    """List the causal types of the installed transformers, in alphabetical order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def config_of(name: str) -> Any:
    """Make the configuration of a type as transformers ships it, with few layers where it can."""
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[name]
    for fields in (
        {"text_config": {"num_hidden_layers": LAYERS}} if "text_config" in made.sub_configs else {},
        {"num_hidden_layers": LAYERS},
    ):
        with contextlib.suppress(Exception):  # whatever a type holds against fewer layers
            config = made(**fields)
            if config.get_text_config().num_hidden_layers == LAYERS:
                return config
    return made()


def build(name: str) -> Built:
    """Build a model of a type on no device, so that its size does not matter."""
    import torch
    from transformers import AutoModelForCausalLM

    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = config_of(name)
    stated = config.to_dict()
    options = {"attn_implementation": "eager", "experts_implementation": "batched_mm"}
    with torch.device("meta"):
        for last in (options, {"attn_implementation": "eager"}, {}):
            with contextlib.suppress(ValueError, TypeError):
                model = AutoModelForCausalLM.from_config(config, **last).eval()
                break
        else:
            model = AutoModelForCausalLM.from_config(config).eval()
    return Built(stated, count(model), model)


def work_of(model: Any) -> Work:
    """Run a model on no device and count its products."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    takes = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
    if last := "logits_to_keep" in takes:
        options["logits_to_keep"] = 1
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids, **options)
    counts = counter.get_flop_counts()
    whole = _by_operator(counts["Global"])
    experts = [n for n in counts if n.rpartition(".")[2] == "experts"]
    routed = sum(_by_operator(counts[name])["attention"] for name in experts)
    return Work(whole["linear"] + routed, whole["attention"] - routed, 1 if last else TOKENS)


def _by_operator(counts: dict[Any, int]) -> dict[str, int]:
    sums = {"linear": 0, "attention": 0, "convolution": 0}
    for operator, operations in counts.items():
        word = str(operator)
        kind = "attention" if "bmm" in word else "linear" if "mm" in word else "convolution"
        sums[kind] += operations
    return sums
