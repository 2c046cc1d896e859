"""From time stamps and tokens to samples, and which devices are asked for them."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from llenergymeasure.core.backends.protocol import Request  # noqa: E402
from llenergymeasure.core.backends.pytorch.trace import (  # noqa: E402
    BatchTrace,
    BudgetCriterion,
    BurstClock,
    CudaStamps,
    HostStamps,
    PyTorchTrace,
    TokenClock,
)
from llenergymeasure.core.backends.shared.memory import CudaMemory  # noqa: E402
from llenergymeasure.units import MIB  # noqa: E402

EOS = 1
PAD = 0


def counting(values: list[int]):
    return iter(values).__next__


def traced(
    rows: list[list[int]],
    times: list[int],
    budgets: list[int] | None = None,
    *,
    searches: bool = False,
) -> tuple[Any, ...]:
    """Samples of one batch: 2 prompt tokens a row, and an answer each."""
    clock = TokenClock(counting(times))
    for _ in times:
        clock(None, None)
    stamps = HostStamps()
    stamps.start_ns = 5
    budgets = budgets or [len(row) for row in rows]
    batch = tuple(Request(n, (7, 7), budget) for n, budget in enumerate(budgets))
    output = torch.tensor([[7, 7, *row] for row in rows])
    trace = PyTorchTrace(3, 1, frozenset({EOS}), searches)
    trace.batches.append(BatchTrace(batch, stamps, clock, 2, output, 99))
    return trace.samples()


def test_a_row_ends_at_its_end_of_sequence_and_waits_for_the_batch():
    full, early = traced([[4, 4, 4, 4], [4, EOS, PAD, PAD]], [10, 20, 30, 40])

    assert (full.output_tokens, full.last_token_ns, full.finish) == (4, 40, "length")
    assert (early.output_tokens, early.last_token_ns, early.finish) == (2, 20, "stop")
    assert early.gaps_ns == (10,)
    assert full.delivered_ns == early.delivered_ns == 99
    assert full.executed_output_tokens == early.executed_output_tokens == 4
    assert (full.pass_index, full.issued_ns, full.scheduled_ns) == (3, 1, 5)


def test_a_row_ends_at_its_own_budget_though_others_go_on():
    short, long = traced([[4, 4, 4], [4, 4, 4]], [10, 20, 30], [1, 3])

    assert (short.output_tokens, short.first_token_ns, short.last_token_ns) == (1, 10, 10)
    assert short.gaps_ns == ()
    assert long.output_tokens == 3


def test_an_end_of_sequence_beyond_the_budget_is_not_the_reason_of_the_end():
    (sample,) = traced([[4, 4, EOS]], [10, 20, 30], [2])

    assert (sample.output_tokens, sample.finish) == (2, "length")


def test_a_search_goes_on_after_the_last_token_of_the_answer_it_finds():
    full, early = traced([[4, 4, 4, 4], [4, EOS, PAD, PAD]], [10, 20, 30, 40], searches=True)

    assert (early.output_tokens, early.finish) == (2, "stop")
    assert early.gaps_ns == full.gaps_ns == (10, 10, 10)
    assert early.last_token_ns == full.last_token_ns == 40
    assert early.gap_tokens is None


def test_one_token_each_is_told_by_leaving_the_sizes_out():
    (sample,) = traced([[4, 4, 4]], [10, 20, 35])

    assert sample.gaps_ns == (10, 15)
    assert sample.gap_tokens is None


def burst(lengths: list[int], row: list[int]) -> Any:
    clock = BurstClock(counting([10 * (n + 1) for n in range(len(lengths))]))
    for length in lengths:
        ended = clock(torch.zeros(1, 2 + length), None)
        assert not ended.any()
    trace = PyTorchTrace(0, 1, frozenset({EOS}))
    output = torch.tensor([[7, 7, *row]])
    batch = (Request(0, (7, 7), len(row)),)
    trace.batches.append(BatchTrace(batch, HostStamps(), clock, 2, output, 99, drafted=9))
    return trace.samples()[0]


def test_bursts_keep_their_sizes():
    sample = burst([3, 4, 8], [4] * 8)

    assert sample.output_tokens == 8
    assert sample.gaps_ns == (10, 10)
    assert sample.gap_tokens == (1, 4)
    assert (sample.drafted_tokens, sample.accepted_tokens) == (9, 2 + 0 + 3)


def test_a_burst_that_overshoots_the_end_of_sequence_counts_up_to_it():
    sample = burst([3, 8], [4, 4, 4, 4, EOS, 4, 4, 4])

    assert sample.output_tokens == 5
    assert sample.gap_tokens == (2,)
    assert sample.accepted_tokens == 2 + 1


def test_budgets_of_rows_hold_for_each_of_their_beams():
    criterion = BudgetCriterion(2, torch.tensor([1, 3]))

    assert criterion(torch.zeros(2, 3), None).tolist() == [True, False]
    assert criterion(torch.zeros(6, 4), None).tolist() == [True] * 3 + [False] * 3
    assert criterion(torch.zeros(6, 5), None).tolist() == [True] * 6


class RecordedCuda:
    """Stands in for ``torch.cuda``: streams with clocks of their own, and memory a device."""

    def __init__(self) -> None:
        self.clock_ms: dict[str, float] = defaultdict(float)
        self.synchronised: list[str] = []
        self.reset: list[str] = []

    def synchronize(self, device: str) -> None:
        self.synchronised.append(device)

    def current_stream(self, device: str) -> str:
        return device

    def Event(self, *, enable_timing: bool) -> Any:  # noqa: N802 - torch's name
        assert enable_timing
        cuda = self

        class Event:
            def record(self, stream: str) -> None:
                self.stream, self.at_ms = stream, cuda.clock_ms[stream]

            def elapsed_time(self, other: Any) -> float:
                assert self.stream == other.stream, "events of two devices cannot be compared"
                return other.at_ms - self.at_ms

        return Event()

    def reset_peak_memory_stats(self, device: str) -> None:
        self.reset.append(device)

    def memory_allocated(self, device: str) -> int:
        return {"cuda:0": 10, "cuda:2": 30}[device] * MIB

    def max_memory_allocated(self, device: str) -> int:
        return {"cuda:0": 15, "cuda:2": 70}[device] * MIB

    def get_device_properties(self, device: str) -> Any:
        return SimpleNamespace(total_memory={"cuda:0": 120, "cuda:2": 100}[device] * MIB)


def test_events_are_recorded_where_the_tokens_are_and_tied_to_the_host_clock():
    cuda = RecordedCuda()
    stamps = CudaStamps(SimpleNamespace(cuda=cuda), "cuda:1")
    marks = []
    for at_ms in (2.5, 4.0):
        cuda.clock_ms["cuda:1"] = at_ms
        marks.append(stamps.stamp())

    assert cuda.synchronised == ["cuda:1"]
    assert stamps.resolve(marks) == [stamps.start_ns + 2_500_000, stamps.start_ns + 4_000_000]


def test_memory_of_a_model_on_several_gpus_is_the_sum_over_them():
    cuda = RecordedCuda()
    memory = CudaMemory(SimpleNamespace(cuda=cuda), ["cuda:0", "cuda:2"])
    reading = memory.reading()

    assert cuda.reset == ["cuda:0", "cuda:2"]
    assert (reading.kind, reading.model_mb) == ("device", 40)
    assert (reading.peak_mb, reading.capacity_mb) == (85, 100)
