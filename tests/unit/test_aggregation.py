"""Pooling the raw samples of several processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.samples import MemoryKind, MemoryReading, RawProcessResult, Window
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results.aggregation import pool
from tests.support.make_result import make_process, make_sample


def _pair() -> list[RawProcessResult]:
    first = make_process(
        0,
        window=Window(100, 900),
        passes=(Window(100, 500), Window(500, 900)),
        requests=(make_sample(2, 1), make_sample(0, 1), make_sample(2, 0), make_sample(0, 0)),
    )
    second = make_process(
        1,
        window=Window(90, 950),
        passes=(Window(90, 480), Window(480, 950)),
        requests=(make_sample(1, 0), make_sample(1, 1)),
        energy=EnergyRecording("none"),
    )
    return [second, first]


def test_one_process_pools_to_itself() -> None:
    process = make_process()
    pooled = pool([process])
    assert (pooled.window, pooled.passes) == (process.window, process.passes)
    assert pooled.requests == process.requests
    assert pooled.memory == process.memory
    assert pooled.energy is process.energy


def test_window_and_passes_span_all_processes() -> None:
    pooled = pool(_pair())
    assert pooled.window == Window(90, 950)
    assert pooled.passes == (Window(90, 500), Window(480, 950))


def test_every_request_is_kept_in_order_of_pass_and_position() -> None:
    keys = [(sample.pass_index, sample.request) for sample in pool(_pair()).requests]
    assert keys == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("kind", "peak_mb", "model_mb"), [("device", 2500.0, 1500.0), ("resident_set", 4500.0, 3000.0)]
)
def test_resident_sets_add_up_and_of_devices_the_fullest_counts(
    kind: MemoryKind, peak_mb: float, model_mb: float
) -> None:
    shares = [
        replace(share, memory=MemoryReading(kind, 2000.0 + 500.0 * number, 1500.0, 81_920.0))
        for number, share in enumerate(_pair())
    ]
    assert pool(shares).memory == MemoryReading(kind, peak_mb, model_mb, 81_920.0)


def test_memory_that_one_process_does_not_know_is_unknown() -> None:
    first, second = make_process(0), make_process(1, range(2, 4))
    second = replace(second, memory=MemoryReading("device", None, 1500.0, None))
    assert pool([first, second]).memory == MemoryReading("device", None, 1500.0, 81_920.0)


def test_energy_is_the_recording_of_the_coordinator() -> None:
    shares = _pair()
    assert pool(shares).energy is shares[1].energy


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (make_process(0, range(2, 4)), "process_index: 0 is given 2 times"),
        (make_process(1, range(1, 3)), "request: 1 of pass 0 is in process 0 and .* process 1"),
        (
            make_process(1, range(2, 4), passes=(Window(0, 1), Window(1, 2))),
            "passes: 1 in process 0, 2 in process 1",
        ),
        (
            make_process(1, range(2, 4), memory=MemoryReading("resident_set")),
            "memory.kind: device in process 0, resident_set in process 1",
        ),
    ],
)
def test_shares_that_do_not_belong_together_are_refused(
    second: RawProcessResult, said: str
) -> None:
    with pytest.raises(ExperimentError, match=said):
        pool([make_process(), second])


def test_a_request_that_one_process_has_twice_is_refused() -> None:
    process = make_process(requests=())
    with pytest.raises(ExperimentError, match="request: 5 of pass 0"):
        pool([replace(process, requests=(make_sample(5), make_sample(5)))])


@pytest.mark.parametrize("shares", [[], [make_process(1)]])
def test_without_the_process_that_records_energy_nothing_is_pooled(
    shares: list[RawProcessResult],
) -> None:
    with pytest.raises(ExperimentError, match="there is no 0"):
        pool(shares)
