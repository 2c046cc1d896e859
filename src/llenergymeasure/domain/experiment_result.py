"""The result of one experiment, and the record of one that broke.

Every figure of the measured window is derived from the raw samples in ``requests.parquet`` and
``timeseries.parquet``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plugins import load_object
from llenergymeasure.domain.base import Record
from llenergymeasure.domain.co2 import CO2Estimate
from llenergymeasure.domain.energy import EnergyResult
from llenergymeasure.domain.environment import DeviceState, EnvironmentSnapshot
from llenergymeasure.domain.result_parts import (
    BaselineResult,
    CPULoad,
    FlopsResult,
    LatencyResult,
    LoadResult,
    MemoryResult,
    MultiGPUResult,
    ResolvedSettings,
    ThermalResult,
    ThroughputResult,
    TrustVerdict,
    WarmupResult,
    WindowInfo,
)

# 2.0  first schema of this layout
SCHEMA_VERSION = "2.0"


class ExperimentResult(Record):
    """One experiment: what was asked, what came out, how, on what, and how far to trust it."""

    schema_version: str = Field(SCHEMA_VERSION, description="Version of this schema.")
    measurement_config_hash: str = Field(description="Fingerprint of the configuration.")
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
    multi_gpu: MultiGPUResult | None = Field(None, description="Device by device.")
    co2_estimate: CO2Estimate = Field(description="Emissions.")
    environment: EnvironmentSnapshot = Field(description="Machine and software.")
    trust: TrustVerdict = Field(description="How far to trust it.")
    measurement_warnings: tuple[str, ...] = Field((), description="Stable codes of findings.")
    reproducibility_notes: tuple[str, ...] = Field((), description="What a repeat depends on.")

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Load a result from its ``result.json``, or from the directory that holds it.

        Raises:
            LLEMError: The file is missing, damaged, or of a newer schema.
        """
        result: Self = load_object("llenergymeasure.results.files:load")(
            cls, Path(path), SCHEMA_VERSION
        )
        return result

    def to_json(self, path: str | Path | None = None) -> str:
        """Give the result as JSON, and write it where a path is given."""
        text = self.model_dump_json(indent=2) + "\n"
        if path is not None:
            load_object("llenergymeasure.results.files:write")(Path(path), text.encode())
        return text

    def to_parquet(self, path: str | Path) -> None:
        """Write the result as one flat row; nested fields become dotted columns."""
        load_object("llenergymeasure.results.columns:write_row")(self, Path(path))

    def summary(self) -> str:
        """Render the result as plain text for a terminal of 80 columns."""
        sections = load_object("llenergymeasure.report.experiment:sections")(self)
        return str(load_object("llenergymeasure.report.text:layout")(sections))


class FailedExperiment(Record):
    """An experiment that started and broke."""

    config: ExperimentConfig = Field(description="What was asked for.")
    phase: str | None = Field(description="Where it broke.")
    code: str = Field(description="Stable code of the error.")
    message: str = Field(description="What went wrong.")
    log_tail: str = Field("", description="What the engine printed last, where it is known.")
    slot: int | None = Field(None, description="Its place in the study, from 1.")
    cycle: int | None = Field(None, description="Its cycle in the study, from 1.")
    configuration: int | None = Field(None, description="id of its configuration in the study.")
    settings: dict[str, Any] = Field(
        {}, description="Settings in which its configuration differs from others of the study."
    )
    directory: str | None = Field(None, description="Where its files lie; null if not kept.")
