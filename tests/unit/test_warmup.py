"""Warm-up: how many batches, and which of their ends are looked at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import pytest

from llenergymeasure.config.models import WarmupConfig
from llenergymeasure.core.energy.none import NoSource
from llenergymeasure.core.energy.protocol import REST_S, Coverage, SamplingRates
from llenergymeasure.core.energy.selection import Selection
from llenergymeasure.domain.energy import Reading
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.results import WarmupResult
from llenergymeasure.domain.samples import WindowReadings
from llenergymeasure.orchestration.executor import Executor, WarmedUp
from llenergymeasure.orchestration.warmup import ENDS, warm_up


class Watching(NoSource):
    """Takes note of what it is told of ends."""

    def __init__(self, rest_s: float = 0.0) -> None:
        super().__init__(DeviceTarget("cpu"), SamplingRates())
        self._rest_s = rest_s
        self.asked: list[tuple[float | None, float]] = []
        self.ended_ns: list[int] = []

    def before_end(self, lasts_s: float | None, share: float) -> None:
        self.asked.append((lasts_s, share))

    def after_end(self, at_ns: int) -> Sequence[Reading]:
        self.ended_ns.append(at_ns)
        time.sleep(self._rest_s)
        return ()


class Batches:
    """An executor whose batches take some time and produce ten tokens."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.numbers: list[int] = []

    def warm_up(self, count: int, first: int = 0) -> WarmedUp:
        self.numbers += range(first, first + count)
        time.sleep(count * self._seconds)
        return WarmedUp(10 * count, time.monotonic_ns())


def warmed(
    source: NoSource,
    n_warmup: int,
    floor_s: float = 0.0,
    seconds: float = 0.001,
    *,
    watch: bool = True,
) -> tuple[WarmupResult, Batches]:
    selection = Selection(source, "nvml", "", Coverage("measured", ""))
    config = WarmupConfig(n_warmup=n_warmup, thermal_floor_seconds=floor_s)
    batches = Batches(seconds)
    kept: list[WindowReadings] = []
    result = warm_up(cast(Executor, batches), selection, config, kept.append, watch=watch)
    assert [one.name for one in kept] == ["warmup_end"] * result.watched_ends
    return result, batches


def test_the_ends_of_the_last_four_batches_are_looked_at_the_first_of_them_unaimed() -> None:
    source = Watching()
    result, batches = warmed(source, 6)
    assert (result.batches, result.output_tokens, result.watched_ends) == (6, 60, 4)
    assert batches.numbers == list(range(6))
    assert [share for _, share in source.asked] == list(ENDS)
    assert source.asked[0][0] is None, "nobody has told yet where ticks are"
    assert all(lasts_s == pytest.approx(0.001, abs=0.1) for lasts_s, _ in source.asked[1:])
    assert len(source.ended_ns) == 4


def test_of_fewer_batches_every_end_is_looked_at() -> None:
    source = Watching()
    result, _ = warmed(source, 2)
    assert (result.batches, result.watched_ends) == (2, 2)
    assert [share for _, share in source.asked] == list(ENDS[-2:])


def test_the_floor_asks_for_batches_and_the_last_four_ends_are_looked_at_with_their_rest() -> None:
    source = Watching(rest_s=REST_S)
    result, batches = warmed(source, 1, floor_s=3.0, seconds=0.05)
    assert 3.0 <= result.seconds < 3.0 + REST_S + 1.0
    assert result.batches == len(batches.numbers) > 8
    assert result.watched_ends == 4
    rest = "2 s of rest behind its last batches"
    assert result.thermal_floor == f"reached: 3 s under load, with {rest}"


def test_long_batches_are_not_run_for_their_ends_alone() -> None:
    source = Watching()
    result, _ = warmed(source, 3, floor_s=0.04, seconds=0.05)
    assert (result.batches, result.watched_ends) == (3, 2)


def test_without_a_source_that_looks_or_the_wish_to_no_end_is_looked_at() -> None:
    plain = NoSource(DeviceTarget("cpu"), SamplingRates())
    for result, batches in (warmed(plain, 3), warmed(Watching(), 3, watch=False)):
        assert (result.watched_ends, batches.numbers) == (0, [0, 1, 2])
