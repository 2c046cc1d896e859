"""Group requests into batches; pure functions of the requests."""

from __future__ import annotations

from collections.abc import Sequence

from llenergymeasure.core.backends.protocol import Arrival, Batch, Request
from llenergymeasure.exceptions import BackendError


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
