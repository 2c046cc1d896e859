"""Energy as recorded (readings, components, the cost of taking them) and as reported."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llenergymeasure.domain import Record
from llenergymeasure.domain.environment import DeviceState

EnergyKind = Literal["measured", "modelled", "unmeasurable"]
PowerMode = Literal["instantaneous", "mean_over_a_second", "untold"]


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules with what is not known about them; a figure of what is unknown is unknown.

    Attributes:
        total_j: Joules, or ``None`` where they are not known.
        half_j: Half-width of their 95 % interval, or ``None`` without one.
    """

    total_j: float | None
    half_j: float | None = None

    def __sub__(self, part: Energy) -> Energy:
        """Give what is left; never clipped, and intervals of different windows add in squares."""
        if self.total_j is None or part.total_j is None:
            return Energy(None)
        total_j = self.total_j - part.total_j
        if self.half_j is None or part.half_j is None:
            return Energy(total_j)
        return Energy(total_j, hypot(self.half_j, part.half_j))

    def __truediv__(self, count: float | None) -> Energy:
        """Give what each of so many equal parts took; of none, unknown."""
        if self.total_j is None or not count:
            return Energy(None)
        return Energy(self.total_j / count, None if self.half_j is None else self.half_j / count)


@dataclass(frozen=True, slots=True)
class Idle:
    """Power of devices without work, as far as it is known.

    Attributes:
        power_w: Mean.
        interval95_w: Half-width of its 95 % interval, or ``None`` where nothing tells its spread.
        steady: Whether it kept still, or ``None`` where nothing tells.
    """

    power_w: float
    interval95_w: float | None = None
    steady: bool | None = None

    def over(self, seconds: float) -> Energy:
        """Give what the devices would have drawn without work."""
        half_w = self.interval95_w
        return Energy(self.power_w * seconds, None if half_w is None else half_w * seconds)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one quantity; its fields are columns of ``timeseries.parquet``."""

    channel: Annotated[str, "What was read, with its unit, e.g. gpu_power_w."]
    device: Annotated[str, "UUID or name of the device it belongs to."]
    before_ns: Annotated[int, "Monotonic clock just before the read, ns."]
    after_ns: Annotated[int, "Monotonic clock just after the read, ns."]
    value: Annotated[float, "What was read, in the unit the channel names."]


class BudgetEntry(Record):
    """One source of uncertainty of an energy figure."""

    name: str = Field(description="What it comes from, a stable word.")
    standard_j: float = Field(description="Its standard uncertainty, J.")


class EnergyComponent(Record):
    """Energy of one part of the machine over the window."""

    name: str = Field(description="Part of the machine: cpu, ram, or a GPU by UUID.")
    energy_j: float | None = Field(description="Joules over the window; null when unknown.")
    kind: EnergyKind = Field(description="measured, modelled or unmeasurable.")
    method: str = Field(description="How the figure came about.")
    in_scope: bool = Field(description="Whether it is part of the total.")
    sensor: Literal["counter", "power"] | None = Field(
        None, description="What was read for it; null for a model, and where nothing was read."
    )
    model: str | None = Field(None, description="What a modelled figure was made from.")
    interval95_j: float | None = Field(
        None, description="Half-width of the 95 % interval on the sensor's scale, J."
    )
    tick_ms: float | None = Field(None, description="Time between two values of the sensor, ms.")
    jitter_ms: float | None = Field(
        None, description="Standard deviation of its ticks about a steady comb, ms."
    )
    start_edge: str | None = Field(None, description="How the start of the window was read.")
    end_edge: str | None = Field(None, description="How its end was read.")
    counter_over_power: float | None = Field(
        None, description="Energy by the counter / energy by integrated power."
    )
    power_mode: PowerMode | None = Field(
        None,
        description="What its power readings are, told by how they follow the end of the work: "
        "instantaneous, mean_over_a_second, or untold; null where no power was read.",
    )
    calibrated_at: str | None = Field(
        None, description="When bursts of load calibrated its sensors, ISO 8601; null without."
    )
    budget: tuple[BudgetEntry, ...] = Field((), description="What makes up the interval.")

    @model_validator(mode="before")
    @classmethod
    def _read_method(cls, data: Any) -> Any:
        """Take sensor and model from the words of ``method``, where nothing else told them.

        Results of earlier versions, and sources of other packages, have no more.
        """
        if not isinstance(data, dict) or {"sensor", "model"} & {*data}:
            return data
        method, kind = str(data.get("method")), data.get("kind")
        if kind == "modelled":
            return {**data, "model": method.rpartition(": ")[2]}
        if kind == "unmeasurable" and "counter" not in method and "power" not in method:
            return data
        return {**data, "sensor": "counter" if "counter" in method else "power"}


class SamplingCost(Record):
    """What taking the readings cost."""

    reads: int = Field(description="Readings taken.")
    mean_read_ms: float | None = Field(description="Mean duration of a reading, ms.")
    p99_read_ms: float | None = Field(description="99th percentile of the same, ms.")
    cpu_seconds: float = Field(description="CPU time of the sampling process, s.")


@dataclass(frozen=True, slots=True)
class EnergyRecording:
    """What an energy source recorded about one window.

    Attributes:
        source: Name of the source.
        components: Energy of each part of the machine.
        interval_j: Half-width of the 95 % interval of the total on the sensor's scale, or ``None``.
        readings: Every raw reading, guard time included.
        cost: What taking the readings cost.
        notes: What a reader of the result should know about the source.
        flags: Findings about the readings by their stable codes, of all devices in scope.
        device_state: What each device was doing over the window, where that could be read.
        codecarbon_grams: CodeCarbon's own emissions figure, gCO2e, where it was the source.
        stretch_s: How long the total is of, where that is longer than the window, s: it is then
            not the energy of the work in the window.
    """

    source: str
    components: tuple[EnergyComponent, ...] = ()
    interval_j: float | None = None
    readings: tuple[Reading, ...] = ()
    cost: SamplingCost | None = None
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    device_state: tuple[DeviceState, ...] = ()
    codecarbon_grams: float | None = None
    stretch_s: float | None = None

    @property
    def total_j(self) -> float | None:
        """Energy of the devices that did the work, or ``None`` unless all of it is known."""
        parts = [part.energy_j for part in self.components if part.in_scope]
        known = [part for part in parts if part is not None]
        return sum(known) if known and len(known) == len(parts) else None

    @property
    def energy(self) -> Energy:
        """The total with its interval, which only a measured figure has.

        Unknown where it is of more than the window.
        """
        if self.stretch_s is not None:
            return Energy(None)
        return Energy(self.total_j, self.interval_j if self.kind == "measured" else None)

    @property
    def kind(self) -> EnergyKind:
        """The weakest kind among the components that make up the total."""
        kinds = {part.kind for part in self.components if part.in_scope}
        if self.total_j is None or "unmeasurable" in kinds:
            return "unmeasurable"
        return "modelled" if "modelled" in kinds else "measured"


class EnergyPhases(Record):
    """Prefill told from decode by a second, prefill-only window."""

    prefill_j: float | None = Field(description="Energy of a prefill-only pass, J.")
    prefill_interval95_j: float | None = Field(
        None, description="Half-width of its 95 % interval, J; null as for energy.interval95_j."
    )
    decode_j: float | None = Field(description="Energy of a whole pass - prefill_j, J.")
    decode_interval95_j: float | None = Field(
        None, description="The same of the difference: root of the sum of both squares, J."
    )
    prefill_window_s: float = Field(description="Length of the prefill-only window, s.")
    prefill_passes: int = Field(description="Prefill-only passes in it.")


class PassComparison(Record):
    """The first passes of the window and the last ones, which did the same work."""

    passes_each: int = Field(description="Passes in each half; of an odd number one is left out.")
    first_j: float = Field(description="Energy of the first half, J.")
    second_j: float = Field(description="Energy of the second half, J.")
    allowed_j: float = Field(
        description="By how much they may differ, J: root of the sum of their squared intervals, "
        "and 1 % of their mean."
    )
    closes: bool = Field(description="Whether they agree.")
    power_change: float | None = Field(
        None, description="Mean power of the second half / of the first - 1."
    )
    power_change_interval95: float | None = Field(
        None, description="Half-width of its 95 % interval."
    )
    clock_change: float | None = Field(
        None,
        description="Mean SM clock of the second half / of the first - 1, of the device where it "
        "is largest; null where no clock was read.",
    )


class EnergyResult(Record):
    """Energy of the measured window, with source, kind and uncertainty."""

    source: str = Field(description="Energy source that was read.")
    selection_reason: str = Field(description="Why this source.")
    kind: EnergyKind = Field(description="measured, modelled or unmeasurable.")
    scope: str = Field(description="What the total covers.")
    total_j: float | None = Field(description="Energy of the devices that did the work, J.")
    interval95_j: float | None = Field(
        description="Half-width of the 95 % interval on the sensor's scale, J; null for modelled "
        "energy, which has none."
    )
    stretch_s: float | None = Field(
        None,
        description="How long total_j is of, where the source tells only a stretch longer than the "
        "window, s. Nothing is then related to it: ratios are null.",
    )
    absolute_accuracy: Literal["unknown"] = Field(
        "unknown", description="Gain and offset of the sensor itself; not known without a meter."
    )
    per_output_token_j: float | None = Field(description="total_j / output tokens, J.")
    per_accepted_token_j: float | None = Field(
        None,
        description="total_j / drafted tokens that the model accepted, J; null without speculative "
        "decoding.",
    )
    per_request_j: float | None = Field(description="total_j / completed requests, J.")
    tokens_per_j: float | None = Field(description="Output tokens / total_j.")
    mean_power_w: float | None = Field(description="total_j / window, W.")
    edp_js: float | None = Field(description="Energy-delay product: J per request x mean E2E, J s.")
    adjusted_j: float | None = Field(
        description="total_j - loaded_idle_w x window, J; never clipped; null without a baseline."
    )
    adjusted_interval95_j: float | None = Field(
        None,
        description="Half-width of the 95 % interval of adjusted_j, J: root of interval95_j "
        "squared + (loaded_idle_interval95_w x window) squared.",
    )
    attribution: str = Field(description="How energy is attributed to tokens and requests.")
    phases: EnergyPhases | None = Field(None, description="Only for window.phases: differential.")
    comparison: PassComparison | None = Field(
        None,
        description="Closure test: halves of the window that did the same work; null for a single "
        "pass, and for sources that cannot be divided.",
    )
    components: tuple[EnergyComponent, ...] = Field((), description="Every part that was told.")
    sampling: SamplingCost | None = Field(None, description="Cost of taking the readings.")
    flags: tuple[str, ...] = Field((), description="Codes of what the readings show.")
    notes: tuple[str, ...] = Field((), description="What to know about the source.")
