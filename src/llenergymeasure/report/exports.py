"""Results for other programs: a table for spreadsheets, one for a pull request, and plain data.

CSV and JSON hold every figure to the last bit; Markdown rounds as the screen does.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from llenergymeasure.config.base import flatten
from llenergymeasure.config.settings_words import described
from llenergymeasure.domain import Record
from llenergymeasure.domain.results import ExperimentResult, StudyResult, warning_codes
from llenergymeasure.domain.study_result import FIGURES, Figure, Metric, figure_at
from llenergymeasure.report.study_figures import CAUTION, name_of, places_of, value_of
from llenergymeasure.study.blocks import devices_of

EXPORT_SCHEMA_VERSION = "1.0"
"""Of what ``json_data`` gives; the records inside have versions of their own."""

SCHEMA_FILE = Path(__file__).with_name(f"export-{EXPORT_SCHEMA_VERSION}.schema.json")
"""What :func:`json_schema` gives, for readers without Python."""

_MARKDOWN_FIGURES = (
    *("energy_per_output_token_j", "energy_total_j", "tokens_per_second"),
    *("ttft_ms.p50", "ttft_ms.p95", "tpot_ms.p50", "tpot_ms.p95", "peak_memory_mb"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#])")


class ExportRow(Record):
    """One configuration in one place, or one experiment, as a row of a table."""

    study: str = Field(description="Name of the study; empty for an experiment.")
    configuration: str = Field(description="Number as on the screen, such as #2 or #2@1.")
    label: str = Field(description="Settings that set it apart, in a few words.")
    settings: dict[str, Any] = Field(description="The same, by dotted names.")
    fingerprint: str = Field(description="measurement_config_hash.")
    devices: tuple[str, ...] = Field(description="Where it ran.")
    invalid: int = Field(description="Results left out because their verdict is invalid.")
    trust: tuple[str, ...] = Field(description="Codes of cautions behind its figures.")
    figures: dict[str, Figure] = Field(description="Figures by name; units are in the names.")


class Export(Record):
    """Results as they are stored, under one roof: what ``json_data`` gives."""

    schema_version: str = Field(EXPORT_SCHEMA_VERSION, description="Version of this schema.")
    studies: tuple[StudyResult, ...] = Field(
        (), description="Studies, each as study_summary.json holds it, without its experiments."
    )
    experiments: tuple[ExperimentResult, ...] = Field(
        (), description="Experiments, each as result.json holds it."
    )


def rows(result: StudyResult | ExperimentResult) -> tuple[ExportRow, ...]:
    """Lay a result out, a row for each configuration in each place where it ran."""
    if isinstance(result, ExperimentResult):
        return (_of_experiment(result),)
    places = places_of(result)
    return tuple(
        ExportRow(
            study=result.name or "",
            configuration=name_of(one, places),
            label=one.label,
            settings=dict(flatten(one.settings)),
            fingerprint=one.fingerprint,
            devices=one.devices,
            invalid=one.invalid,
            trust=one.trust,
            figures=one.figures,
        )
        for one in result.configurations
    )


def _of_experiment(result: ExperimentResult) -> ExportRow:
    config = result.config
    settings = {"model": config.model, "backend": config.backend, "precision": config.precision}
    figures = {
        name: figure
        for name, metric in FIGURES.items()
        if (figure := _single(result, metric)) is not None
    }
    return ExportRow(
        study="",
        configuration="",
        label=described(settings),
        settings=settings,
        fingerprint=result.measurement_config_hash,
        devices=devices_of(result),
        invalid=int(result.trust.verdict == "invalid"),
        trust=warning_codes(result.trust),
        figures=figures,
    )


def _single(result: ExperimentResult, metric: Metric) -> Figure | None:
    """Give a figure of one run, with the interval of its energy where it has one."""
    value = metric.of(result)
    if value is None:
        return None
    half = None
    if metric.per is not None:
        adjusted = metric.name == "energy_adjusted_j"
        half = result.energy.adjusted_interval95_j if adjusted else result.energy.interval95_j
        divisor = figure_at(result, metric.per) if metric.per else 1.0
        half = None if half is None or not divisor else half / divisor
    interval = None if half is None else (value - half, value + half)
    return Figure(mean=value, interval95=interval, n=1, standard_deviation=None, cv=None)


def csv_text(results: Iterable[StudyResult | ExperimentResult]) -> str:
    """Write a table for spreadsheets: one row a configuration, RFC 4180, a figure in four columns.

    These are its mean under its own name, both ends of its 95 % interval under ``_low`` and
    ``_high``, and under ``_n`` the cycles behind it. What is not known is an empty cell. Numbers
    read back as the very same; text that a spreadsheet took for a formula begins with ``'``.
    """
    table = [row for result in results for row in rows(result)]
    settings = tuple(dict.fromkeys(name for row in table for name in row.settings))
    figures = [name for name in FIGURES if any(name in row.figures for row in table)]
    lines = [_cells(row, settings, figures) for row in table]
    head = dict.fromkeys(name for line in lines for name in line)
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, head, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(lines)
    return sink.getvalue()


def _cells(row: ExportRow, settings: Sequence[str], figures: Sequence[str]) -> dict[str, object]:
    cells: dict[str, object] = {
        "study": _text(row.study),
        "configuration": row.configuration,
        "label": _text(row.label),
        **{f"settings.{name}": _text(row.settings.get(name)) for name in settings},
        "fingerprint": row.fingerprint,
        "devices": _text(" ".join(row.devices)),
        "invalid": row.invalid,
        "trust": " ".join(row.trust),
    }
    for name in figures:
        cells |= numbers(name, row.figures.get(name))
    return cells


def numbers(name: str, figure: Figure | None) -> dict[str, float | None]:
    """Give a figure as plain numbers: its mean, both ends of its interval, and its cycles."""
    low, high = (figure and figure.interval95) or (None, None)
    mean, count = (None, None) if figure is None else (figure.mean, figure.n)
    return {name: mean, f"{name}_low": low, f"{name}_high": high, f"{name}_n": count}


def _text(value: object) -> object:
    """Keep a spreadsheet from running text that begins as a formula does."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def markdown_text(results: Iterable[StudyResult | ExperimentResult]) -> str:
    """Write tables in GitHub's Markdown, one a result, with what its figures rest on below."""
    return "\n\n".join("\n".join(_markdown(result)) for result in results) + "\n"


def _markdown(result: StudyResult | ExperimentResult) -> Iterator[str]:
    table = rows(result)
    names = [name for name in _MARKDOWN_FIGURES if any(name in row.figures for row in table)]
    heads = (f"{FIGURES[name].title}, {FIGURES[name].unit}" for name in names)
    if isinstance(result, StudyResult):
        title = f"Study: {result.name or 'without a name'}"
    else:
        title = f"Experiment: {result.config.model}"
    yield f"### {_escaped(title)}"
    yield ""
    yield _line("", "configuration", *heads)
    yield _line(*(["---"] * 2), *(["---:"] * len(names)))
    for row in table:
        told = (row.figures.get(name) for name in names)
        values = ("" if figure is None else value_of(figure) for figure in told)
        mark = CAUTION if row.trust else ""
        yield _line(f"{mark}{_escaped(row.configuration)}", _escaped(row.label), *values)
    yield ""
    yield "± is the half-width of the 95 % interval; ! marks what rests on results with cautions."
    if remarks := [*_remarks(result)]:
        yield ""
        yield from (f"- {_escaped(remark)}" for remark in remarks)


def _remarks(result: StudyResult | ExperimentResult) -> Iterator[str]:
    """Say where energy came from, and every finding."""
    if isinstance(result, ExperimentResult):
        yield f"energy: {result.energy.kind}, {result.energy.source}; {result.energy.scope}"
        yield from (f"{one.level}: {one.code}, {one.detail}" for one in result.trust.reasons)
        return
    if result.subject is not None:
        yield f"measured: {'; '.join(result.subject.models)} on " + "; ".join(
            result.subject.boards or result.subject.machines
        )
        origins = (f"{one.kind}, {one.source}" for one in result.subject.energy)
        yield f"energy: {'; '.join(origins)}"
    yield from (f"{one.level}: {one.found}" for one in result.trust)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Write text so that Markdown shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def json_data(results: Iterable[StudyResult | ExperimentResult]) -> dict[str, Any]:
    """Give results as plain data, by the schema of :func:`json_schema`; figures are the stored."""
    given = tuple(results)
    export = Export(
        studies=tuple(one for one in given if isinstance(one, StudyResult)),
        experiments=tuple(one for one in given if isinstance(one, ExperimentResult)),
    )
    without = {"studies": {"__all__": {"experiments"}}}
    data: dict[str, Any] = export.model_dump(mode="json", exclude=without)
    return data


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of what :func:`json_data` gives."""
    schema = Export.model_json_schema(mode="serialization")
    study = schema["$defs"]["StudyResult"]
    del study["properties"]["experiments"]
    study["required"] = [one for one in study["required"] if one != "experiments"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:llenergymeasure:report:{EXPORT_SCHEMA_VERSION}",
        **schema,
    }
