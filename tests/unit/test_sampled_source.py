"""The parent's side of sources that read in a process of their own, with a sampler in its place."""

from __future__ import annotations

import time
from typing import cast

from llenergymeasure.core.energy.estimator import EnergyEstimate
from llenergymeasure.core.energy.gpus import Grouped
from llenergymeasure.core.energy.sampled_source import Fault, MeteredSource
from llenergymeasure.core.energy.sampler import Recorded, SamplerProcess
from llenergymeasure.domain.energy import SamplingCost
from llenergymeasure.domain.samples import Window

COST = SamplingCost(reads=0, mean_read_ms=None, p99_read_ms=None, cpu_seconds=0.0)


class Sampler:
    """Says when it began, and records nothing."""

    def begin(self) -> None:
        self.begun_ns = time.monotonic_ns()

    def end(self) -> Recorded:
        return Recorded((), {"offered": ["GPU-a"]}, COST, Window(0, 1))


class Source(MeteredSource):
    """Keeps what it is given to make energy of."""

    name = "kept"
    settle_s, lead_s = 0.02, 0.01

    def energy(
        self, device: str, taken: Grouped, recorded: Recorded, window: Window
    ) -> EnergyEstimate | Fault:
        self.recorded = recorded
        return Fault("nothing was read")


def test_a_window_opens_after_settling_and_the_lead_and_what_came_before_does_not_count():
    sampler = Sampler()
    source = Source(cast(SamplerProcess, sampler))
    source.open_window()
    opened_ns = time.monotonic_ns()
    assert opened_ns - sampler.begun_ns >= 30_000_000
    source.close_window(Window(opened_ns, opened_ns + 1))
    rest_from_ns = source.recorded.rest_from_ns
    assert rest_from_ns - sampler.begun_ns >= 20_000_000
    assert opened_ns - rest_from_ns >= 10_000_000
