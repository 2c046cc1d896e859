"""What engines say of a loaded model, whichever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.exceptions import ConfigError


def understood(shape: Mapping[str, Any]) -> ModelArchitecture | None:
    """Read the shape of a model; ``None`` where it is not understood.

    FLOPs are reference data: an unknown shape must not stop a measurement.
    """
    try:
        return ModelArchitecture.from_config(shape)
    except ConfigError:
        return None


def flops_notes(config: ExperimentConfig, architecture: ModelArchitecture | None) -> Iterator[str]:
    """Say what FLOPs leave out."""
    if architecture is None:
        yield "parameters and FLOPs are unknown: the model is not a plain transformer"
    if config.decoder.draft_model is not None:
        yield "FLOPs leave out the drafting model and rejected drafts"
    if config.lora is not None and not config.lora.merge_weights:
        yield "FLOPs leave out the unmerged LoRA adapter"
