"""The parts of an experiment's result: one model for each question it answers.

Missing is ``null``, never 0. Units are in the names.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llenergymeasure.domain.base import Record
from llenergymeasure.domain.energy import EnergyKind
from llenergymeasure.domain.samples import LatencyStart, MemoryKind


class Distribution(Record):
    """Statistics of pooled raw samples; percentiles interpolate linearly between samples."""

    count: int = Field(description="Samples behind the figures.")
    mean: float = Field(description="Arithmetic mean.")
    minimum: float = Field(description="Smallest sample.")
    p50: float = Field(description="Median.")
    p90: float = Field(description="90th percentile.")
    p95: float = Field(description="95th percentile.")
    p99: float = Field(description="99th percentile.")
    maximum: float = Field(description="Largest sample.")


class LatencyResult(Record):
    """Times of completed requests, pooled over passes and processes."""

    counted_from: LatencyStart = Field(
        "scheduled",
        description="Start of TTFT and E2E: scheduled, when work on a request began, as everything "
        "is handed over at once; or due, when it was to be handed over, under a load.",
    )
    ttft_ms: Distribution | None = Field(
        description="Time to first token: first output token - start, ms. In a static "
        "batch the end of prefill, the same for all rows."
    )
    tpot_ms: Distribution | None = Field(
        description="Time per output token: (E2E - TTFT) / (output tokens - 1), ms; only of "
        "requests with at least two tokens."
    )
    itl_ms: Distribution | None = Field(
        description="Inter-token latency: each gap between successive token arrivals, ms; null "
        "where the engine tells no token times."
    )
    e2e_ms: Distribution | None = Field(description="End to end: last token - start, ms.")
    queue_ms: Distribution | None = Field(
        description="Waiting: request scheduled - request issued, or due, ms."
    )


class CPULoad(Record):
    """What the CPUs of the machine did from before the window until after it."""

    own_share: float = Field(
        description="Share of the time of all CPUs that the processes of the experiment had."
    )
    other_share: float = Field(
        description="Share that everything else on the machine had: busy time of all CPUs "
        "(/proc/stat) - own time."
    )


class ThroughputResult(Record):
    """Work done in the measured window."""

    window_s: float = Field(description="t1 - t0, s.")
    passes: int = Field(description="Passes over the prompts in the window.")
    requests_completed: int = Field(description="Requests that ended well, all passes.")
    requests_failed: int = Field(description="Requests that failed; in no average.")
    input_tokens: int = Field(description="Prompt tokens of completed requests.")
    output_tokens: int = Field(description="Tokens produced by completed requests.")
    output_tokens_per_second: float | None = Field(
        description="Output tokens of completed requests / window."
    )
    total_tokens_per_second: float | None = Field(
        description="(Input + output tokens) of completed requests / window."
    )
    requests_per_second: float | None = Field(description="Completed requests / window.")
    prompts_truncated: int = Field(description="Prompts cut to max_input_tokens, of one pass.")
    padding_waste: float | None = Field(
        description="Computed token positions that held no useful token (padding of prompts, rows "
        "that had ended) / all computed positions; null for engines that do not pad."
    )


class MemoryResult(Record):
    """Memory the experiment needed."""

    kind: MemoryKind = Field(description="device memory, or resident_set of the process on a CPU.")
    peak_mb: float | None = Field(
        description="Highest use after loading, MiB. Of several processes: resident sets are "
        "summed; device memory is that of the fullest device."
    )
    model_mb: float | None = Field(
        description="Use right after loading, MiB; of several processes as for peak_mb."
    )
    capacity_mb: float | None = Field(description="What one device, or the machine, has, MiB.")


class FlopsPhase(Record):
    """Floating-point operations of one phase, itemised."""

    linear: float = Field(
        description="2 x parameters active for a token, without embeddings and lm_head, a token."
    )
    attention: float = Field(
        description="4 x layers x heads x head_dim x context a decode step; x S(S+1)/2 a causal "
        "prefill of S tokens."
    )
    lm_head: float = Field(description="2 x hidden x vocabulary a produced row of logits.")
    total: float = Field(description="Sum of the three.")


class FlopsResult(Record):
    """Analytic floating-point operations of the window; reference metadata, not measured."""

    useful_prefill: FlopsPhase = Field(description="Prompt tokens, without padding.")
    useful_decode: FlopsPhase = Field(description="Output tokens - 1 passes a request.")
    executed_prefill: FlopsPhase = Field(
        description="The same with padding, without tokens found in the prefix cache."
    )
    executed_decode: FlopsPhase = Field(description="The same with rows that had ended.")
    useful_total: float = Field(description="Useful prefill + useful decode.")
    executed_total: float = Field(description="Executed prefill + executed decode.")
    mfu: float | None = Field(
        description="useful_total / window / (dense peak of the compute type x devices); null "
        "for an unknown device, and where prompts were found in the prefix cache."
    )
    mbu: float | None = Field(
        description="(Weight bytes + KV-cache bytes read in decode) / decode time / (peak "
        "bandwidth x devices); null for an unknown device, and where batches change from step to "
        "step or steps give several tokens."
    )
    peak_source: str | None = Field(None, description="Device whose peaks were used.")


class LoadResult(Record):
    """Loading the model, as a window of its own."""

    seconds: float = Field(
        description="From asking for the model until it is ready and the device synchronised, s. "
        "Of several processes: until the last is ready."
    )
    energy_j: float | None = Field(description="Energy of the devices that do the work, J.")
    interval95_j: float | None = Field(
        description="Half-width of its 95 % interval, J; null as for energy.interval95_j."
    )
    kind: EnergyKind = Field(description="measured, modelled or unmeasurable.")
    source: str = Field(description="Energy source that was read.")


class WarmupResult(Record):
    """What was done before the window."""

    batches: int = Field(description="Warm-up batches run, a process.")
    output_tokens: int = Field(description="Tokens they produced; in no metric.")
    seconds: float = Field(description="How long warm-up took, s.")
    thermal_floor: str = Field(description="reached, or skipped or off with the reason.")


class BaselineResult(Record):
    """Power of the idle device."""

    device_idle_w: float | None = Field(description="Before the model was loaded, W.")
    loaded_idle_w: float | None = Field(description="Model resident, no work, W.")
    device_idle_interval95_w: float | None = Field(
        None, description="Half-width of the 95 % interval of device_idle_w, drift included, W."
    )
    loaded_idle_interval95_w: float | None = Field(
        None, description="The same of loaded_idle_w, W."
    )
    device_idle_steady: bool | None = Field(
        None, description="Whether the two halves of that measurement agree; null: not known."
    )
    loaded_idle_steady: bool | None = Field(None, description="The same of loaded_idle_w.")
    device_idle_age_s: float | None = Field(
        None,
        description="Age of an earlier measurement of device_idle_w that a short one confirmed, "
        "s; null where it was measured in full.",
    )
    duration_s: float | None = Field(description="Length of each full measurement, s.")
    skipped: str | None = Field(description="Why there is none, or null.")


class ThermalResult(Record):
    """Temperatures around the window, of the hottest device; null where no sensor was read."""

    start_c: float | None = Field(None, description="Highest temperature at t0, degrees Celsius.")
    end_c: float | None = Field(None, description="Highest temperature at t1, degrees Celsius.")
    device_start_c: dict[str, float] = Field(
        {}, description="Temperature of each device at t0 by UUID, degrees Celsius."
    )


class MultiGPUResult(Record):
    """The devices that did the work, one by one."""

    devices: tuple[str, ...] = Field(description="GPUs by UUID.")
    energy_j: dict[str, float | None] = Field(description="Energy of each, J.")


class ModelInfo(Record):
    """The model that was measured."""

    name: str = Field(description="As the configuration names it.")
    weights: Literal["pretrained", "random", "none"] = Field(description="Where weights came from.")
    commit: str | None = Field(None, description="Commit of the weights, for a model on the Hub.")
    parameters: int | None = Field(None, description="Parameters, from the architecture.")
    parameters_active: int | None = Field(None, description="Parameters active for a token.")
    tokenizer_sha256: str | None = Field(None, description="Hash of the tokenizer's files.")


class DatasetInfo(Record):
    """The prompts that were used."""

    name: str = Field(description="Name or path of the dataset.")
    size: int = Field(description="Prompts in the dataset.")
    used: int = Field(description="Prompts used, from its start.")
    sha256: str = Field(description="Hash of the dataset's prompts.")
    provenance: dict[str, Any] = Field({}, description="Header the dataset carries.")


class ResolvedSettings(Record):
    """What was in force, beside what was asked for."""

    backend: dict[str, Any] = Field(description="Every setting of the backend's section.")
    model: ModelInfo = Field(description="The model.")
    dataset: DatasetInfo = Field(description="The prompts.")
    energy_source: str = Field(description="The energy source.")
    runner: str = Field("local", description="Where the backend executed.")
    start_method: str = Field(
        "inline", description="How the process was started: inline, fork, spawn or docker."
    )
    start_reason: str | None = Field(
        None, description="Why it was not started by the method asked for; null where it was."
    )
    session: int | None = Field(
        None,
        description="Which run of its study measured it, from 1; a resume begins another. null "
        "outside a study.",
    )


class TrustReason(Record):
    """One finding that bears on how far a result can be trusted."""

    code: str = Field(description="Stable code.")
    level: Literal["invalid", "caution", "info"] = Field(description="How much it weighs.")
    detail: str = Field(description="What was found.")
    remedy: str = Field(description="What to do about it.")


class TrustVerdict(Record):
    """How far to trust the result."""

    verdict: Literal["ok", "caution", "invalid"] = Field(description="The worst of the reasons.")
    energy: Literal["ok", "caution", "invalid", "off"] = Field(
        description="The same for the energy figures alone; off where no source was read."
    )
    reasons: tuple[TrustReason, ...] = Field((), description="Why, worst first.")


class WindowInfo(Record):
    """The measured window on both clocks."""

    t0_ns: int = Field(description="First request issued, monotonic clock, ns.")
    t1_ns: int = Field(description="All done and the device synchronised, monotonic clock, ns.")
    started_at: str = Field(description="Wall-clock time at t0, ISO 8601; a label only.")
    pass_seconds: tuple[float, ...] = Field(description="Length of each pass, s.")
