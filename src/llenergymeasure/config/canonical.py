"""Fingerprints, and one spelling for configurations that run the same computation.

A setting written out at the value that is in force without it asks for nothing, so it is dropped
before a configuration is hashed or compared. Only values whose meaning is certain without looking
at the machine or at files are listed; a default that an engine may change is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from llenergymeasure.config.experiment_fields import MOST_PROMPTS, NEUTRAL_DECODER
from llenergymeasure.config.names import RANDOM_PREFIX
from llenergymeasure.config.registry import all_backends


def canonical_hash(data: Any) -> str:
    """Hash plain data: the first 16 hex digits of SHA-256 over canonical JSON.

    Canonical means sorted keys, no white space, UTF-8.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def design_hash(fingerprints: Iterable[str], *, cold_start: bool = False) -> str:
    """Hash a design (``study_design_hash``): the sorted fingerprints of its experiments.

    How the experiments are run, and the order of keys and entries, play no part; a cold start
    does, because it changes what is measured.
    """
    hashes = sorted(fingerprints)
    return canonical_hash({"cold_start": True, "experiments": hashes} if cold_start else hashes)


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
    if kept.get("n") == MOST_PROMPTS:
        del kept["n"]  # as where it is left out; a dataset of fewer is refused
    dataset = kept.get("dataset")
    synthetic = isinstance(dataset, dict) and "synthetic" in dataset
    if isinstance(dataset, dict) and dataset.keys() == {"path"}:
        kept["dataset"] = dataset["path"]
    if decoder := kept.get("decoder"):
        kept["decoder"] = _without(decoder, NEUTRAL_DECODER)
        if synthetic or kept["model"].startswith(RANDOM_PREFIX):
            kept["decoder"].pop("ignore_eos", None)  # implied
    if synthetic:
        # Prompt i is the same however many are drawn, and n says how many are used.
        shape = kept["dataset"]["synthetic"]
        kept["dataset"] = {"synthetic": {name: shape[name] for name in shape if name != "n"}}
        kept.pop("max_input_tokens", None)  # one that would cut a synthetic prompt is an error
    for name, facts in all_backends().items():
        if section := kept.get(name):
            kept[name] = _without(facts.spelled(section, prompts), facts.neutral)
    return {name: value for name, value in kept.items() if value != {}}


def _without(section: dict[str, Any], neutral: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in section.items()
        if name not in neutral or value != neutral[name]
    }
