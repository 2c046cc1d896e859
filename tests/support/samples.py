"""A part of a space for every run, all of it for ``make test-exhaustive``."""

from __future__ import annotations

import pytest

EXHAUSTIVE = pytest.mark.exhaustive
MOST_CUTS = pytest.mark.parametrize(
    "most", [pytest.param(40, id="some"), pytest.param(10**9, id="every", marks=EXHAUSTIVE)]
)
"""At how many places to cut a file at most: 40, or everywhere."""


def cuts(length: int, most: int) -> list[int]:
    """Spread places over a file of some bytes, its beginning and its last byte among them."""
    if length <= most:
        return list(range(length))
    return sorted({round(place * (length - 1) / (most - 1)) for place in range(most)})
