"""Figures from raw samples, checked against sums done by hand and against numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.core.metrics import (
    energy_phases,
    energy_result,
    latency_result,
    throughput_result,
)
from llenergymeasure.domain.energy import EnergyComponent, EnergyKind, EnergyRecording
from llenergymeasure.domain.results import BaselineResult, EnergyResult, ThroughputResult
from llenergymeasure.domain.samples import RequestSample, Window

MS = 1_000_000

# Issued at 10 ms, scheduled at 15, tokens at 35, 45, 50 and 65 ms.
SAMPLE = RequestSample(
    request=0,
    pass_index=0,
    batch_index=0,
    input_tokens=6,
    padded_input_tokens=8,
    output_tokens=4,
    executed_output_tokens=6,
    issued_ns=10 * MS,
    scheduled_ns=15 * MS,
    first_token_ns=35 * MS,
    last_token_ns=65 * MS,
    delivered_ns=80 * MS,
    gaps_ns=(10 * MS, 5 * MS, 15 * MS),
)
FAILED = replace(
    SAMPLE, finish="failed", first_token_ns=None, last_token_ns=None, gaps_ns=None, error="broke"
)
WINDOW = Window(0, 2_000 * MS)


def throughput(
    *samples: RequestSample, window: Window = WINDOW, pads: bool = True
) -> ThroughputResult:
    return throughput_result(samples, window, passes=1, prompts_truncated=0, pads=pads)


def recording(
    joules: float | None, kind: EnergyKind = "measured", interval: float | None = 2.0
) -> EnergyRecording:
    part = EnergyComponent(name="gpu", energy_j=joules, kind=kind, method="counter", in_scope=True)
    return EnergyRecording("test", (part,), interval)


def energy(
    source: EnergyRecording,
    work: ThroughputResult,
    mean_e2e_s: float | None = 0.05,
    loaded_idle_w: float | None = None,
    idle_interval95_w: float | None = None,
) -> EnergyResult:
    baseline = BaselineResult(
        device_idle_w=None,
        loaded_idle_w=loaded_idle_w,
        loaded_idle_interval95_w=idle_interval95_w,
        duration_s=1.0,
        skipped=None,
    )
    return energy_result(
        source,
        work,
        mean_e2e_s=mean_e2e_s,
        selection_reason="asked for",
        scope="one GPU",
        baseline=baseline,
    )


def test_the_times_of_one_request_are_those_of_their_definitions() -> None:
    latency = latency_result([SAMPLE])
    assert latency.ttft_ms
    assert latency.ttft_ms.p50 == 20
    assert latency.queue_ms
    assert latency.queue_ms.p50 == 5
    assert latency.e2e_ms
    assert latency.e2e_ms.p50 == 50
    assert latency.tpot_ms
    assert latency.tpot_ms.p50 == 10
    itl = latency.itl_ms
    assert itl
    assert (itl.count, itl.mean, itl.minimum, itl.p50, itl.maximum) == (3, 10, 5, 10, 15)


def test_a_request_of_one_token_has_no_time_per_output_token() -> None:
    single = replace(SAMPLE, output_tokens=1, last_token_ns=SAMPLE.first_token_ns, gaps_ns=())
    latency = latency_result([single])
    assert latency.tpot_ms is None
    assert latency.itl_ms is None
    assert latency.e2e_ms
    assert latency.e2e_ms.count == 1


def test_without_token_times_there_is_no_inter_token_latency() -> None:
    assert latency_result([replace(SAMPLE, gaps_ns=None)]).itl_ms is None


def test_a_gap_that_delivered_several_tokens_is_one_gap() -> None:
    burst = replace(SAMPLE, output_tokens=9, gap_tokens=(4, 1, 3))
    itl = latency_result([burst]).itl_ms
    assert itl
    assert itl.count == 3


def test_a_failed_request_is_counted_and_is_in_no_average() -> None:
    mixed = [SAMPLE, replace(FAILED, scheduled_ns=10_000 * MS), SAMPLE]
    assert latency_result(mixed) == latency_result([SAMPLE, SAMPLE])
    work = throughput(*mixed)
    assert (work.requests_completed, work.requests_failed) == (2, 1)
    assert (work.input_tokens, work.output_tokens) == (12, 8)


def test_of_a_search_e2e_is_until_the_answer_was_handed_back_and_there_is_no_tpot() -> None:
    """Its last step but one gave the last token of the answer; nobody knew until its end."""
    latency = latency_result([SAMPLE], searches=True)
    assert latency.e2e_ms
    assert latency.e2e_ms.p50 == 65, "from scheduled at 15 ms to delivered at 80 ms"
    assert latency.tpot_ms is None
    assert latency.ttft_ms == latency_result([SAMPLE]).ttft_ms


def test_of_a_search_without_times_of_steps_e2e_is_known() -> None:
    untold = replace(SAMPLE, first_token_ns=None, last_token_ns=None, gaps_ns=None)
    latency = latency_result([untold], searches=True)
    assert latency.e2e_ms
    assert latency.e2e_ms.p50 == 65
    assert (latency.ttft_ms, latency.tpot_ms, latency.itl_ms) == (None, None, None)


def test_drafted_and_accepted_tokens_are_those_of_completed_requests() -> None:
    told = replace(SAMPLE, drafted_tokens=10, accepted_tokens=3)
    more = replace(SAMPLE, drafted_tokens=5, accepted_tokens=0)
    work = throughput(told, more, replace(told, finish="failed"))
    assert (work.drafted_tokens, work.accepted_tokens) == (15, 3)
    assert work.acceptance_rate == pytest.approx(0.2)
    assert energy(recording(60.0), work).per_accepted_token_j == pytest.approx(20.0)


def test_without_drafts_nothing_is_accepted_and_no_rate_is_nought() -> None:
    work = throughput(SAMPLE)
    assert (work.drafted_tokens, work.accepted_tokens, work.acceptance_rate) == (None, None, None)
    assert energy(recording(60.0), work).per_accepted_token_j is None
    rejected = throughput(replace(SAMPLE, drafted_tokens=8, accepted_tokens=0))
    assert rejected.acceptance_rate == 0.0
    assert energy(recording(60.0), rejected).per_accepted_token_j is None


def test_percentiles_are_of_the_pooled_samples() -> None:
    spans_ms = np.random.default_rng(3).permutation(np.arange(1, 202)) * 1.5
    samples = [
        replace(SAMPLE, pass_index=i % 2, first_token_ns=15 * MS + int(span * MS))
        for i, span in enumerate(spans_ms)
    ]
    ttft = latency_result(samples).ttft_ms
    assert ttft
    expected = np.percentile(spans_ms, (50, 90, 95, 99))
    assert (ttft.p50, ttft.p90, ttft.p95, ttft.p99) == pytest.approx(tuple(expected))
    assert ttft.count == 201
    assert ttft.mean == pytest.approx(spans_ms.mean())


@given(st.lists(st.integers(0, 10**13), min_size=1, max_size=50))
def test_the_figures_of_a_distribution_are_in_order(spans_ns: list[int]) -> None:
    samples = [replace(SAMPLE, issued_ns=0, scheduled_ns=span) for span in spans_ns]
    queue = latency_result(samples).queue_ms
    assert queue
    figures = [queue.minimum, queue.p50, queue.p90, queue.p95, queue.p99, queue.maximum]
    assert figures == sorted(figures)
    assert figures[0] == min(spans_ns) / MS
    assert figures[-1] == max(spans_ns) / MS


def test_under_a_load_times_count_from_when_a_request_was_due() -> None:
    """Requests come every 10 ms, each takes 30: the third waits for 40 and is served in 30."""
    load = [
        replace(
            SAMPLE,
            due_ns=10 * MS * number,
            issued_ns=30 * MS * number,  # a client that waits for answers comes late itself
            scheduled_ns=30 * MS * number,
            first_token_ns=30 * MS * number + 20 * MS,
            last_token_ns=30 * MS * number + 30 * MS,
        )
        for number in range(3)
    ]
    waited, served = latency_result(load, "due"), latency_result(load)
    assert (waited.counted_from, served.counted_from) == ("due", "scheduled")
    for found, most_ms in ((waited, (60, 70, 40)), (served, (20, 30, 0))):
        times = (found.ttft_ms, found.e2e_ms, found.queue_ms)
        assert tuple(one.maximum for one in times if one is not None) == most_ms
    assert waited.tpot_ms == served.tpot_ms


def test_requests_without_a_due_time_have_no_latency_from_it() -> None:
    found = latency_result([SAMPLE], "due")
    assert (found.ttft_ms, found.e2e_ms, found.queue_ms) == (None, None, None)


def test_what_an_engine_does_not_tell_of_padding_counts_as_none() -> None:
    silent = replace(SAMPLE, padded_input_tokens=None, executed_output_tokens=None)
    assert throughput(silent).padding_waste == 0


def test_nothing_completed_gives_no_figures() -> None:
    for samples in ([], [FAILED]):
        found = latency_result(samples).model_dump(exclude={"counted_from"})
        assert set(found.values()) == {None}
    work = throughput(FAILED)
    assert work.output_tokens_per_second == 0
    assert work.padding_waste is None


def test_throughput_is_over_the_window() -> None:
    work = throughput(SAMPLE, SAMPLE)
    assert (work.window_s, work.requests_per_second) == (2.0, 1.0)
    assert (work.output_tokens_per_second, work.total_tokens_per_second) == (4.0, 10.0)


def test_a_window_without_length_gives_no_rates() -> None:
    work = throughput(SAMPLE, window=Window(5, 5))
    rates = (work.output_tokens_per_second, work.total_tokens_per_second, work.requests_per_second)
    assert rates == (None, None, None)


def test_padding_waste_is_padding_over_all_tokens_computed() -> None:
    assert throughput(SAMPLE).padding_waste == pytest.approx((2 + 2) / (8 + 6))
    tight = replace(SAMPLE, padded_input_tokens=6, executed_output_tokens=4)
    assert throughput(tight).padding_waste == 0
    assert throughput(SAMPLE, pads=False).padding_waste is None


def test_energy_is_related_to_the_work_of_the_same_window() -> None:
    figures = energy(recording(80.0), throughput(SAMPLE, SAMPLE), 0.05, loaded_idle_w=15.0)
    assert figures.per_output_token_j == 10
    assert figures.per_request_j == 40
    assert figures.tokens_per_j == pytest.approx(0.1)
    assert figures.mean_power_w == 40
    assert figures.edp_js == pytest.approx(2.0)
    assert figures.adjusted_j == 50
    assert (figures.kind, figures.interval95_j, figures.scope) == ("measured", 2.0, "one GPU")
    assert figures.attribution.startswith("amortised")


def test_adjusted_energy_is_never_clipped() -> None:
    assert energy(recording(80.0), throughput(SAMPLE), loaded_idle_w=50.0).adjusted_j == -20


def test_the_interval_above_idle_holds_that_of_the_baseline() -> None:
    figures = energy(
        recording(80.0), throughput(SAMPLE), loaded_idle_w=15.0, idle_interval95_w=0.75
    )
    assert figures.adjusted_interval95_j == pytest.approx(2.5), "2 J and 0.75 W over 2 s"
    assert (
        energy(recording(80.0), throughput(SAMPLE), loaded_idle_w=1.0).adjusted_interval95_j is None
    )


def test_without_a_baseline_there_is_no_adjusted_energy() -> None:
    assert energy(recording(80.0), throughput(SAMPLE)).adjusted_j is None


def test_modelled_energy_has_no_interval() -> None:
    figures = energy(recording(80.0, "modelled"), throughput(SAMPLE))
    assert (figures.kind, figures.total_j, figures.interval95_j) == ("modelled", 80.0, None)


@pytest.mark.parametrize("source", [recording(None), EnergyRecording("none")])
def test_unknown_energy_is_none_everywhere_and_never_nought(source: EnergyRecording) -> None:
    figures = energy(source, throughput(SAMPLE), loaded_idle_w=15.0)
    assert figures.kind == "unmeasurable"
    values = figures.model_dump(
        include={name for name in EnergyResult.model_fields if "_j" in name}
    )
    assert len(values) >= 6
    assert set(values.values()) == {None}
    assert figures.mean_power_w is None


def test_energy_without_work_has_a_total_and_no_ratios() -> None:
    figures = energy(recording(80.0), throughput(FAILED), mean_e2e_s=None)
    assert (figures.total_j, figures.mean_power_w) == (80, 40)
    assert (figures.per_output_token_j, figures.per_request_j, figures.edp_js) == (None, None, None)


def test_decode_energy_is_a_pass_less_its_prefill() -> None:
    phases = energy_phases(recording(90.0), 3, recording(40.0), Window(0, 4_000 * MS), 4)
    assert (phases.prefill_j, phases.decode_j) == (10.0, 20.0)
    assert (phases.prefill_window_s, phases.prefill_passes) == (4.0, 4)
    figures = energy_result(
        recording(90.0),
        throughput(SAMPLE),
        mean_e2e_s=None,
        selection_reason="asked for",
        scope="one GPU",
        phases=phases,
    )
    assert figures.phases == phases
    assert "second window" in figures.attribution


def test_the_interval_of_decode_is_that_of_a_difference() -> None:
    whole = replace(recording(90.0), interval_j=9.0)
    prefill = replace(recording(40.0), interval_j=16.0)
    phases = energy_phases(whole, 3, prefill, WINDOW, 4)
    assert (phases.prefill_interval95_j, phases.decode_interval95_j) == (4.0, 5.0)


def test_the_interval_of_decode_needs_both_windows() -> None:
    prefill = replace(recording(40.0), interval_j=16.0)
    phases = energy_phases(recording(90.0, interval=None), 3, prefill, WINDOW, 4)
    assert (phases.prefill_interval95_j, phases.decode_interval95_j) == (4.0, None)


def test_phases_of_unknown_energy_are_unknown() -> None:
    phases = energy_phases(recording(None), 1, recording(40.0), WINDOW, 1)
    assert (phases.prefill_j, phases.decode_j) == (40.0, None)


def test_the_gaps_of_many_requests_are_pooled() -> None:
    latency = latency_result([SAMPLE] * 1000)
    assert latency.itl_ms
    assert latency.itl_ms.count == 3000
