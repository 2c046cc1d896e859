"""Rules of the pytorch section; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from llenergymeasure.config.base import FieldProblem
from llenergymeasure.config.experiment_fields import ExperimentFields

_BY_PRECISION = {"load_in_4bit": "int4", "load_in_8bit": "int8"}
"""Flags that must agree with the precision, which decides."""


def contradictions(config: ExperimentFields) -> Iterator[FieldProblem]:
    """List what in a configuration contradicts its pytorch section."""
    section = config.pytorch
    if section is None:
        return
    if config.decoder.speculative_decoding:
        alone = "speculative decoding in transformers takes one request at a time"
        if section.batching_strategy == "dynamic":
            yield FieldProblem("pytorch.batching_strategy", alone, "remove it")
        if (section.batch_size or 1) > 1:
            yield FieldProblem("pytorch.batch_size", alone, "set batch_size: 1")
    for flag, precision in _BY_PRECISION.items():
        wanted = getattr(section, flag)
        if wanted is not None and wanted != (config.precision == precision):
            yield FieldProblem(
                f"pytorch.{flag}",
                f"{str(wanted).lower()} contradicts precision: {config.precision}",
                f"remove it (precision decides) or set precision: {precision}",
            )
    if section.device is not None and section.device_map is not None:
        yield FieldProblem(
            "pytorch.device_map", "contradicts pytorch.device", "keep one of the two"
        )


def spelled(section: dict[str, Any], prompts: int) -> dict[str, Any]:
    """Take a static batch to be no larger than the prompts that a process has."""
    left = {name: value for name, value in section.items() if name not in _BY_PRECISION}
    if "batch_size" in left and left.get("batching_strategy", "static") == "static":
        share = math.ceil(prompts / left.get("num_processes", 1))
        left["batch_size"] = min(left["batch_size"], share)
    return left
