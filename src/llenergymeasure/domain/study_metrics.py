"""The figures that a study compares, and what of an energy figure is common to its windows."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """One figure of an experiment that a study compares.

    Attributes:
        name: Headline field of ``ExperimentResult``.
        title: What a table calls it.
        unit: Its unit.
        best_is_low: Whether a low figure is the better one.
    """

    name: str
    title: str
    unit: str
    best_is_low: bool = True


ENERGY_PER_TOKEN = Metric("energy_per_output_token_j", "energy per output token", "J")
ENERGY = Metric("energy_total_j", "energy of the window", "J")
THROUGHPUT = Metric("tokens_per_second", "throughput", "tokens/s", best_is_low=False)
TTFT = Metric("ttft_ms", "TTFT, median", "ms")
TPOT = Metric("tpot_ms", "TPOT, median", "ms")
MEMORY = Metric("peak_memory_mb", "peak memory", "MiB")

METRICS = (ENERGY_PER_TOKEN, ENERGY, THROUGHPUT, TTFT, TPOT, MEMORY)
ENERGY_METRICS = frozenset({ENERGY_PER_TOKEN.name, ENERGY.name})

# Lines of an energy budget that come from what is assumed of the sensor (its lag at the edges, its
# averaging window, load in step with it) and of tails. They are alike in every window; the others
# vary from window to window, so the spread between cycles shows them already.
COMMON_LINES = frozenset(
    {
        "level_step_times_edge_time",
        "averaging_window",
        "aliased_load",
        "known_tail",
        "unseen_tail",
    }
)
