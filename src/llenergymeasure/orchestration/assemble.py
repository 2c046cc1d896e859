"""From what was measured to an :class:`ExperimentResult`: pool raw samples, then derive figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from llenergymeasure.config.names import RANDOM_PREFIX
from llenergymeasure.core import flops, metrics, stalls, trust
from llenergymeasure.core.models.counted import Counted
from llenergymeasure.core.peaks import peak_of
from llenergymeasure.core.workload import departures, other_arithmetic
from llenergymeasure.domain.environment import DeviceState, EnvironmentSnapshot
from llenergymeasure.domain.results import (
    Distribution,
    EnergyResult,
    ExperimentResult,
    FlopsResult,
    LatencyResult,
    MemoryResult,
    ModelInfo,
    MultiGPUResult,
    ResolvedSettings,
    ThermalResult,
    ThroughputResult,
    TrustVerdict,
    WindowInfo,
    warning_codes,
)
from llenergymeasure.domain.samples import RawProcessResult
from llenergymeasure.orchestration.orchestrator import Measurement
from llenergymeasure.results.aggregation import PooledSamples, pool


@dataclass(frozen=True, slots=True)
class ResultCollector:
    """Derives every figure of a result from the pooled samples of all processes.

    Attributes:
        first: What the coordinating process measured.
        environment: What it ran on.
    """

    first: Measurement
    environment: EnvironmentSnapshot

    def __call__(self, processes: Sequence[RawProcessResult]) -> ExperimentResult:
        """Pool the samples, then compute every figure from the pool."""
        first, pooled = self.first, pool(processes)
        config, grams = first.order.config, pooled.energy.codecarbon_grams
        latency = self._latency(pooled)
        throughput = self._throughput(processes, pooled)
        energy = self._energy(pooled, throughput, latency.e2e_ms)
        work = self._flops(processes, pooled)
        verdict = self._trust(pooled, throughput)
        return ExperimentResult(
            measurement_config_hash=config.fingerprint(),
            place=first.order.place,
            config=config,
            resolved=_resolved(first),
            window=self._window(pooled),
            energy_total_j=energy.total_j,
            energy_per_output_token_j=energy.per_output_token_j,
            energy_adjusted_j=energy.adjusted_j,
            tokens_per_second=throughput.output_tokens_per_second,
            ttft_ms=latency.ttft_ms.p50 if latency.ttft_ms else None,
            tpot_ms=latency.tpot_ms.p50 if latency.tpot_ms else None,
            peak_memory_mb=pooled.memory.peak_mb,
            flops_total=work.useful_total if work else None,
            energy=energy,
            latency=latency,
            throughput=throughput,
            memory=MemoryResult(**asdict(pooled.memory)),
            flops=work,
            load=first.load,
            warmup=first.warmup,
            baseline=first.baseline,
            thermal=_thermal(pooled.energy.device_state),
            device_state=pooled.energy.device_state,
            cpu_load=first.measured.cpu_load,
            cpu_throttling=first.measured.cpu_throttling,
            multi_gpu=self._multi_gpu(),
            co2_estimate=metrics.estimate_co2(energy.total_j, self.environment, grams),
            environment=self.environment,
            trust=verdict,
            measurement_warnings=warning_codes(verdict),
            reproducibility_notes=tuple(_notes(first, pooled)),
        )

    def _latency(self, pooled: PooledSamples) -> LatencyResult:
        beams = self.first.order.config.decoder.decoding_strategy == "beam"
        start = self.first.work.latency_start
        return metrics.latency_result(pooled.requests, start, searches=beams)

    def _multi_gpu(self) -> MultiGPUResult | None:
        devices = self.first.target.gpu_uuids
        if len(devices) < 2:
            return None
        known = {part.name: part.energy_j for part in self.first.raw.energy.components}
        return MultiGPUResult(devices=devices, energy_j={uuid: known.get(uuid) for uuid in devices})

    def _window(self, pooled: PooledSamples) -> WindowInfo:
        return WindowInfo(
            t0_ns=pooled.window.t0_ns,
            t1_ns=pooled.window.t1_ns,
            started_at=self.first.measured.started_at.isoformat(timespec="milliseconds"),
            pass_seconds=tuple(one.seconds for one in pooled.passes),
        )

    def _throughput(
        self, processes: Sequence[RawProcessResult], pooled: PooledSamples
    ) -> ThroughputResult:
        warm = self.first.warmup.batches > 0
        each = [stalls.stalled_s(one, warm=warm) for one in processes]
        slept = [one.suspended_s for one in processes]
        return metrics.throughput_result(
            pooled.requests,
            pooled.window,
            passes=len(pooled.passes),
            prompts_truncated=self.first.work.truncated,
            pads=self.first.report.pads,
            stalled_s=max((one for one in each if one is not None), default=None),
            suspended_s=max((one for one in slept if one is not None), default=None),
        )

    def _energy(
        self, pooled: PooledSamples, throughput: ThroughputResult, e2e_ms: Distribution | None
    ) -> EnergyResult:
        first, prefill = self.first, self.first.prefill
        reason, named = first.selection.reason, first.order.energy_backend
        if named != first.order.config.energy_backend:
            setting = f"measurement.energy_backend: {named} of the user configuration"
            reason = f"{setting} decides: {reason}"
        phases = None
        if prefill is not None:
            parts = (prefill.energy, prefill.window, len(prefill.passes))
            phases = metrics.energy_phases(pooled.energy, len(pooled.passes), *parts)
        return metrics.energy_result(
            pooled.energy,
            throughput,
            mean_e2e_s=e2e_ms.mean / 1e3 if e2e_ms else None,
            selection_reason=reason,
            scope=first.selection.coverage.scope,
            baseline=first.baseline,
            phases=phases,
            comparison=first.measured.comparison,
        )

    def _flops(
        self, processes: Sequence[RawProcessResult], pooled: PooledSamples
    ) -> FlopsResult | None:
        report, config = self.first.report, self.first.order.config
        shape, beams = report.architecture, config.decoder.num_beams or 1
        if shape is None or report.doubt is not None:
            return None
        gpus, used = self.environment.gpus, self.first.target.gpu_uuids
        kinds = {gpu.name for gpu in gpus if gpu.uuid in used}
        peak = peak_of(kinds.pop() if len(kinds) == 1 else None)
        tokens = flops.RequestTokens.from_samples(pooled.requests)
        work = flops.count_operations(shape, tokens, beams, flops.Execution.of(report.resolved))
        seconds, devices = pooled.window.seconds, report.compute_devices
        # A step of speculative decoding gives several tokens, so tokens do not tell steps.
        steps_told = report.pads and not config.decoder.speculative_decoding
        each = (flops.static_traffic(one.requests, beams) for one in processes if steps_told)
        traffic = [one for one in each if one is not None]
        mfu_share = flops.mfu(work.useful_total, seconds, peak, config.precision, devices)
        return flops.flops_result(
            work,
            # Work that a prefix cache saved was not done in the window's time.
            mfu_share=None if _cached_tokens(pooled) else mfu_share,
            mbu_share=flops.mbu(shape, traffic, peak, config.precision, devices // len(processes)),
            peak=peak,
        )

    def _trust(self, pooled: PooledSamples, throughput: ThroughputResult) -> TrustVerdict:
        first = self.first
        found = first.selection.name != "none"
        return trust.assess(
            trust.Evidence(
                throughput=throughput,
                batches=first.work.batches,
                weights=first.report.weights,
                energy_asked=found,
                energy=pooled.energy,
                target=first.target,
                no_source=(
                    None
                    if found or first.order.energy_backend == "none"
                    else first.selection.reason
                ),
                reference_c=first.order.reference_start_c,
                comparison=first.measured.comparison,
                baseline=first.baseline,
                cpu_load=first.measured.cpu_load,
                cpu_throttling=first.measured.cpu_throttling,
                prefix_cache_hits=sum(
                    bool(sample.cached_input_tokens) for sample in pooled.requests
                ),
                locks_lost=first.locks_lost,
            )
        )


def _cached_tokens(pooled: PooledSamples) -> int:
    return sum(sample.cached_input_tokens or 0 for sample in pooled.requests)


def _resolved(first: Measurement) -> ResolvedSettings:
    report = first.report
    shape = report.architecture if report.doubt is None else None
    analytic = shape and Counted(shape.parameters, shape.parameters, shape.parameters_active)
    held = report.counted or analytic
    return ResolvedSettings(
        backend=report.resolved,
        model=ModelInfo(
            name=first.order.config.model,
            weights=report.weights,
            commit=report.model_commit,
            doubt=report.doubt,
            tokenizer_sha256=report.tokenizer_sha256,
            parameters=held and held.total,
            parameters_active=held and held.active,
            parameters_source=held and ("counted" if report.counted else "analytic"),
        ),
        dataset=first.work.dataset,
        energy_source=first.selection.name,
        runner=first.order.runner,
        start_method=first.order.start_method,
        start_reason=first.order.start_reason,
        session=first.order.session,
        inputs=dict(first.work.inputs),
    )


def _thermal(devices: Sequence[DeviceState]) -> ThermalResult | None:
    starts = {one.device: one.start_c for one in devices if one.start_c is not None}
    ends = [one.end_c for one in devices if one.end_c is not None]
    if not starts and not ends:
        return None
    return ThermalResult(
        start_c=max(starts.values(), default=None),
        end_c=max(ends, default=None),
        device_start_c=starts,
    )


def _notes(first: Measurement, pooled: PooledSamples) -> Iterator[str]:
    config = first.order.config
    yield from first.report.notes
    if (doubt := first.report.doubt) is not None:
        yield f"FLOPs, MFU and MBU are null: {doubt}"
    if cached := _cached_tokens(pooled):
        yield (
            f"{cached} prompt tokens were in the engine's prefix cache and not computed: executed "
            "FLOPs leave them out, and mfu is null"
        )
    yield from departures(pooled.requests, first.work.asked, ignores_eos=config.ignores_eos)
    if (other := other_arithmetic(config.precision, first.report.resolved)) is not None:
        yield other
    if config.decoder.draft_model is not None:
        yield from _of_drafts(first, pooled)
    if first.report.weights == "random":
        own = first.report.own_weight_seed
        seed = "a seed of the engine's own" if own else f"seed {config.random_seed}"
        yield f"weights are random, {seed}"
    if config.decoder.decoding_strategy == "sampling":
        yield f"tokens are sampled, seed {config.random_seed}"


def _of_drafts(first: Measurement, pooled: PooledSamples) -> Iterator[str]:
    """Say what an acceptance rate is worth, and where there is none."""
    config = first.order.config
    draft = config.decoder.draft_model or ""
    if all(one.drafted_tokens is None for one in pooled.requests):
        yield "the engine does not tell how many tokens were drafted and accepted"
    is_random = draft.startswith(RANDOM_PREFIX)
    if draft == config.model and is_random and config.lora is None:
        yield (
            "model and drafting model have the same random weights, by shape and seed, so that all "
            "drafts are accepted, but for rounding: the most that drafting can save"
        )
    elif draft != config.model and (is_random or first.report.weights == "random"):
        yield (
            "model and drafting model have nothing in common where the weights of one are random: "
            "drafts are accepted by chance alone, the least that drafting can save"
        )
