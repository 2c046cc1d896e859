"""What engines have in common: how requests become batches, and what is said of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, Batch, Request
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.exceptions import BackendError, ConfigError


def all_at_once(arrivals: Sequence[Arrival], engine: str) -> Batch:
    """Give the requests of arrivals to an engine that can only be handed all of them at once.

    Raises:
        BackendError: Some are due later than others.
    """
    if any(arrival.due_ns for arrival in arrivals):
        raise BackendError(
            f"{engine} is handed every request at once here; it cannot serve a load whose requests "
            "are due at different times",
            where="generate",
        )
    return tuple(arrival.request for arrival in arrivals)


def static_batches(requests: Sequence[Request], batch_size: int) -> tuple[Batch, ...]:
    """Cut requests into batches of ``batch_size`` in their given order; the last may be smaller."""
    starts = range(0, len(requests), batch_size)
    return tuple(tuple(requests[start : start + batch_size]) for start in starts)


def dynamic_batches(requests: Sequence[Request], batch_size: int) -> tuple[Batch, ...]:
    """Sort requests by length and fill each batch up to a budget of tokens.

    The budget is ``batch_size`` times the longest request (prompt and answer), so no batch needs
    more KV cache than a static batch of the longest requests would, while short requests share
    larger batches. Longest first: a batch that does not fit fails early.
    """
    if not requests:
        return ()
    ordered = sorted(requests, key=_length, reverse=True)
    budget = batch_size * _length(ordered[0])
    batches: list[list[Request]] = []
    room = 0
    for request in ordered:
        if room < 1:
            room = max(1, budget // _length(request))  # the first of a batch is its longest
            batches.append([])
        batches[-1].append(request)
        room -= 1
    return tuple(tuple(batch) for batch in batches)


def _length(request: Request) -> int:
    return len(request.token_ids) + request.max_new_tokens


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
