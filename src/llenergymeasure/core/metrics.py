"""Latency, throughput and energy figures, from raw samples.

Everything here is a function from data to data. Times of all passes and processes are pooled
before any statistic is taken. A failed request is counted and is in no average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from llenergymeasure.domain.co2 import CO2Estimate
from llenergymeasure.domain.energy import Energy, EnergyRecording, Idle
from llenergymeasure.domain.environment import EnvironmentSnapshot
from llenergymeasure.domain.results import (
    BaselineResult,
    Distribution,
    EnergyPhases,
    EnergyResult,
    LatencyResult,
    LoadResult,
    PassComparison,
    ThroughputResult,
)
from llenergymeasure.domain.samples import LatencyStart, RequestSample, Window
from llenergymeasure.units import JOULES_PER_KWH, NS_PER_MS

_AMORTISED = (
    "amortised: all energy of the window over its output tokens, and over its completed requests"
)
_DIFFERENTIAL = (
    f"{_AMORTISED}; prefill told from decode by a second window that produces one token a prompt"
)


def latency_result(
    samples: Sequence[RequestSample],
    start: LatencyStart = "scheduled",
    *,
    searches: bool = False,
) -> LatencyResult:
    """Pool the times of completed requests, all in ms.

    * TTFT: first token - start
    * TPOT: (last token - first token) / (output tokens - 1), of requests with two tokens or more
    * ITL: each gap between successive arrivals; a gap that delivered several tokens is one gap
    * E2E: last token - start
    * queue: scheduled - issued, or scheduled - due

    A request without one of the times is left out of the figures that need it; a figure without
    any request is ``None``.

    Args:
        samples: Every request of every pass.
        start: What a request's times count from. Offline everything is handed over at once, so its
            time in the queue says nothing, and they count from ``scheduled``. Under a load they
            count from ``due``, however late the request was handed over: what a user waits.
            Counting from later leaves out the waits that a slow server itself causes (coordinated
            omission, https://www.scylladb.com/2021/04/22/on-coordinated-omission/).
        searches: Whether answers were searched for with beams. None of their tokens is final before
            the search ends, so E2E is until an answer was handed back, and there is no TPOT; TTFT
            and ITL are of the steps of the search, where the engine tells them.
    """
    done = _completed(samples)
    due = start == "due"
    firsts = ((s.first_token_ns, s.due_ns if due else s.scheduled_ns) for s in done)
    lasts = (
        (s.delivered_ns if searches else s.last_token_ns, s.due_ns if due else s.scheduled_ns)
        for s in done
    )
    decoded = [
        (s.last_token_ns - s.first_token_ns) / (s.output_tokens - 1)
        for s in done
        if s.output_tokens > 1 and s.first_token_ns is not None and s.last_token_ns is not None
    ]
    queue = ((s.scheduled_ns, s.due_ns if due else s.issued_ns) for s in done)
    return LatencyResult(
        counted_from=start,
        ttft_ms=_distribution(_between_ns(firsts)),
        tpot_ms=None if searches else _distribution(decoded),
        itl_ms=_distribution(chain.from_iterable(s.gaps_ns for s in done if s.gaps_ns)),
        e2e_ms=_distribution(_between_ns(lasts)),
        queue_ms=_distribution(_between_ns(queue)),
    )


def throughput_result(  # noqa: PLR0913 - all that is told of the work meets here, by name
    samples: Sequence[RequestSample],
    window: Window,
    *,
    passes: int,
    prompts_truncated: int,
    pads: bool = True,
    stalled_s: float | None = None,
    suspended_s: float | None = None,
) -> ThroughputResult:
    """Count the work of completed requests and divide it by the window.

    Args:
        samples: Every request of every pass.
        window: From the first request to the end of the last.
        passes: Passes over the prompts in the window.
        prompts_truncated: Prompts cut to ``max_input_tokens``, of one pass.
        pads: Whether the engine works on padded batches; where not, padding waste is ``None``.
        stalled_s: How long nothing came of the work; see :mod:`~llenergymeasure.core.stalls`.
        suspended_s: How long the machine slept meanwhile.
    """
    done = _completed(samples)
    inputs = sum(s.input_tokens for s in done)
    outputs = sum(s.output_tokens for s in done)
    # Of prompts, and of rows that waited for their batch.
    computed = sum(s.computed_input_tokens + s.computed_output_tokens for s in done)
    drafts = [s for s in done if s.drafted_tokens is not None]
    drafted = sum(s.drafted_tokens or 0 for s in drafts) if drafts else None
    accepted = sum(s.accepted_tokens or 0 for s in drafts) if drafts else None
    return ThroughputResult(
        window_s=window.seconds,
        passes=passes,
        requests_completed=len(done),
        requests_failed=len(samples) - len(done),
        input_tokens=inputs,
        output_tokens=outputs,
        output_tokens_per_second=_ratio(outputs, window.seconds),
        total_tokens_per_second=_ratio(inputs + outputs, window.seconds),
        requests_per_second=_ratio(len(done), window.seconds),
        prompts_truncated=prompts_truncated,
        padding_waste=_ratio(computed - inputs - outputs, computed) if pads else None,
        drafted_tokens=drafted,
        accepted_tokens=accepted,
        acceptance_rate=_ratio(accepted, drafted),
        stalled_s=stalled_s,
        suspended_s=suspended_s,
    )


def energy_result(  # noqa: PLR0913 - every figure of energy meets here, by name
    recording: EnergyRecording,
    throughput: ThroughputResult,
    *,
    mean_e2e_s: float | None,
    selection_reason: str,
    scope: str,
    baseline: BaselineResult | None = None,
    phases: EnergyPhases | None = None,
    comparison: PassComparison | None = None,
) -> EnergyResult:
    """Relate the energy of the window to the work done in the same window.

    A figure whose numerator is unknown or whose denominator is nought or unknown is ``None``.

    Args:
        recording: What the energy source recorded over the window.
        throughput: Work done in the window.
        mean_e2e_s: Mean end-to-end time of completed requests, s.
        selection_reason: Why this source was read.
        scope: What the total covers.
        baseline: Power with the model resident and no work, where it was measured.
        phases: Prefill and decode apart, where that was asked for.
        comparison: How halves of the window compare.
    """
    work_j, window_s = recording.energy.total_j, throughput.window_s
    adjusted = Energy(None)
    if baseline is not None and baseline.loaded_idle_w is not None:
        idle = Idle(baseline.loaded_idle_w, baseline.loaded_idle_interval95_w)
        adjusted = recording.energy - idle.over(window_s)
    per_request_j = _ratio(work_j, throughput.requests_completed)
    edp_js = None
    if per_request_j is not None and mean_e2e_s is not None:
        edp_js = per_request_j * mean_e2e_s
    return EnergyResult(
        source=recording.source,
        selection_reason=selection_reason,
        kind=recording.kind,
        scope=scope,
        total_j=recording.total_j,
        interval95_j=recording.energy.half_j,
        stretch_s=recording.stretch_s,
        per_output_token_j=_ratio(work_j, throughput.output_tokens),
        per_accepted_token_j=_ratio(work_j, throughput.accepted_tokens),
        per_request_j=per_request_j,
        tokens_per_j=_ratio(throughput.output_tokens, work_j),
        mean_power_w=_ratio(work_j, window_s),
        edp_js=edp_js,
        adjusted_j=adjusted.total_j,
        adjusted_interval95_j=adjusted.half_j,
        attribution=_DIFFERENTIAL if phases else _AMORTISED,
        phases=phases,
        comparison=comparison,
        components=recording.components,
        sampling=recording.cost,
        flags=recording.flags,
        notes=recording.notes,
    )


def energy_phases(
    whole: EnergyRecording,
    passes: int,
    prefill: EnergyRecording,
    prefill_window: Window,
    prefill_passes: int,
) -> EnergyPhases:
    """Tell prefill from decode: a whole pass, less a pass of the same prompts with one token each.

    Args:
        whole: Energy of the measured window.
        passes: Passes in it.
        prefill: Energy of the prefill-only window.
        prefill_window: That window.
        prefill_passes: Passes in it.
    """
    prefill_pass = prefill.energy / prefill_passes
    decode_pass = whole.energy / passes - prefill_pass
    return EnergyPhases(
        prefill_j=prefill_pass.total_j,
        prefill_interval95_j=prefill_pass.half_j,
        decode_j=decode_pass.total_j,
        decode_interval95_j=decode_pass.half_j,
        prefill_window_s=prefill_window.seconds,
        prefill_passes=prefill_passes,
    )


def load_result(recording: EnergyRecording, window: Window) -> LoadResult:
    """Say what loading the model took.

    Args:
        recording: Energy of the window.
        window: From asking for the model until it was ready.
    """
    return LoadResult(
        seconds=window.seconds,
        energy_j=recording.energy.total_j,
        interval95_j=recording.energy.half_j,
        kind=recording.kind,
        source=recording.source,
    )


def estimate_co2(
    energy_j: float | None, place: EnvironmentSnapshot, codecarbon_grams: float | None = None
) -> CO2Estimate:
    """Estimate emissions: ``energy_kwh x PUE x carbon intensity``, in grams of CO2 equivalent.

    Args:
        energy_j: Energy of the window, J.
        place: Where it was used; without its carbon intensity no emissions are known.
        codecarbon_grams: CodeCarbon's own figure, where it was the source.
    """
    grams, intensity_gco2_kwh = None, place.carbon_intensity_gco2_kwh
    if energy_j is not None and intensity_gco2_kwh is not None:
        grams = energy_j / JOULES_PER_KWH * place.datacenter_pue * intensity_gco2_kwh
    return CO2Estimate(
        co2_grams=grams,
        carbon_intensity_gco2_kwh=intensity_gco2_kwh,
        carbon_intensity_source=place.carbon_intensity_source,
        datacenter_pue=place.datacenter_pue,
        datacenter_pue_source=place.datacenter_pue_source,
        codecarbon_grams=codecarbon_grams,
    )


def _completed(samples: Sequence[RequestSample]) -> list[RequestSample]:
    return [sample for sample in samples if sample.finish != "failed"]


def _between_ns(times: Iterable[tuple[int | None, int | None]]) -> Iterator[float]:
    return (at - since for at, since in times if at is not None and since is not None)


def _distribution(values_ns: Iterable[float]) -> Distribution | None:
    import numpy as np

    values_ms = np.fromiter(values_ns, np.float64) / NS_PER_MS  # (samples,)
    if not values_ms.size:
        return None
    low, p50, p90, p95, p99, high = np.percentile(values_ms, (0, 50, 90, 95, 99, 100)).tolist()
    return Distribution(
        count=values_ms.size,
        mean=float(values_ms.mean()),
        minimum=low,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        maximum=high,
    )


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return numerator / denominator if numerator is not None and denominator else None
