"""The result of one experiment with its parts, and the record of one that broke.

Every figure of the measured window is derived from the raw samples in ``requests.parquet`` and
``timeseries.parquet``. Missing is ``null``, never 0. Units are in the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.secrets import redact
from llenergymeasure.domain import Record
from llenergymeasure.domain.co2 import CO2Estimate
from llenergymeasure.domain.energy import EnergyKind, EnergyResult
from llenergymeasure.domain.environment import DeviceState, EnvironmentSnapshot
from llenergymeasure.domain.prompts import unused_words
from llenergymeasure.domain.samples import LatencyStart, MemoryKind
from llenergymeasure.domain.warnings import FINDINGS, LEVELS

# 2.0  first schema of this layout
# 2.1  place, files and a checksum: a change from outside is noticed; parameters are counted on the
#      loaded model; a search ends when it delivers; drafts, stalls and sleep are told; what was
#      made by earlier rules says so; weights may be unknown; operations of recurrences are an item
#      of their own; what a quota of CPU time held back is told; inputs have identities;
#      columns of datasets are named; chat templates are inputs
SCHEMA_VERSION = "2.1"
KNOWN_SCHEMAS = ("2.0", SCHEMA_VERSION)


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
        "requests with at least two tokens; null for beam search, which delivers all "
        "tokens together."
    )
    itl_ms: Distribution | None = Field(
        description="Inter-token latency: each gap between successive token arrivals, or steps of "
        "a beam search, ms; null where the engine tells no token times."
    )
    e2e_ms: Distribution | None = Field(
        description="End to end: last token - start, ms; of a beam search, answer handed back - "
        "start."
    )
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


class CPUThrottling(Record):
    """What a quota on CPU time held back, from before the window until after it."""

    group: str = Field(description="What has the quota; of several that which held back longest.")
    periods: int = Field(description="Periods of the quota in which there was work.")
    throttled_periods: int = Field(description="Those of them whose quota was used up early.")
    throttled_s: float = Field(description="Time held back, summed over CPUs, s.")


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
    drafted_tokens: int | None = Field(
        None,
        description="Tokens that were drafted for completed requests; null without speculative "
        "decoding, and where the engine does not tell.",
    )
    accepted_tokens: int | None = Field(
        None, description="Those of them that the model accepted; null as for drafted_tokens."
    )
    acceptance_rate: float | None = Field(None, description="Accepted / drafted tokens.")
    stalled_s: float | None = Field(
        None,
        description="How long nothing came of the work, in stretches of more than 1 s that were "
        "ten times as long as is usual in this window or more, less what is usual, s; null where "
        "the engine does not tell when tokens came.",
    )
    suspended_s: float | None = Field(
        None,
        description="Time that the machine slept meanwhile, which the monotonic clock leaves out, "
        "s; null where that is not known.",
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
    capacity_mb: float | None = Field(
        description="What one device has, or for work on the CPU the machine or, where that is "
        "less, what a container or a job is allowed of it, MiB."
    )


class FlopsPhase(Record):
    """Floating-point operations of one phase, itemised."""

    linear: float = Field(
        description="2 x parameters active for a token, without embeddings and lm_head, a token."
    )
    attention: float = Field(
        description="4 x heads x head_dim a layer, for each pair of query and key: useful ones "
        "are causal and within the layer's window; executed are those the kernel computes."
    )
    recurrence: float = Field(
        0.0, description="State-space models, linear attention and convolutions, a token."
    )
    lm_head: float = Field(description="2 x hidden x vocabulary a produced row of logits.")
    total: float = Field(description="Sum of the four.")


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
    watched_ends: int = Field(
        0,
        description="Of the last batches, how many were followed by rest so that their ends told "
        "what the devices draw after work.",
    )


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
    weights: Literal["pretrained", "random", "unknown", "none"] = Field(
        description="Where weights came from; unknown where the engine does not tell whether all "
        "of them are those of the checkpoint."
    )
    commit: str | None = Field(None, description="Commit of the weights, for a model on the Hub.")
    parameters: int | None = Field(
        None,
        description="Parameters, towers for images or sound included, adapters and drafting models "
        "left out; one that several layers share counts once. null where nothing tells them.",
    )
    parameters_active: int | None = Field(
        None,
        description="Those of the language model that take part in one token: all but the experts "
        "it does not visit.",
    )
    parameters_source: Literal["counted", "analytic"] | None = Field(
        None,
        description="counted, on the loaded model; or analytic, by formulas from its config.json, "
        "where the engine does not tell. null for results of schema 2.0, all of them analytic.",
    )
    doubt: str | None = Field(
        None,
        description="Why FLOPs, MFU and MBU are null: what the formulas do not know of the model, "
        "or how the loaded model differs from them.",
    )
    tokenizer_sha256: str | None = Field(None, description="Hash of the tokenizer's files.")


class DatasetInfo(Record):
    """The prompts that were used."""

    name: str = Field(description="Name or path of the dataset.")
    size: int = Field(description="Prompts in the dataset.")
    used: int = Field(description="Prompts used, from its start.")
    sha256: str = Field(description="Hash of the dataset's prompts.")
    provenance: dict[str, Any] = Field({}, description="Header the dataset carries.")
    column: str | None = Field(
        None, description="Column of its file that the prompts are from; null without a file."
    )
    unused: tuple[str, ...] = Field(
        (), description="Columns, or keys of rows, that nothing was made of; the first few."
    )

    def notes(self) -> Iterator[str]:
        """Say which columns nothing was made of; nothing where there are none."""
        if self.unused:
            yield unused_words(self.unused)


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
    inputs: dict[str, str] = Field(
        {},
        description="Identity of each input, by the field that names it: dataset, tokenizer, "
        "chat_template (where that of the model may be applied and model does not tell it), model, "
        "lora, decoder.draft_model; what is not known is absent. Results of a configuration are "
        "pooled only where they agree.",
    )


class TrustReason(Record):
    """One finding that bears on how far a result can be trusted."""

    code: str = Field(description="Stable code.")
    level: Literal["invalid", "caution", "info"] = Field(description="How much it weighs.")
    detail: str = Field(description="What was found.")
    remedy: str = Field(description="What to do about it.")

    @classmethod
    def of(cls, code: str, detail: str) -> Self:
        """Make the reason that a finding is; ``code`` is one of ``FINDINGS``."""
        about = FINDINGS[code]
        return cls(code=code, level=about.level, detail=detail, remedy=about.remedy)


class TrustVerdict(Record):
    """How far to trust the result."""

    verdict: Literal["ok", "caution", "invalid"] = Field(description="The worst of the reasons.")
    energy: Literal["ok", "caution", "invalid", "off"] = Field(
        description="The same for the energy figures alone; off where no source was read."
    )
    reasons: tuple[TrustReason, ...] = Field((), description="Why, worst first.")

    @classmethod
    def of(cls, reasons: Iterable[TrustReason], *, energy_asked: bool) -> Self:
        """Reach the verdict that follows from reasons, which it puts in order.

        Args:
            reasons: What was found; those that weigh the same stay in their order.
            energy_asked: Whether a source of energy was to be read.
        """
        ordered = tuple(sorted(reasons, key=lambda one: LEVELS.index(one.level)))
        worst = ordered[0].level if ordered else "info"
        verdict: Literal["ok", "caution", "invalid"] = "ok" if worst == "info" else worst
        return cls(verdict=verdict, energy=verdict if energy_asked else "off", reasons=ordered)


def warning_codes(verdict: TrustVerdict) -> tuple[str, ...]:
    """List the codes of everything in a verdict that is more than information, worst first."""
    return tuple(reason.code for reason in verdict.reasons if reason.level != "info")


class WindowInfo(Record):
    """The measured window on both clocks."""

    t0_ns: int = Field(description="First request issued, monotonic clock, ns.")
    t1_ns: int = Field(description="All done and the device synchronised, monotonic clock, ns.")
    started_at: str = Field(description="Wall-clock time at t0, ISO 8601; a label only.")
    pass_seconds: tuple[float, ...] = Field(description="Length of each pass, s.")


class StudyPlace(Record):
    """Which experiment of which study a result belongs to."""

    study: str = Field(
        description="The study: hash of its name, its design and the moment it was planned."
    )
    study_design_hash: str = Field(description="Fingerprint of its design.")
    slot: int = Field(description="Place in the order of running, from 1.")
    cycle: int = Field(description="Cycle, from 1.")


class ExperimentResult(Record):
    """One experiment: what was asked, what came out, how, on what, and how far to trust it."""

    schema_version: str = Field(SCHEMA_VERSION, description="Version of this schema.")
    measurement_config_hash: str = Field(description="Fingerprint of the configuration.")
    place: StudyPlace | None = Field(
        None, description="Where in which study it belongs; null outside a study."
    )
    config: ExperimentConfig = Field(description="What was asked for.")
    resolved: ResolvedSettings = Field(description="What was in force.")
    window: WindowInfo = Field(description="When it was measured.")

    energy_total_j: float | None = Field(description="energy.total_j")
    energy_per_output_token_j: float | None = Field(description="energy.per_output_token_j")
    energy_adjusted_j: float | None = Field(description="energy.adjusted_j")
    tokens_per_second: float | None = Field(description="throughput.output_tokens_per_second")
    ttft_ms: float | None = Field(description="Median of latency.ttft_ms")
    tpot_ms: float | None = Field(description="Median of latency.tpot_ms")
    peak_memory_mb: float | None = Field(description="memory.peak_mb")
    flops_total: float | None = Field(description="flops.useful_total")

    energy: EnergyResult = Field(description="Energy.")
    latency: LatencyResult = Field(description="Times of requests.")
    throughput: ThroughputResult = Field(description="Work done.")
    memory: MemoryResult = Field(description="Memory.")
    flops: FlopsResult | None = Field(None, description="Analytic floating-point operations.")
    load: LoadResult | None = Field(
        None, description="Loading the model; only of a cold start, null otherwise."
    )
    warmup: WarmupResult = Field(description="Before the window.")
    baseline: BaselineResult = Field(description="Idle power.")
    thermal: ThermalResult | None = Field(None, description="Temperatures.")
    device_state: tuple[DeviceState, ...] = Field(
        (), description="What each device was doing over the window, where that could be read."
    )
    cpu_load: CPULoad | None = Field(
        None,
        description="Who kept the CPUs busy, for work on the CPU; null for work on a GPU, for "
        "windows under 1 s and where it cannot be told.",
    )
    cpu_throttling: CPUThrottling | None = Field(
        None,
        description="What a quota on CPU time held back; null without a quota that can be seen.",
    )
    multi_gpu: MultiGPUResult | None = Field(None, description="Device by device.")
    co2_estimate: CO2Estimate = Field(description="Emissions.")
    environment: EnvironmentSnapshot = Field(description="Machine and software.")
    trust: TrustVerdict = Field(description="How far to trust it.")
    measurement_warnings: tuple[str, ...] = Field((), description="Stable codes of findings.")
    reproducibility_notes: tuple[str, ...] = Field((), description="What a repeat depends on.")
    earlier_rules: tuple[str, ...] = Field(
        (),
        description="Which figures were made by rules that have changed since; of a result of an "
        "earlier schema, once it is loaded.",
    )
    files: dict[str, str] = Field(
        {}, description="SHA-256 of each file of raw samples that lies beside it, by name."
    )

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Load a result from its ``result.json``, or from the directory that holds it.

        Raises:
            LLEMError: The file is missing, was damaged or changed since it was written, or
                contradicts itself.
            NotUnderstoodError: It cannot be read, or is of a newer schema; one of them.
        """
        result: Self = load_object("llenergymeasure.results.reading:load")(
            cls, Path(path), KNOWN_SCHEMAS
        )
        return result

    def to_json(self, path: str | Path | None = None) -> str:
        """Give the result as JSON with its checksum, and write it where a path is given."""
        text: str = load_object("llenergymeasure.results.files:sealed_text")(self)
        if path is not None:
            load_object("llenergymeasure.results.files:write")(Path(path), text.encode())
        return text

    def to_parquet(self, path: str | Path) -> None:
        """Write the result as one flat row; nested fields become dotted columns."""
        load_object("llenergymeasure.results.columns:write_row")(self, Path(path))

    def to_html(self, path: str | Path | None = None) -> str:
        """Give the result as one HTML page that fetches nothing; write it where a path is given."""
        return str(load_object("llenergymeasure.report.page:page")(self, path))

    def summary(self, width: int = 80) -> str:
        """Render the result as plain text.

        Args:
            width: Columns there are, 60 at least.
        """
        sections = load_object("llenergymeasure.report.experiment:sections")(self)
        return str(load_object("llenergymeasure.report.text:layout")(sections, width))

    def __repr__(self) -> str:
        """Say which result it is in a line; ``summary()`` says the rest."""
        asked = self.config
        return f"ExperimentResult({asked.model!r}, {asked.backend!r}, {self.trust.verdict})"

    def _repr_html_(self) -> str:
        """Render the result for a notebook: the sections of ``summary()``, escaped."""
        sections = load_object("llenergymeasure.report.experiment:sections")(self)
        return str(load_object("llenergymeasure.report.notebook:html")(sections))


class FailedExperiment(Record):
    """An experiment that started and broke."""

    config: ExperimentConfig = Field(description="What was asked for.")
    phase: str | None = Field(description="Where it broke.")
    code: str = Field(description="Stable code of the error.")
    message: Annotated[str, AfterValidator(redact)] = Field(description="What went wrong.")
    log_tail: Annotated[str, AfterValidator(redact)] = Field(
        "", description="What the engine printed last, where it is known."
    )
    slot: int | None = Field(None, description="Its place in the study, from 1.")
    cycle: int | None = Field(None, description="Its cycle in the study, from 1.")
    configuration: int | None = Field(None, description="id of its configuration in the study.")
    settings: dict[str, Any] = Field(
        {}, description="Settings in which its configuration differs from others of the study."
    )
    directory: str | None = Field(
        None,
        description="Where its files lie, in a study from its directory on; null if not kept.",
    )
    rescued: str | None = Field(
        None,
        description="Folder that holds what was measured, where its own directory did not take it.",
    )


Outcome = ExperimentResult | FailedExperiment
"""What came of an experiment."""
