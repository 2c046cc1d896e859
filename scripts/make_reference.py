"""Write the generated blocks of the reference pages, between their markers.

A block begins with ``<!-- generated: NAME -->`` and ends with ``<!-- end -->``; what stands
between is replaced by what the function of that name in ``BLOCKS`` gives.
"""

from __future__ import annotations

import argparse
import json
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import UnionType

from pydantic import BaseModel

from llenergymeasure.config.energy_sources import ENERGY_SOURCES, DeviceKind, auto_order
from llenergymeasure.config.introspection import escaped, markdown_table, type_name
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.names import DECODING_STRATEGIES, PRECISIONS
from llenergymeasure.config.plugins import PluginEntry
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.config.user_config import UserConfig
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.domain.results import ExperimentResult, StudyResult
from llenergymeasure.domain.warnings import FINDINGS
from llenergymeasure.report.exports import SCHEMA_FILE, json_schema
from llenergymeasure.results.tables import READING_COLUMNS, REQUEST_COLUMNS, Column

PAGES = Path(__file__).resolve().parents[1] / "docs"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(page: str) -> str:
    """Give a page with its blocks made anew.

    Raises:
        KeyError: The page asks for a block that there is not.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", page)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def backend_table() -> str:
    """Say of each backend what it supports and whether this version has it."""
    return table(
        ("backend", "in this version", "needs", "`--batch-size` sets", "precision", "decoding"),
        (
            (
                f"`{name}`",
                "yes" if entry.implementation else "no",
                _package(entry),
                f"`{name}.{entry.batch_field}`",
                ", ".join(f"`{p}`" for p in PRECISIONS if p in entry.precisions),
                ", ".join(f"`{d}`" for d in DECODING_STRATEGIES if d in entry.decoding),
            )
            for name, entry in BACKENDS.items()
        ),
    )


def honours_table() -> str:
    """Say which backend carries out each setting that is left to engines."""
    settings = sorted({name for facts in BACKENDS.values() for name in facts.honours})
    return table(
        ("setting", *(f"`{name}`" for name in BACKENDS)),
        (
            (f"`{one}`", *("yes" if one in facts.honours else "" for facts in BACKENDS.values()))
            for one in settings
        ),
    )


def _package(entry: PluginEntry) -> str:
    names = " or ".join((entry.package or "nothing", *entry.alternatives))
    return " ≥ ".join(filter(None, (names, entry.minimum)))


def energy_table() -> str:
    """Say of each energy source whether this version has it."""
    rows = (
        (
            f"`{name}`",
            "yes" if entry.implementation else "no",
            _needs(entry),
        )
        for name, entry in ENERGY_SOURCES.items()
    )
    return table(("source", "in this version", "install"), rows)


def energy_order() -> str:
    """Say in which order ``auto`` tries the sources."""
    rows = (
        (
            f"a {kind.upper()}",
            ", then ".join(f"`{name}`" for name in auto_order(kind, ENERGY_SOURCES)),
        )
        for kind in typing.get_args(DeviceKind)
    )
    return table(("work on", "first of these that can tell something"), rows)


def model_table() -> str:
    """List the architectures that ``random:`` knows by name."""
    rows = (
        (f"`random:{name}`", f"{_shape(name).parameters:,}", str(_shape(name).layers))
        for name in catalogue.names()
    )
    return table(("model", "parameters", "layers"), rows)


def warning_sections() -> str:
    """Describe every finding."""
    return "\n\n".join(
        f"### `{code}`\n\n**{finding.level}.** {finding.meaning}\n\nWhat to do: {finding.remedy}."
        for code, finding in FINDINGS.items()
    )


def request_columns() -> str:
    """List the columns of ``requests.parquet``."""
    return _columns(REQUEST_COLUMNS)


def reading_columns() -> str:
    """List the columns of ``timeseries.parquet``."""
    return _columns(READING_COLUMNS)


def result_tables() -> str:
    """List the fields of a result: its own, then those of each model inside it."""
    return _sections(_models(ExperimentResult))


def study_tables() -> str:
    """List the fields of a study's result, and of the models inside it that are its own."""
    of_experiments = set(_models(ExperimentResult))
    return _sections(model for model in _models(StudyResult) if model not in of_experiments)


def _sections(models: Iterable[type[BaseModel]]) -> str:
    return "\n\n".join(
        f"### {model.__name__}\n\n{model.__doc__ or ''}".split("\n\nBuilt", maxsplit=1)[0]
        + f"\n\n{_fields(model)}"
        for model in dict.fromkeys(models)
    )


def _needs(entry: PluginEntry) -> str:
    return f"`{entry.install}`" if entry.install else "built in"


def _columns(columns: Iterable[Column]) -> str:
    rows = (
        (f"`{c.name}`", escaped(c.type) + " or null" * c.nullable, escaped(c.description))
        for c in columns
    )
    return table(("column", "type", "meaning"), rows)


def _fields(model: type[BaseModel]) -> str:
    schemas = model.model_json_schema()["properties"]
    rows = (
        (f"`{name}`", _type(field.annotation, schemas[name]), escaped(field.description or ""))
        for name, field in model.model_fields.items()
    )
    return table(("field", "type", "meaning"), rows)


def _type(annotation: object, schema: dict[str, object]) -> str:
    inner = next(_records(annotation), None)
    if inner is None:
        return type_name(schema)
    page = "configuration.md" if inner is ExperimentConfig else f"#{inner.__name__.lower()}"
    link = f"[{inner.__name__}]({page})"
    if typing.get_origin(annotation) is tuple:
        return f"list of {link}"
    if typing.get_origin(annotation) is dict:
        return f"mapping to {link}"
    return f"{link} or null" if _is_optional(annotation) else link


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a model and every model inside it; the configuration has a page of its own."""
    yield model
    for field in model.model_fields.values():
        for inner in _records(field.annotation):
            if inner is not ExperimentConfig:
                yield from _models(inner)


def _records(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _records(argument)


def _is_optional(annotation: object) -> bool:
    union = isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union
    return union and type(None) in typing.get_args(annotation)


def _shape(name: str) -> ModelArchitecture:
    return ModelArchitecture.from_config(catalogue.config(name))


BLOCKS: dict[str, Callable[[], str]] = {
    "experiment-fields": lambda: markdown_table(ExperimentConfig),
    "study-fields": lambda: markdown_table(StudyConfig),
    "user-fields": lambda: markdown_table(UserConfig),
    "backends": backend_table,
    "honours": honours_table,
    "energy-sources": energy_table,
    "energy-order": energy_order,
    "models": model_table,
    "warnings": warning_sections,
    "request-columns": request_columns,
    "reading-columns": reading_columns,
    "result-fields": result_tables,
    "study-result-fields": study_tables,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write pages of docs/ that have generated blocks, there with the schema, or elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGES, help="folder to write to")
    output: Path = parser.parse_args(arguments).output
    for source in sorted(PAGES.rglob("*.md")):
        page = source.read_text(encoding="utf-8")
        if _BLOCK.search(page):
            target = output / source.relative_to(PAGES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(rendered(page), encoding="utf-8")
    if output == PAGES:
        SCHEMA_FILE.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
