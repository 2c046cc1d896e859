"""Complete, valid results for tests; every figure follows from the samples beside it."""

from __future__ import annotations

from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.metrics import estimate_co2
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording, Reading
from llenergymeasure.domain.environment import EnvironmentSnapshot, GPUInfo
from llenergymeasure.domain.results import (
    BaselineResult,
    DatasetInfo,
    Distribution,
    EnergyResult,
    ExperimentResult,
    FlopsPhase,
    FlopsResult,
    LatencyResult,
    MemoryResult,
    ModelInfo,
    ResolvedSettings,
    ThroughputResult,
    TrustReason,
    TrustVerdict,
    WarmupResult,
    WindowInfo,
)
from llenergymeasure.domain.samples import MemoryReading, RawProcessResult, RequestSample, Window

UUID = "GPU-5f4dcc3b-0000-4000-8000-000000000001"
T0_NS = 1_000_000_000
OUTPUT_TOKENS = 640
REQUESTS = 20
WINDOW_S = 3.2


def make_sample(request: int = 0, pass_index: int = 0, **changes: Any) -> RequestSample:
    """Make one request of 3 tokens that took 30 ms."""
    start_ns = T0_NS + request * 100_000_000
    values: dict[str, Any] = {
        "request": request,
        "pass_index": pass_index,
        "batch_index": 0,
        "input_tokens": 10,
        "padded_input_tokens": 12,
        "output_tokens": 3,
        "executed_output_tokens": 3,
        "issued_ns": start_ns,
        "scheduled_ns": start_ns + 1_000_000,
        "first_token_ns": start_ns + 11_000_000,
        "last_token_ns": start_ns + 31_000_000,
        "delivered_ns": start_ns + 31_000_000,
        "gaps_ns": (10_000_000, 10_000_000),
    }
    return RequestSample(**{**values, **changes})


def make_failed_sample(request: int = 0, pass_index: int = 0) -> RequestSample:
    """Make a request that failed before its first token."""
    return make_sample(
        request,
        pass_index,
        output_tokens=0,
        executed_output_tokens=0,
        first_token_ns=None,
        last_token_ns=None,
        delivered_ns=None,
        gaps_ns=None,
        finish="failed",
        error="out of memory",
    )


def make_readings(count: int = 3) -> tuple[Reading, ...]:
    """Make power readings, 20 ms apart."""
    return tuple(
        Reading("gpu_power_w", UUID, T0_NS + i * 20_000_000, T0_NS + i * 20_000_000 + 9_000, 250.5)
        for i in range(count)
    )


def make_process(
    process_index: int = 0, prompts: range = range(2), **changes: Any
) -> RawProcessResult:
    """Make one process's share of one pass."""
    window = Window(T0_NS, T0_NS + 1_000_000_000)
    values: dict[str, Any] = {
        "process_index": process_index,
        "window": window,
        "passes": (window,),
        "requests": tuple(make_sample(request) for request in prompts),
        "memory": MemoryReading("device", 2000.0, 1500.0, 81_920.0),
        "energy": EnergyRecording(
            "nvml",
            (
                EnergyComponent(
                    name=UUID, energy_j=250.0, kind="measured", method="counter", in_scope=True
                ),
            ),
            readings=make_readings(),
        ),
    }
    return RawProcessResult(**{**values, **changes})


def make_distribution(median: float, count: int = REQUESTS) -> Distribution:
    """Make a distribution around a median."""
    return Distribution(
        count=count,
        mean=median * 1.01,
        minimum=median * 0.9,
        p50=median,
        p90=median * 1.1,
        p95=median * 1.2,
        p99=median * 1.5,
        maximum=median * 1.6,
    )


def make_energy(total_j: float | None = 812.4, **changes: Any) -> EnergyResult:
    """Make measured energy with an interval; ``None`` makes energy that nothing could tell."""
    known = total_j is not None
    values: dict[str, Any] = {
        "source": "nvml" if known else "none",
        "selection_reason": "auto: the work is on a GPU" if known else "auto: no source was found",
        "kind": "measured" if known else "unmeasurable",
        "scope": "1 GPU" if known else "nothing is read",
        "total_j": total_j,
        "interval95_j": 6.2 if known else None,
        "per_output_token_j": total_j / OUTPUT_TOKENS if known else None,
        "per_request_j": total_j / REQUESTS if known else None,
        "tokens_per_j": OUTPUT_TOKENS / total_j if known else None,
        "mean_power_w": total_j / WINDOW_S if known else None,
        "edp_js": total_j / REQUESTS * 1.2221 if known else None,
        "adjusted_j": total_j - 93.4 * WINDOW_S if known else None,
        "adjusted_interval95_j": 6.6 if known else None,
        "attribution": "amortised over output tokens",
        "components": (
            (
                EnergyComponent(
                    name=UUID,
                    energy_j=total_j,
                    kind="measured",
                    method="nvml: energy counter",
                    in_scope=True,
                    interval95_j=6.2,
                    tick_ms=100.1,
                ),
            )
            if known
            else ()
        ),
    }
    return EnergyResult(**{**values, **changes})


def make_throughput(**changes: Any) -> ThroughputResult:
    """Make the work of 20 requests in 3.2 s."""
    values: dict[str, Any] = {
        "window_s": WINDOW_S,
        "passes": 1,
        "requests_completed": REQUESTS,
        "requests_failed": 0,
        "input_tokens": 1234,
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_per_second": OUTPUT_TOKENS / WINDOW_S,
        "total_tokens_per_second": (1234 + OUTPUT_TOKENS) / WINDOW_S,
        "requests_per_second": REQUESTS / WINDOW_S,
        "prompts_truncated": 0,
        "padding_waste": None,
    }
    return ThroughputResult(**{**values, **changes})


def make_flops(**changes: Any) -> FlopsResult:
    """Make floating-point operations with utilisation."""
    prefill = FlopsPhase(linear=1.0e12, attention=1.0e10, lm_head=1.0e10, total=1.02e12)
    decode = FlopsPhase(linear=5.0e11, attention=5.0e9, lm_head=5.0e9, total=5.1e11)
    values: dict[str, Any] = {
        "useful_prefill": prefill,
        "useful_decode": decode,
        "executed_prefill": prefill,
        "executed_decode": decode,
        "useful_total": 1.53e12,
        "executed_total": 1.53e12,
        "mfu": 0.1234,
        "mbu": 0.456,
        "peak_source": "NVIDIA H200",
    }
    return FlopsResult(**{**values, **changes})


PLACE = {
    "carbon_intensity_gco2_kwh": 400.0,
    "carbon_intensity_source": "user config",
    "datacenter_pue": 1.2,
    "datacenter_pue_source": "user config",
}


def make_environment(**changes: Any) -> EnvironmentSnapshot:
    """Make a machine with one GPU."""
    values: dict[str, Any] = {
        "captured_at": "2026-02-18T14:30:05+00:00",
        "python_version": "3.12.1",
        "os": "Debian GNU/Linux 12 (bookworm), Linux 6.1.0 x86_64",
        "cpu_model": "Example CPU 9000",
        "cpu_count": 16,
        "cpu_count_usable": 8,
        "ram_mb": 65_536.0,
        "gpus": (GPUInfo(index=0, uuid=UUID, name="NVIDIA H200", memory_mb=143_771.0),),
        "engine_versions": {"torch": "2.8.0"},
        "llenergymeasure_version": "2.0.0",
        "packages": {"numpy": "2.0.0"},
    }
    return EnvironmentSnapshot(**{**values, **changes})


def make_trust(*codes: str, energy: str | None = None) -> TrustVerdict:
    """Make a verdict with a caution for each code."""
    verdict = "caution" if codes else "ok"
    reasons = tuple(
        TrustReason(code=code, level="caution", detail=f"{code} was found", remedy="repeat it")
        for code in codes
    )
    return TrustVerdict.model_validate(
        {"verdict": verdict, "energy": energy or verdict, "reasons": reasons}
    )


def make_result(**changes: Any) -> ExperimentResult:
    """Make a complete result of a measured run on one GPU; any field can be replaced."""
    config = changes.get("config") or ExperimentConfig(
        model="meta-llama/Llama-3.1-8B", n=REQUESTS, pytorch={"batch_size": 4}
    )
    energy = changes.get("energy") or make_energy()
    throughput = changes.get("throughput") or make_throughput()
    latency = changes.get("latency") or make_latency()
    flops = changes.get("flops", make_flops())
    memory = changes.get("memory") or MemoryResult(
        kind="device", peak_mb=16_500.0, model_mb=15_300.0, capacity_mb=143_771.0
    )
    values: dict[str, Any] = {
        "measurement_config_hash": config.fingerprint(),
        "config": config,
        "resolved": make_resolved(config),
        "window": make_window(),
        "energy_total_j": energy.total_j,
        "energy_per_output_token_j": energy.per_output_token_j,
        "energy_adjusted_j": energy.adjusted_j,
        "tokens_per_second": throughput.output_tokens_per_second,
        "ttft_ms": latency.ttft_ms and latency.ttft_ms.p50,
        "tpot_ms": latency.tpot_ms and latency.tpot_ms.p50,
        "peak_memory_mb": memory.peak_mb,
        "flops_total": flops and flops.useful_total,
        "energy": energy,
        "latency": latency,
        "throughput": throughput,
        "memory": memory,
        "flops": flops,
        "warmup": WarmupResult(batches=3, output_tokens=96, seconds=60.1, thermal_floor="reached"),
        "baseline": BaselineResult(
            device_idle_w=75.0,
            loaded_idle_w=93.4,
            device_idle_interval95_w=0.3,
            loaded_idle_interval95_w=0.7,
            device_idle_steady=True,
            loaded_idle_steady=True,
            duration_s=30.0,
            skipped=None,
        ),
        "co2_estimate": estimate_co2(energy.total_j, make_environment(**PLACE)),
        "environment": make_environment(),
        "trust": make_trust(),
    }
    return ExperimentResult(**{**values, **changes})


def make_window(after_ns: int = 0) -> WindowInfo:
    """Make the window of the result; no two of one machine begin at the same time."""
    return WindowInfo(
        t0_ns=T0_NS + after_ns,
        t1_ns=T0_NS + after_ns + 3_200_000_000,
        started_at="2026-02-18T14:31:00+00:00",
        pass_seconds=(WINDOW_S,),
    )


def make_resolved(config: ExperimentConfig, **changes: Any) -> ResolvedSettings:
    """Make the settings in force."""
    values: dict[str, Any] = {
        "backend": {"batch_size": 4, "attn_implementation": "sdpa", "num_threads": None},
        "model": ModelInfo(name=config.model, weights="pretrained", parameters=8_030_261_248),
        "dataset": DatasetInfo(name="mixed-1k", size=1000, used=REQUESTS, sha256="0" * 64),
        "energy_source": "nvml",
    }
    return ResolvedSettings(**{**values, **changes})


def make_latency(**changes: Any) -> LatencyResult:
    """Make the times of 20 requests."""
    values: dict[str, Any] = {
        "ttft_ms": make_distribution(48.2),
        "tpot_ms": make_distribution(12.34),
        "itl_ms": make_distribution(12.1, count=OUTPUT_TOKENS - REQUESTS),
        "e2e_ms": make_distribution(1210.0),
        "queue_ms": make_distribution(0.02),
    }
    return LatencyResult(**{**values, **changes})
