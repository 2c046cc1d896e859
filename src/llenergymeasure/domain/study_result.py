"""The result of a study: what ran, what each configuration needs, and which differences are shown.

Missing is ``null``, never 0. How the statistics are made is in ``study/statistics.py``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.settings_words import described
from llenergymeasure.domain import Record
from llenergymeasure.domain.earlier_rules import OF_STUDIES, earlier
from llenergymeasure.domain.experiment_result import ExperimentResult, FailedExperiment
from llenergymeasure.domain.study_subject import StudySubject, TrustCount
from llenergymeasure.exceptions import LLEMError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# 2.0  first schema of this layout; notes were sentences
# 2.1  notes are records
# 2.2  the detectable effect is that of the next study; noise need not be alike; a note may have a
#      remedy; results of other inputs or versions are figures of their own; subject, counts of
#      findings and percentiles are told; paths are relative to the directory of the study
STUDY_SCHEMA_VERSION = "2.2"


class Metric(NamedTuple):
    """One figure of an experiment, which a study tells of each configuration.

    Attributes:
        name: What it is called in ``figures``, objectives and limits.
        title: What a table calls it.
        unit: Its unit.
        best_is_low: Whether a low figure is the better one.
        path: Where ``ExperimentResult`` has it, dotted; empty for the headline field of its name.
        per: Of an energy figure, what the energy of the window is divided by: a dotted path, or
            empty for nothing. ``None`` for other figures.
    """

    name: str
    title: str
    unit: str
    best_is_low: bool = True
    path: str = ""
    per: str | None = None

    def of(self, result: ExperimentResult) -> float | None:
        """Give the figure of one experiment; ``None`` where it has none."""
        return figure_at(result, self.path or self.name)


def figure_at(result: ExperimentResult, path: str) -> float | None:
    """Give the number at a dotted path of a result; ``None`` where something on it is."""
    found: Any = result
    for name in path.split("."):
        if found is None:
            return None
        found = getattr(found, name)
    return None if found is None else float(found)


ENERGY_PER_TOKEN = Metric(
    "energy_per_output_token_j",
    "energy per output token",
    "J",
    per="throughput.output_tokens",
)
ENERGY = Metric("energy_total_j", "energy of the window", "J", per="")
THROUGHPUT = Metric("tokens_per_second", "throughput", "tokens/s", best_is_low=False)
TTFT = Metric("ttft_ms", "TTFT, median", "ms")
TPOT = Metric("tpot_ms", "TPOT, median", "ms")
MEMORY = Metric("peak_memory_mb", "peak memory", "MiB")

METRICS = (ENERGY_PER_TOKEN, ENERGY, THROUGHPUT, TTFT, TPOT, MEMORY)
"""Figures whose differences are tested."""

LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "e2e_ms": "E2E"}
PERCENTILES = ("p50", "p90", "p95", "p99")
_REQUESTS, _WINDOW = "throughput.requests_completed", "throughput.window_s"

FIGURES = {
    metric.name: metric
    for metric in (
        *METRICS,
        *(
            Metric(f"{name}.{p}", f"{title} {p}", "ms", path=f"latency.{name}.{p}")
            for name, title in LATENCIES.items()
            for p in PERCENTILES
        ),
        Metric(
            "energy_per_request_j",
            "energy per request",
            "J",
            path="energy.per_request_j",
            per=_REQUESTS,
        ),
        Metric("energy_adjusted_j", "energy above loaded idle", "J", per=""),
        Metric("mean_power_w", "mean power", "W", path="energy.mean_power_w", per=_WINDOW),
        Metric(
            "total_tokens_per_second",
            "input and output tokens",
            "tokens/s",
            best_is_low=False,
            path="throughput.total_tokens_per_second",
        ),
        Metric(
            "requests_per_second",
            "requests",
            "requests/s",
            best_is_low=False,
            path="throughput.requests_per_second",
        ),
        Metric("model_memory_mb", "memory after loading", "MiB", path="memory.model_mb"),
        Metric("window_s", "window", "s", path=_WINDOW),
        Metric("co2_grams", "CO2e", "g", path="co2_estimate.co2_grams"),
        Metric("mfu", "MFU", "", best_is_low=False, path="flops.mfu"),
        Metric("mbu", "MBU", "", best_is_low=False, path="flops.mbu"),
    )
}
"""Every figure of a configuration, by its name."""

Verdict = Literal["lower", "higher", "no_difference_shown"]


class Skipped(Record):
    """A combination of the grid that is not run."""

    config: dict[str, Any] = Field(description="The settings of this combination.")
    reason: str = Field(description="Why it is invalid or meaningless.")


class StudyProtocol(Record):
    """How the experiments of a study were run."""

    n_cycles: int = Field(description="Times each configuration is run, each in a fresh process.")
    cycle_order: str = Field(description="sequential, interleaved, shuffled or balanced.")
    config_gap_s: float | None = Field(None, description="Pause between experiments, s.")
    cycle_gap_s: float | None = Field(None, description="Pause between cycles, s.")
    seed: int | None = Field(None, description="Seed of the order.")
    start_methods: tuple[str, ...] = Field((), description="How processes were started.")


class Placement(Record):
    """Where in the study one result belongs."""

    configuration: int = Field(description="id of its configuration.")
    cycle: int = Field(description="Its cycle, from 1.")
    slot: int = Field(description="Its place in the order of running, from 1.")


class Figure(Record):
    """One figure of a configuration over its cycles."""

    mean: float = Field(description="Arithmetic mean over cycles.")
    interval95: tuple[float, float] | None = Field(
        description="95 % interval of the mean, by Student's t over cycles and what is common to "
        "all windows; null for fewer than three cycles."
    )
    n: int = Field(description="Cycles behind the figure.")
    standard_deviation: float | None = Field(description="Between cycles; null for a single one.")
    cv: float | None = Field(description="standard_deviation / mean.")
    common_standard: float | None = Field(
        None,
        description="Standard uncertainty common to all windows, which no repeat makes smaller.",
    )

    @property
    def half_width(self) -> float | None:
        """Half of the interval; ``None`` where there is none."""
        return None if self.interval95 is None else (self.interval95[1] - self.interval95[0]) / 2

    def model_post_init(self, _: Any) -> None:
        """Share the names of its fields: a set for each of 280,000 figures would take 200 MB."""
        object.__setattr__(self, "__pydantic_fields_set__", _FIGURE_FIELDS)


_FIGURE_FIELDS = set(Figure.model_fields)


class ConfigurationResult(Record):
    """One configuration over its cycles, on one set of devices."""

    id: int = Field(description="Its place in the design, from 1.")
    settings: dict[str, Any] = Field(description="Settings in which the configurations differ.")
    fingerprint: str = Field(description="measurement_config_hash of its experiments.")
    devices: tuple[str, ...] = Field((), description="Where it ran: GPUs by UUID, or the CPU.")
    conditions: dict[str, str] = Field(
        {},
        description="What sets these results off from others of the configuration, where not all "
        "had the same inputs (dataset, tokenizer, chat_template, model, lora, decoder.draft_model) "
        "or ran on the same versions.",
    )
    n_cycles: int = Field(description="Results behind its figures.")
    invalid: int = Field(0, description="Results left out because their verdict is invalid.")
    figures: dict[str, Figure] = Field(
        description="By name: a headline field, such as tpot_ms, a percentile of a latency, such "
        "as tpot_ms.p95, which is that of each run and then the mean over cycles, or one of the "
        "others that an experiment has."
    )
    trust: tuple[str, ...] = Field(
        (), description="Codes of the cautions of the results behind its figures, worst first."
    )

    @property
    def label(self) -> str:
        """What sets it apart, in a few words."""
        return described(self.settings) or "as configured"


class Comparison(Record):
    """One figure of two configurations: a / b."""

    metric: str = Field(description="Name of the headline field.")
    a: int = Field(description="id of the one configuration.")
    b: int = Field(description="id of the other.")
    ratio: float = Field(description="a / b: ratio of geometric means, adjusted for blocks.")
    interval95: tuple[float, float] = Field(
        description="95 % interval of the ratio; all intervals of a metric hold together."
    )
    verdict: Verdict = Field(
        description="a is lower or higher than b where the interval leaves 1 out."
    )
    minimum_detectable_ratio: float = Field(
        description="True ratio of these two that the next study like this one shows with a "
        "probability of 80 %."
    )

    def against(self, first: int) -> tuple[float, float, float]:
        """Give the ratio of the one to the other, with the ends of its interval.

        Args:
            first: id of the other; one of ``a`` and ``b``.
        """
        low, high = self.interval95
        if self.b == first:
            return self.ratio, low, high
        return 1 / self.ratio, 1 / high, 1 / low


class PlannedEffect(Record):
    """What a study with so many cycles would show."""

    n_cycles: int = Field(description="Cycles of each configuration.")
    minimum_detectable_ratio: float | None = Field(
        description="True ratio that such a study to come shows with a probability of 80 %."
    )


class Sensitivity(Record):
    """How fine a difference of one metric the study can show."""

    metric: str = Field(description="Name of the headline field.")
    configurations: int = Field(description="Configurations that are compared.")
    observations: int = Field(description="Results behind the comparison.")
    degrees_of_freedom: int = Field(description="Of the residual.")
    residual_sd: float = Field(
        description="Residual standard deviation of the logarithm; nearly a coefficient of "
        "variation, with what cycles share taken out."
    )
    drift_per_slot: float | None = Field(
        None, description="Change of the logarithm from slot to slot that was taken out."
    )
    minimum_detectable_ratio: float = Field(
        description="True ratio that the next study like this one shows with a "
        "probability of 80 %: exp(m x the median of the standard errors of the logarithm), with m "
        "such that the mean of Phi(m s - c s') over the standard errors s of this study and s' "
        "of the next is 0.8."
    )
    planned: tuple[PlannedEffect, ...] = Field((), description="The same for other cycles.")


NoteKind = Literal[
    "metric", "difference", "work", "start", "trust", "design", "resume", "outlier", "other"
]


class Note(Record):
    """Something to know about a study."""

    kind: NoteKind = Field(
        description="metric: what statistics say of figures; difference: what engines do each in "
        "their own way; work: configurations did not do the same; start: how processes were "
        "started; trust: results in no figure, or in figures apart; design: what no statistics "
        "can make good; resume: what a resume has parted or run again; outlier: a run that stands "
        "far from what its configuration and its cycle say; other: the rest."
    )
    text: str = Field(description="What there is to know.")
    about: tuple[str, ...] = Field(
        (), description="The figures by the names of their headline fields, or what differs."
    )
    remedy: str | None = Field(None, description="A command line that mends it.")


def about_metrics(found: Iterable[tuple[str, str]]) -> tuple[Note, ...]:
    """Make a note of each text, with all metrics that it is about.

    Args:
        found: Metric and text.
    """
    by_text: dict[str, list[str]] = {}
    for metric, text in found:
        by_text.setdefault(text, []).append(metric)
    return tuple(
        Note(kind="metric", text=text, about=tuple(names)) for text, names in by_text.items()
    )


def _read_sentences(notes: Iterable[str]) -> tuple[Note, ...]:
    """Read notes of schema 2.0, which were sentences that began with what they were about."""
    read: list[Note] = []
    of_metrics: list[tuple[str, str]] = []
    for note in notes:
        head, _, text = note.partition(": ")
        if head in (metric.name for metric in METRICS):
            of_metrics.append((head, text))
        elif head.startswith("engines differ in "):
            about = head.removeprefix("engines differ in ")
            read.append(Note(kind="difference", text=text, about=(about,)))
        else:
            read.append(Note(kind="other", text=note))
    return (*read, *about_metrics(of_metrics))


class StudyResult(Record):
    """A collection of experiments."""

    schema_version: str = Field(STUDY_SCHEMA_VERSION, description="Version of this schema.")
    name: str | None = Field(None, description="Name of the study.")
    study_design_hash: str = Field(description="Fingerprint of the design.")
    subject: StudySubject | None = Field(
        None, description="What was measured, on what and when; null where nothing ran."
    )
    protocol: StudyProtocol | None = Field(None, description="How it was run.")
    generated: int = Field(description="Combinations the design asks for, before cycles.")
    merged: int = Field(0, description="Combinations that equal an earlier one.")
    ran: int = Field(description="Experiments that finished.")
    invalid: int = Field(0, description="Of these, results that are in no figure: not trusted.")
    missing: int = Field(0, description="Planned experiments that neither finished nor broke.")
    skipped: tuple[Skipped, ...] = Field((), description="Combinations that are not run.")
    failed: tuple[FailedExperiment, ...] = Field((), description="Experiments that broke.")
    result_files: tuple[str | None, ...] = Field(
        (), description="Where each result lies, from the directory of the study on."
    )
    placements: tuple[Placement, ...] = Field((), description="Where each result belongs.")
    configurations: tuple[ConfigurationResult, ...] = Field(
        (), description="Figures over cycles, of each configuration."
    )
    comparisons: tuple[Comparison, ...] = Field(
        (), description="All pairs of up to 20 configurations; of more, each against the best."
    )
    sensitivity: tuple[Sensitivity, ...] = Field(
        (), description="How fine a difference could be shown, a metric each."
    )
    trust: tuple[TrustCount, ...] = Field(
        (), description="Every finding on the results, with how often there is one, worst first."
    )
    notes: tuple[Note, ...] = Field(
        (), description="What to know about the statistics, and what was not equal."
    )
    earlier_rules: tuple[str, ...] = Field(
        (),
        description="Which figures were made by rules that have changed since; only of a "
        "study of an earlier schema, once it is loaded.",
    )
    experiments: tuple[ExperimentResult, ...] = Field(
        (), description="The results; not in study_summary.json, which names their files."
    )
    directory: str | None = Field(
        None, exclude=True, description="Where the study lies, if it is kept; in no file."
    )

    @model_validator(mode="before")
    @classmethod
    def _of_older_schema(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("schema_version") not in {"2.0", "2.1"}:
            return data
        notes = data.get("notes") or ()
        if all(isinstance(note, str) for note in notes):  # 2.0; all else is for the field to judge
            notes = _read_sentences(notes)
        return {
            **data,
            "schema_version": STUDY_SCHEMA_VERSION,
            "notes": notes,
            "earlier_rules": earlier(OF_STUDIES, data),
        }

    @classmethod
    def from_json(cls, path: str | Path) -> StudyResult:
        """Load a study with its experiments, as far as it has come; nothing is written.

        Figures are made anew from the results, each of which is checked.

        Args:
            path: Its directory, or its ``study_summary.json``.

        Raises:
            StudyError: That is no study, or its plan is lost or not understood.
        """
        study: StudyResult = load_object("llenergymeasure.study.loading:load_study")(Path(path))
        return study

    def located(self, path: str) -> str:
        """Give where a file or a folder of the study lies, as far as its own place is known.

        Args:
            path: What ``result_files`` or a failure names. Earlier versions named it from the
                working directory of the time.
        """
        if self.directory is None:
            return path
        _, experiments, inside = path.rpartition("experiments/")
        return str(Path(self.directory) / f"{experiments}{inside}")

    def to_html(self, path: str | Path | None = None) -> str:
        """Give the result as one HTML page that fetches nothing; write it where a path is given."""
        return str(load_object("llenergymeasure.report.page:page")(self, path))

    def summary(self, width: int = 80) -> str:
        """Render the study as plain text.

        Args:
            width: Columns there are, 60 at least.
        """
        sections = load_object("llenergymeasure.report.study:sections")(self)
        return str(load_object("llenergymeasure.report.text:layout")(sections, width))

    def __repr__(self) -> str:
        """Say which study it is in a line; ``summary()`` says the rest."""
        name = self.name or self.study_design_hash
        return (
            f"StudyResult({name!r}, {len(self.configurations)} configurations, {self.ran} results)"
        )

    def _repr_html_(self) -> str:
        """Render the study for a notebook: the sections of ``summary()``, escaped."""
        sections = load_object("llenergymeasure.report.study:sections")(self)
        return str(load_object("llenergymeasure.report.notebook:html")(sections))

    def to_arrow(self) -> pa.Table:
        """Give the experiments as an Arrow table: one flat row each, dotted columns.

        Where the place in the study is known, the columns ``study.configuration``,
        ``study.label``, ``study.cycle`` and ``study.slot`` tell it. Installed packages have none.
        """
        table: pa.Table = load_object("llenergymeasure.results.columns:study_table")(self)
        return table

    def to_dataframe(self) -> pd.DataFrame:
        """Give the same as a pandas data frame.

        Raises:
            LLEMError: pandas is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise LLEMError(
                "a data frame needs the package pandas, which is not installed; "
                "pip install pandas, or use to_arrow()"
            )
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame
