"""The figures that a study compares."""

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
