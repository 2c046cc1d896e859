"""From what vLLM says of its steps to the times between tokens; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from llenergymeasure.core.backends.shared.engines import Finished


class Step(NamedTuple):
    """One step of the engine.

    Attributes:
        at_s: When its tokens were there, monotonic.
        tokens: Keys of the requests it worked on, and how many tokens each got.
    """

    at_s: float
    tokens: Sequence[tuple[str, int]]


def with_gaps(steps: Sequence[Step], finished: Sequence[Finished]) -> Iterator[Finished]:
    """Add the time between the tokens of each request, and the tokens of each gap unless all are 1.

    Unknown unless the steps account for every token.
    """
    outputs: dict[str, list[tuple[int, int]]] = {}
    for step in steps:
        at_ns = round(step.at_s * 1e9)
        for key, tokens in step.tokens:
            if tokens:
                outputs.setdefault(key, []).append((at_ns, tokens))
    for done in finished:
        own = outputs.get(done.key, [])
        if sum(tokens for _, tokens in own) != len(done.token_ids):
            yield done
            continue
        gaps_ns = tuple(after - before for (before, _), (after, _) in pairwise(own))
        sizes = tuple(tokens for _, tokens in own[1:])
        yield done._replace(gaps_ns=gaps_ns, gap_tokens=None if set(sizes) <= {1} else sizes)
