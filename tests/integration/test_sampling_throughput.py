"""What the benchmark of the sampler's cost claims is the ratio of passes with and without it."""

from __future__ import annotations

from typing import Any

import pytest

from sampling_throughput import judged, summary

EVERY_CORE = 2


@pytest.mark.parametrize(
    ("threads", "ratio", "met"),
    [
        (EVERY_CORE, 0.96, False),
        (EVERY_CORE, 0.99, True),
        (EVERY_CORE - 1, 0.99, False),
        (EVERY_CORE - 1, 0.996, True),
    ],
)
def test_the_median_of_on_over_off_is_judged_whatever_the_steps_say(
    threads: int, ratio: float, met: bool
) -> None:
    steps = 2.0 - ratio  # says the opposite
    row: dict[str, Any] = {"threads": threads, "by_steps": steps}
    (told,) = judged([summary({**row, "on": [ratio] * 9, "off": [1.0] * 9})], EVERY_CORE)
    assert told["median_ratio"] == pytest.approx(ratio)
    assert told["met"] is met
