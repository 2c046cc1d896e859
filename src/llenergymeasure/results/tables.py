"""Raw samples as Parquet: requests and readings, one column a field.

Tables are built column by column; a million requests take seconds. Every table says in its schema
what its columns mean, which clock its times are on, and where on that clock the window began.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args, get_type_hints

from llenergymeasure import plain_files
from llenergymeasure.domain.energy import Reading
from llenergymeasure.domain.results import SCHEMA_VERSION
from llenergymeasure.domain.samples import (
    RawProcessResult,
    RequestSample,
    Window,
    WindowName,
    WindowReadings,
)
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.results.columns import Kind, arrow_type, make_column
from llenergymeasure.results.files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

CLOCK = "CLOCK_MONOTONIC"


class Column(NamedTuple):
    """One column of a table: the field of the same name, its type, and what it means."""

    name: str
    type: Kind
    nullable: bool
    description: str


_KINDS: Mapping[object, Kind] = {int: "int64", float: "float64", tuple[int, ...]: "list<int64>"}


def _columns_of(row: type) -> Iterator[Column]:
    """Make a column of every field of a row, whose annotation says what it means."""
    for name, hint in get_type_hints(row, include_extras=True).items():
        declared, description = get_args(hint)
        options = set(get_args(declared) if isinstance(declared, UnionType) else (declared,))
        (kind,) = options - {NoneType}
        yield Column(name, _KINDS.get(kind, "string"), NoneType in options, description)


REQUEST_COLUMNS = (
    Column("process", "int64", False, "Process it was a share of, from 0."),
    *_columns_of(RequestSample),
)
READING_COLUMNS = (
    Column("window", "string", False, "Window it belongs to, e.g. measure or loaded_idle."),
    *_columns_of(Reading),
)


def write_requests(processes: Sequence[RawProcessResult], path: Path) -> None:
    """Write one row a request, process after process.

    Args:
        processes: What each process measured; the schema's metadata says from when to when.
        path: Where to.

    Raises:
        ExperimentError: It cannot be written.
    """
    rows = [sample for share in processes for sample in share.requests]
    numbers = chain.from_iterable(
        repeat(share.process_index, len(share.requests)) for share in processes
    )
    starts, ends = zip(*((s.window.t0_ns, s.window.t1_ns) for s in processes), strict=True)
    about = _about(Window(min(starts), max(ends)))
    _write(rows, {"process": list(numbers)}, REQUEST_COLUMNS, path, about)


def write_timeseries(windows: Sequence[WindowReadings], path: Path) -> None:
    """Write one row a reading, window after window.

    Args:
        windows: What was read around each window. The schema's metadata says from when to when
            the measured one lasted (``t0_ns``, ``t1_ns``), and every one by name (``windows``).
        path: Where to.

    Raises:
        ExperimentError: It cannot be written.
    """
    rows = [reading for one in windows for reading in one.readings]
    names = chain.from_iterable(repeat(one.name, len(one.readings)) for one in windows)
    spans = {one.name: one.window for one in windows}
    edges = {name: (span.t0_ns, span.t1_ns) for name, span in spans.items()}
    about = {**_about(spans["measure"]), "windows": json.dumps(edges)}
    _write(rows, {"window": list(names)}, READING_COLUMNS, path, about)


def read_requests(path: Path) -> tuple[RequestSample, ...]:
    """Read the requests of all processes back, as they were written.

    Raises:
        LLEMError: The file is missing or damaged, or a column is.
    """
    columns, _ = _read(path, REQUEST_COLUMNS)
    for name in ("gaps_ns", "gap_tokens"):
        columns[name] = [None if cell is None else tuple(cell) for cell in columns[name]]
    del columns["process"]
    rows = zip(*columns.values(), strict=True)
    return tuple(RequestSample(**dict(zip(columns, row, strict=True))) for row in rows)


class RequestCounts(NamedTuple):
    """What the requests of a file come to; the names are those of ``ThroughputResult``.

    Attributes:
        requests_completed: Requests that ended well.
        requests_failed: Requests that failed.
        input_tokens: Prompt tokens of those that ended well.
        output_tokens: Tokens that they produced.
    """

    requests_completed: int
    requests_failed: int
    input_tokens: int
    output_tokens: int


def count_requests(path: Path) -> RequestCounts:
    """Count the requests of all processes and passes; errors as for :func:`read_requests`."""
    wanted = ("finish", "input_tokens", "output_tokens")
    columns, _ = _read(path, [column for column in REQUEST_COLUMNS if column.name in wanted])
    rows = zip(*(columns[name] for name in wanted), strict=True)
    done = [tokens for finish, *tokens in rows if finish != "failed"]
    inputs, outputs = (sum(tokens) for tokens in zip(*done, strict=True)) if done else (0, 0)
    return RequestCounts(len(done), len(columns["finish"]) - len(done), inputs, outputs)


def read_timeseries(path: Path) -> tuple[WindowReadings, ...]:
    """Read the readings of every window back; errors as for :func:`read_requests`."""
    columns, about = _read(path, READING_COLUMNS)
    readings = map(Reading, *(columns[column.name] for column in READING_COLUMNS[1:]))
    by_window: dict[str, list[Reading]] = {name: [] for name in about}
    for name, reading in zip(columns["window"], readings, strict=True):
        by_window[name].append(reading)
    return tuple(
        WindowReadings(cast("WindowName", name), Window(*about[name]), tuple(rows))
        for name, rows in by_window.items()
    )


def _write(
    rows: Sequence[Any],
    given: Mapping[str, Sequence[Any]],
    columns: Sequence[Column],
    path: Path,
    about: Mapping[str, str],
) -> None:
    """Write the fields of rows, beside columns that are given whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [
        pa.field(one.name, arrow_type(one.type), one.nullable, {"description": one.description})
        for one in columns
    ]
    arrays = [
        make_column(
            given.get(column.name) or [getattr(row, column.name) for row in rows], column.type
        )
        for column in columns
    ]
    table = pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=dict(about)))
    write_atomically(path, lambda sink: pq.write_table(table, sink, compression="zstd"))


def _about(window: Window) -> dict[str, str]:
    return {
        "schema_version": SCHEMA_VERSION,
        "clock": CLOCK,
        "t0_ns": str(window.t0_ns),
        "t1_ns": str(window.t1_ns),
    }


def _read(
    path: Path, columns: Sequence[Column]
) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
    """Give the columns, and the windows the metadata speaks of.

    A column that may be null may be absent, as in a file that was written before there was one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with plain_files.opened(path) as source:
            table = pq.read_table(source)
        windows = json.loads((table.schema.metadata or {}).get(b"windows", b"{}"))
        return {column.name: _cells(table, column) for column in columns}, windows
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except KeyError as error:
        raise _unreadable(path, f"it has no column {error}") from None
    except pa.ArrowException as error:
        raise _unreadable(path, f"it is damaged ({error})") from None


def _cells(table: pa.Table, column: Column) -> list[Any]:
    if column.nullable and column.name not in table.column_names:
        return [None] * table.num_rows
    cells: list[Any] = table.column(column.name).to_pylist()
    return cells


def _unreadable(path: Path, reason: str) -> LLEMError:
    return LLEMError(f"cannot read {path}: {reason}", where=str(path))
