"""Tables of results, a row each, and columns of plain Python values in Arrow's own buffers.

``pyarrow.array`` imports pandas wherever it is installed, which takes longer than all that an
experiment writes. The layout is that of https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pydantic import BaseModel

from llenergymeasure.config import introspection
from llenergymeasure.config.base import flatten
from llenergymeasure.config.secrets import redacted
from llenergymeasure.domain.results import ExperimentResult, Placement, StudyResult
from llenergymeasure.results import files

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["int64", "float64", "bool", "string", "list<int64>"]

_KINDS: Mapping[str, Kind] = {
    "number": "float64",
    "integer": "int64",
    "boolean": "bool",
    "string": "string",
}


def write_row(result: BaseModel, path: Path) -> None:
    """Write a result as one row of a Parquet file; see :func:`rows_table`.

    Raises:
        LLEMError: The file cannot be written.
    """
    content = io.BytesIO()
    fill_row(result, content)
    files.write(path, content.getvalue())


def fill_row(result: BaseModel, sink: BinaryIO) -> None:
    """Write a result as one row of Parquet; see :func:`rows_table`."""
    import pyarrow.parquet as pq

    pq.write_table(rows_table([result], type(result)), sink)


def rows_table(
    results: Iterable[BaseModel],
    model: type[BaseModel],
    leave_out: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Lay results out as an Arrow table, a row each; nested fields become dotted columns.

    Every field the model declares is a column of its declared type, so that tables of different
    results can be put together even where one of them has nulls. Entries of free mappings are
    columns where they are not null; one that is text in one row and a number in another becomes
    text in all of them, as do whole numbers beyond 63 bits. Lists become JSON text.

    Args:
        results: The results.
        model: What they are.
        leave_out: Fields that get no column, as ``exclude`` of ``model_dump`` takes them.
    """
    import pyarrow as pa

    declared = dict(_declared_columns(model))
    rows = [
        _cells(result.model_dump(mode="json", exclude=leave_out), declared) for result in results
    ]
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        kind = declared.get(name) or kind_of(values)
        if not _fits(values, kind):
            kind = "string"
        if kind == "string":
            values = [None if value is None else str(value) for value in values]
        columns[name] = make_column(values, kind)
    return pa.table(columns)


def study_table(study: StudyResult) -> pa.Table:
    """Lay the experiments of a study out, a row each, with place and label of each in the study.

    What is installed is left out: it would be hundreds of columns.
    """
    leave_out = {"environment": {"packages"}}
    table = rows_table(study.experiments, ExperimentResult, leave_out)
    labels = {one.id: one.label for one in study.configurations}
    for name in reversed(Placement.model_fields if study.placements else ()):
        values = make_column([getattr(place, name) for place in study.placements], "int64")
        table = table.add_column(0, f"study.{name}", values)
    if study.placements:
        told = [labels.get(place.configuration) for place in study.placements]
        table = table.add_column(1, "study.label", make_column(told, "string"))
    return table


def _declared_columns(model: type[BaseModel]) -> Iterator[tuple[str, Kind]]:
    for field in introspection.fields(model):
        options = field.schema.get("anyOf", [field.schema])
        types = {option.get("type", "string") for option in options} - {"null"}
        kind = types.pop() if len(types) == 1 else "string"
        if kind != "object":
            yield field.name, _KINDS.get(kind, "string")


def _cells(data: Mapping[str, Any], declared: Mapping[str, Kind]) -> dict[str, Any]:
    leaves = {
        name: json.dumps(value) if isinstance(value, list | tuple) else value
        for name, value in flatten(data)
    }
    free = {name: value for name, value in leaves.items() if value is not None}
    return {name: leaves.get(name) for name in declared} | free


def make_column(values: Sequence[Any], kind: Kind) -> pa.Array:
    """Give values, of which some may be ``None``, as an Arrow array; no text is a credential."""
    import numpy as np
    import pyarrow as pa

    there = [value is not None for value in values]
    buffers, inside = [None if all(there) else _bits(there)], []
    if kind == "string":
        distinct = list(dict.fromkeys(values))  # few, as a rule
        told = dict(zip(distinct, redacted(distinct), strict=True))
        texts = [(told[value] or "").encode(errors="backslashreplace") for value in values]
        buffers += [_offsets(texts), pa.py_buffer(b"".join(texts))]
    elif kind == "list<int64>":
        cells = [() if value is None else value for value in values]
        buffers.append(_offsets(cells))
        inside.append(make_column(list(chain.from_iterable(cells)), "int64"))
    elif kind == "bool":
        buffers.append(_bits(values))
    else:
        filled = (0 if value is None else value for value in values)
        buffers.append(pa.py_buffer(np.fromiter(filled, np.dtype(kind), len(values))))
    return pa.Array.from_buffers(arrow_type(kind), len(values), buffers, children=inside)


def kind_of(values: Iterable[Any]) -> Kind:
    """Give the kind that holds all of some plain values; text, where they have nothing in common.

    Whole numbers and fractions together are fractions.
    """
    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return "bool"
    if types == {int}:
        return "int64"
    return "float64" if types and types <= {int, float} else "string"


def _fits(values: Iterable[Any], kind: Kind) -> bool:
    """Tell whether no whole number is too large; users may write any into a configuration."""
    large = 1 << 63
    return kind not in ("int64", "float64") or not any(
        isinstance(value, int) and abs(value) >= large for value in values
    )


def arrow_type(kind: Kind) -> pa.DataType:
    """Give the type of a column."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "list<int64>": pa.list_(pa.int64()),
    }
    return types[kind]


def _bits(values: Sequence[Any]) -> pa.Buffer:
    import numpy as np
    import pyarrow as pa

    bits = np.fromiter(map(bool, values), bool, len(values))
    return pa.py_buffer(np.packbits(bits, bitorder="little"))


def _offsets(cells: Sequence[Any]) -> pa.Buffer:
    import numpy as np
    import pyarrow as pa

    ends = np.cumsum([0, *map(len, cells)], dtype=np.int64)
    if ends[-1] > np.iinfo(np.int32).max:
        raise OverflowError("a column holds more than Arrow's 32-bit offsets reach")
    return pa.py_buffer(ends.astype(np.int32))
