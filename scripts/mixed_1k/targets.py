"""Target lengths, kinds and file order of the prompts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

KINDS = ("encyclopaedic", "web", "request")
PROMPT_COUNT = 1000
LONGEST = 603
QUANTILES = (
    (0.0, 2.0),
    (0.05, 7.0),
    (0.1, 9.0),
    (0.25, 36.0),
    (0.5, 98.0),
    (0.75, 248.0),
    (0.9, 603.0),
    (1.0, 603.0),
)
GOLDEN_FRACTION = (5**0.5 - 1) / 2


def quantile_length(level: float) -> int:
    """Return the target length in words at `level`, interpolated between the known quantiles."""
    for (low, low_words), (high, high_words) in itertools.pairwise(QUANTILES):
        if level <= high:
            share = (level - low) / (high - low)
            return min(LONGEST, round(low_words + share * (high_words - low_words)))
    return LONGEST


def target_lengths(count: int = PROMPT_COUNT) -> list[int]:
    """Return `count` target lengths in ascending order."""
    return [quantile_length(rank / (count - 1)) for rank in range(count)]


def kind_of_rank(rank: int) -> str:
    """Return the kind of the prompt whose length has the given rank."""
    return KINDS[rank % len(KINDS)]


def spread(count: int, phase: float) -> list[int]:
    """Return the numbers below `count` in an order whose prefixes cover the range evenly."""
    points = [(phase + place * GOLDEN_FRACTION) % 1.0 for place in range(count)]
    by_point = sorted(range(count), key=points.__getitem__)
    order = [0] * count
    for value, place in enumerate(by_point):
        order[place] = value
    return order


def file_order(count: int = PROMPT_COUNT) -> list[int]:
    """Return the length ranks in file order, with kinds taking turns and lengths well mixed."""
    columns: list[Sequence[int]] = []
    for kind_index in range(len(KINDS)):
        ranks = range(kind_index, count, len(KINDS))
        order = spread(len(ranks), kind_index / len(KINDS))
        columns.append([ranks[place] for place in order])
    longest = max(map(len, columns))
    rows = range(longest)
    return [column[row] for row in rows for column in columns if row < len(column)]


def kinds_in_file_order(count: int = PROMPT_COUNT) -> list[str]:
    """Return the kind of every prompt in the order of the file."""
    return [kind_of_rank(rank) for rank in file_order(count)]
