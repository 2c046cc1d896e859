"""The parent's side of sources that read in a process of their own, with a sampler in its place."""

from __future__ import annotations

import time
from typing import cast

import pytest

from llenergymeasure.core.energy.estimator import EnergyEstimate
from llenergymeasure.core.energy.gpus import Grouped
from llenergymeasure.core.energy.nvml import GUARD_S, NVMLSource
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER, POWER
from llenergymeasure.core.energy.protocol import REST_S, SamplingRates
from llenergymeasure.core.energy.sampled_source import (
    SLOW_GUARD_S,
    Fault,
    GPUSource,
    MeteredSource,
)
from llenergymeasure.core.energy.sampler import Recorded, SamplerProcess
from llenergymeasure.core.energy.zeus import LEAD_S, TAIL_S, ZeusSource
from llenergymeasure.domain.energy import Reading, SamplingCost
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

COST = SamplingCost(reads=0, mean_read_ms=None, p99_read_ms=None, cpu_seconds=0.0)


class Sampler:
    """Says when it began, and records the reading that it began with."""

    def begin(self) -> None:
        self.begun_ns = time.monotonic_ns()

    def end(self) -> Recorded:
        first = Reading(COUNTER, "GPU-a", self.begun_ns, self.begun_ns, 0.0)
        return Recorded((first,), {"offered": ["GPU-a"]}, COST, Window(0, 1))


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


class Offering(Sampler):
    """Starts, and tells what a device offers."""

    def __init__(self, *channels: str) -> None:
        self.offered = {"GPU-a": list(channels)}

    def start(self) -> None:
        pass

    def end(self) -> Recorded:
        return Recorded((), {"offered": self.offered}, COST, Window(0, 1))


@pytest.mark.parametrize("slow", [[AVERAGE_POWER], [POWER], [POWER, AVERAGE_POWER]])
@pytest.mark.parametrize(
    ("make", "usual_s"), [(NVMLSource, (GUARD_S, GUARD_S)), (ZeusSource, (LEAD_S, TAIL_S))]
)
def test_power_without_a_counter_is_read_for_longer_around_the_very_first_window(
    make: type[GPUSource], usual_s: tuple[float, float], slow: list[str]
) -> None:
    def guards_s(*channels: str) -> tuple[float, float]:
        sampler = cast(SamplerProcess, Offering(*channels))
        source = make(DeviceTarget("gpu", ("GPU-a",)), SamplingRates(), sampler)
        source.start()
        return source.lead_s, source.tail_s

    assert guards_s(*slow) == (SLOW_GUARD_S, SLOW_GUARD_S)
    assert guards_s(COUNTER, *slow) == usual_s


class Counting(Sampler):
    """Records a counter of 100 ms ticks, read every 5 ms, of 100 W throughout."""

    def end(self) -> Recorded:
        now_ns = time.monotonic_ns()
        times_ns = range(self.begun_ns, now_ns, 5_000_000)
        rows = tuple(
            Reading(COUNTER, "GPU-a", at, at, 1e6 + at // 100_000_000 * 10_000.0) for at in times_ns
        )
        summary = {
            "offered": {"GPU-a": [COUNTER]},
            "refused": {"GPU-a": {}},
            "failing": {"GPU-a": {}},
            "processes": {},
            "host_pids": True,
        }
        return Recorded(rows, summary, COST, Window(self.begun_ns, now_ns))


def test_ends_of_warm_up_batches_are_read_with_rest_behind_them_and_kept_apart() -> None:
    source = NVMLSource(
        DeviceTarget("gpu", ("GPU-a",)), SamplingRates(), cast(SamplerProcess, Counting())
    )
    for _ in range(2):
        source.before_end(0.03, 0.25)
        time.sleep(0.03)
        ended_ns = time.monotonic_ns()
        read = source.after_end(ended_ns)
        assert time.monotonic_ns() - ended_ns >= REST_S * 1e9
        assert read[0].before_ns < ended_ns < read[-1].before_ns
    source.open_window()
    t0_ns = time.monotonic_ns()
    time.sleep(0.3)
    made = source.close_window(Window(t0_ns, time.monotonic_ns()))
    assert made.readings[0].before_ns > ended_ns, "a window's own readings are those around it"
