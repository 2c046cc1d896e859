"""Read and write one result as a file of its own, with every failure told as an ``LLEMError``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from llenergymeasure.config import introspection
from llenergymeasure.config.models import STORED
from llenergymeasure.config.paths import flatten
from llenergymeasure.domain.results import ExperimentResult, Placement, StudyResult
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.results.columns import Kind, kind_of, make_column

if TYPE_CHECKING:
    import pyarrow as pa

RESULT_NAME = "result.json"
ERROR_NAME = "error.json"

Model = TypeVar("Model", bound=BaseModel)
Migrations = Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]

# Schema version -> what turns its data into that of the next one, `schema_version` included.
MIGRATIONS: Migrations = {}

_MOST_PROBLEMS = 3
_KINDS: Mapping[str, Kind] = {
    "number": "float64",
    "integer": "int64",
    "boolean": "bool",
    "string": "string",
}


def load(model: type[Model], path: Path, current_schema: str) -> Model:
    """Read a result and build its model.

    Raises:
        LLEMError: As :func:`read_result`, or a field is missing or has the wrong type; the message
            names the file and the fields.
    """
    data = read_result(path, current_schema)
    try:
        return model.model_validate(data, context=STORED)
    except ValidationError as error:
        raise _wrong_fields(_file(path), error) from None


def read_result(
    path: Path, current_schema: str, migrations: Migrations = MIGRATIONS
) -> dict[str, Any]:
    """Read the data of a result, brought up to the current schema.

    Args:
        path: A ``result.json``, or the directory that holds it.
        current_schema: The newest schema version that is understood, e.g. ``"2.0"``.
        migrations: How data of each older version becomes that of the next.

    Raises:
        LLEMError: The file is missing, cannot be read, is damaged, is no experiment result, or is
            of a newer schema than this version knows.
    """
    file = _file(path)
    data = _parse(file)
    if not isinstance(data, dict) or "measurement_config_hash" not in data:
        raise _error(file, f"is not the result of an experiment{_what_else(data)}")
    return _migrated(data, file, current_schema, migrations)


def write_text(text: str, path: Path) -> None:
    """Write text to a file, replacing what was there.

    Raises:
        LLEMError: The file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _cannot_write(path, error) from None


def write_row(data: Mapping[str, Any], path: Path, model: type[BaseModel] | None = None) -> None:
    """Write nested data as one row of a Parquet file; see :func:`fill_row`.

    Raises:
        LLEMError: The file cannot be written.
    """
    try:
        with path.open("wb") as sink:
            fill_row(data, sink, model)
    except OSError as error:
        raise _cannot_write(path, error) from None


def fill_row(data: Mapping[str, Any], sink: BinaryIO, model: type[BaseModel] | None = None) -> None:
    """Write nested data as one row of Parquet; nested fields become dotted columns.

    With a model, every field it declares is a column of its declared type, so that rows of
    different results can be put together even where one of them has nulls. Lists become JSON text.
    """
    import pyarrow.parquet as pq

    pq.write_table(row_table(data, model), sink)


def row_table(data: Mapping[str, Any], model: type[BaseModel] | None = None) -> pa.Table:
    """Lay nested data out as an Arrow table of one row; see :func:`fill_row`."""
    return rows_table([data], model)


def rows_table(rows: Iterable[Mapping[str, Any]], model: type[BaseModel] | None = None) -> pa.Table:
    """Lay nested data out as an Arrow table, a row each; columns that one lacks are null there.

    A free entry that is text in one row and a number in another becomes text in all of them.
    """
    import pyarrow as pa

    declared = dict(_declared_columns(model)) if model else {}
    columns: dict[str, list[Any]] = {}
    count = 0
    for count, row in enumerate(rows, start=1):
        for name, cell in _cells(row, declared).items():
            column = columns.setdefault(name, [])
            column.extend([None] * (count - 1 - len(column)))
            column.append(cell)
    for column in columns.values():
        column.extend([None] * (count - len(column)))
    return pa.table({name: _array(values, declared.get(name)) for name, values in columns.items()})


def study_table(study: StudyResult) -> pa.Table:
    """Lay the experiments of a study out, a row each, with the place of each in the study."""
    rows = (experiment.model_dump(mode="json") for experiment in study.experiments)
    table = rows_table(rows, ExperimentResult)
    for name in reversed(Placement.model_fields if study.placements else ()):
        values = make_column([getattr(place, name) for place in study.placements], "int64")
        table = table.add_column(0, f"study.{name}", values)
    return table


def _array(values: list[Any], kind: Kind | None) -> pa.Array:
    kind = kind or kind_of(values)
    if kind == "string":
        values = [None if value is None else str(value) for value in values]
    return make_column(values, kind)


def _cells(data: Mapping[str, Any], declared: Mapping[str, Kind]) -> dict[str, Any]:
    """Lay out a row: declared columns, then the entries of free mappings that are not null."""
    leaves = dict(flatten(data))
    values: dict[str, Any] = {name: _cell(leaves.get(name)) for name in declared}
    free = {name: _cell(leaf) for name, leaf in leaves.items() if name not in declared}
    return values | {name: value for name, value in free.items() if value is not None}


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _declared_columns(model: type[BaseModel]) -> Iterator[tuple[str, Kind]]:
    for field in introspection.fields(model):
        kinds = {
            option.get("type", "string")
            for option in field.schema.get("anyOf", [field.schema])
            if option.get("type") != "null"
        }
        kind = kinds.pop() if len(kinds) == 1 else "string"
        if kind != "object":
            yield field.name, _KINDS.get(kind, "string")


def _file(path: Path) -> Path:
    return path / RESULT_NAME if path.is_dir() else path


def _parse(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _missing(file) from None
    except OSError as error:
        raise _error(file, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _error(file, "is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise _error(
            file, f"is damaged or cut short: line {error.lineno} is not valid JSON ({error.msg})"
        ) from None
    except (ValueError, RecursionError):  # digits without end, nesting without end
        raise _error(file, "is not valid JSON") from None


def _migrated(
    data: dict[str, Any], file: Path, current: str, migrations: Migrations
) -> dict[str, Any]:
    known = _version(current)
    while (version := _version(data.get("schema_version"))) != known:
        if version is None:
            raise _error(file, "has no valid schema_version; it is damaged")
        if known is not None and version > known:
            raise _error(
                file,
                f"has schema {data['schema_version']}; this version of llenergymeasure reads up to "
                f"{current}. Upgrade it: pip install --upgrade llenergymeasure",
            )
        step = migrations.get(data["schema_version"])
        if step is None:
            raise _error(file, f"has schema {data['schema_version']}, which never existed")
        data = step(data)
    return data


def _version(text: Any) -> tuple[int, ...] | None:
    parts = text.split(".") if isinstance(text, str) else []
    valid = parts and all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts)
    return tuple(int(part) for part in parts) if valid else None


def _what_else(data: Any) -> str:
    study = isinstance(data, dict) and "study_design_hash" in data
    return "; it is that of a study" if study else ""


def _missing(file: Path) -> LLEMError:
    failed = file.with_name(ERROR_NAME)
    hint = f"; the experiment failed, see {failed}" if failed.exists() else ""
    return LLEMError(f"there is no result at {file}{hint}", where=str(file))


def _wrong_fields(file: Path, error: ValidationError) -> LLEMError:
    lines = error.errors(include_url=False, include_input=False)
    named = [f"{_dotted(line['loc'])}: {line['msg']}" for line in lines[:_MOST_PROBLEMS]]
    more = [f"and {len(lines) - _MOST_PROBLEMS} more"] if len(lines) > _MOST_PROBLEMS else []
    listed = "\n".join(f"  {line}" for line in named + more)
    return LLEMError(
        f"{file} does not hold a valid result:\n{listed}",
        where=f"{file}, {_dotted(lines[0]['loc'])}",
    )


def _dotted(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "the whole"


def _cannot_write(path: Path, error: OSError) -> LLEMError:
    return _error(path, f"cannot be written: {error.strerror or error}")


def _error(file: Path, problem: str) -> LLEMError:
    return LLEMError(f"{file} {problem}", where=str(file))
