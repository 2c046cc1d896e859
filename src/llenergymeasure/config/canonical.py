"""One spelling for configurations that run the same computation.

A setting written out at the value that is in force without it asks for nothing, so it is dropped
before a configuration is hashed or compared. Only values whose meaning is certain without looking
at the machine or at files are listed; a default that an engine may change is not.
"""

from __future__ import annotations

import math
from typing import Any

from llenergymeasure.config.rules import RANDOM_PREFIX

# Null sampling parameters are neutral in every engine; these are their neutral values.
_NEUTRAL_DECODER = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
# What the backend of this package does without the setting, and, for engines with defaults of
# their own, what no parallelism is called.
_NEUTRAL_SECTIONS: dict[str, dict[str, Any]] = {
    "pytorch": {
        "batch_size": 1,
        "batching_strategy": "static",
        "torch_compile": False,
        "num_processes": 1,
    },
    "vllm": {"tensor_parallel_size": 1, "pipeline_parallel_size": 1},
    "tensorrt": {"tp_size": 1, "pp_size": 1},
}
# They must agree with the precision, which decides.
_DECIDED_BY_PRECISION = ("load_in_4bit", "load_in_8bit")


def canonical(asked: dict[str, Any], prompts: int) -> dict[str, Any]:
    """Drop what changes nothing from the settings of an experiment.

    Args:
        asked: Plain data of a valid experiment, without the fields that are at their defaults.
        prompts: How many it uses.

    Returns:
        The settings that decide what is computed. Equal for two experiments that run the same
        computation, as far as that can be told from the settings alone: a local path is taken as
        it is, so the same model at two places counts as two.
    """
    kept = dict(asked)
    _merge_spellings(kept, prompts)
    for section, neutral in _NEUTRAL_SECTIONS.items():
        if section in kept:
            kept[section] = _without(kept[section], neutral)
    return {name: value for name, value in kept.items() if value != {}}


def _merge_spellings(kept: dict[str, Any], prompts: int) -> None:
    if decoder := kept.get("decoder"):
        kept["decoder"] = _decoder(decoder, kept)
    if isinstance(kept.get("dataset"), dict):
        _synthetic(kept)
    if section := kept.get("pytorch"):
        kept["pytorch"] = _pytorch(section, prompts)


def _pytorch(section: dict[str, Any], prompts: int) -> dict[str, Any]:
    """Take a static batch to be no larger than the prompts that a process has."""
    left = {name: value for name, value in section.items() if name not in _DECIDED_BY_PRECISION}
    if "batch_size" in left and left.get("batching_strategy", "static") == "static":
        share = math.ceil(prompts / left.get("num_processes", 1))
        left["batch_size"] = min(left["batch_size"], share)
    return left


def _decoder(decoder: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    left = _without(decoder, _NEUTRAL_DECODER)
    if asked["model"].startswith(RANDOM_PREFIX) or isinstance(asked.get("dataset"), dict):
        left.pop("ignore_eos", None)  # implied
    return left


def _synthetic(kept: dict[str, Any]) -> None:
    """Drop the size of the draw: prompt i is the same however many are drawn, and n says how many.

    max_input_tokens never cuts a synthetic prompt; one that would is an error.
    """
    shape = {name: value for name, value in kept["dataset"]["synthetic"].items() if name != "n"}
    kept["dataset"] = {"synthetic": shape}
    kept.pop("max_input_tokens", None)


def _without(section: dict[str, Any], neutral: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in section.items()
        if name not in neutral or value != neutral[name]
    }
