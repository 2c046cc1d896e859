"""When the steps of a load began, from the samples of its requests."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.domain.samples import RequestSample

SAME_NS = 1_000_000  # steps closer than that are one, seen by several requests


def step_times_ns(samples: Iterable[RequestSample]) -> tuple[int, ...]:
    """List the times at which work on a request or on its next token began, ascending.

    Returns:
        Nanoseconds of the monotonic clock; requests of one batch share their steps.
    """
    times = [_of(sample) for sample in samples]
    if not times:
        return ()
    every = np.unique(np.concatenate(times))
    apart = np.diff(every, prepend=every[0] - 2 * SAME_NS) > SAME_NS
    return tuple(every[apart].tolist())


def _of(sample: RequestSample) -> NDArray[np.int64]:
    if sample.first_token_ns is None:
        return np.array([sample.scheduled_ns], dtype=np.int64)
    gaps = np.array(sample.gaps_ns or (), dtype=np.int64)
    tokens = sample.first_token_ns + np.concatenate(([0], np.cumsum(gaps)))
    return np.concatenate(([sample.scheduled_ns], tokens)).astype(np.int64)
