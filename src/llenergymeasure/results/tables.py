"""Raw samples as Parquet: requests and readings, one column a field.

Tables are built column by column; a million requests take seconds. Every table says in its schema
what its columns mean, which clock its times are on, and where on that clock the window began.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llenergymeasure.domain.energy import Reading
from llenergymeasure.domain.results import SCHEMA_VERSION
from llenergymeasure.domain.samples import RequestSample, Window
from llenergymeasure.exceptions import LLEMError
from llenergymeasure.results.persistence import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

CLOCK = "CLOCK_MONOTONIC"


class Column(NamedTuple):
    """One column of a table: the field of the same name, its type, and what it means."""

    name: str
    type: Literal["int64", "float64", "string", "list<int64>"]
    nullable: bool
    description: str


REQUEST_COLUMNS = (
    Column("request", "int64", False, "Position of the prompt in the dataset."),
    Column("pass_index", "int64", False, "Pass over the prompts, from 0."),
    Column("batch_index", "int64", False, "Batch of that pass, from 0."),
    Column("input_tokens", "int64", False, "Tokens of the prompt as the engine got it."),
    Column("padded_input_tokens", "int64", False, "Prompt positions computed, with padding."),
    Column("output_tokens", "int64", False, "Tokens produced, end of sequence included."),
    Column("executed_output_tokens", "int64", False, "Steps, those after its own end included."),
    Column("issued_ns", "int64", False, "Handed to the engine, ns."),
    Column("scheduled_ns", "int64", False, "Work on it began, ns."),
    Column("first_token_ns", "int64", True, "Its first token was there, ns."),
    Column("last_token_ns", "int64", True, "Its last token was there, ns."),
    Column("delivered_ns", "int64", True, "Handed back; in a static batch, its end, ns."),
    Column("gaps_ns", "list<int64>", True, "Between successive arrivals of tokens, ns."),
    Column("gap_tokens", "list<int64>", True, "Tokens of each of these gaps; null: one each."),
    Column("finish", "string", False, "Why it ended: length, stop or failed."),
    Column("error", "string", True, "What went wrong, for a failed one."),
)
READING_COLUMNS = (
    Column("channel", "string", False, "What was read, with its unit, e.g. gpu_power_w."),
    Column("device", "string", False, "UUID or name of the device it belongs to."),
    Column("before_ns", "int64", False, "Just before the read, ns."),
    Column("after_ns", "int64", False, "Just after the read, ns."),
    Column("value", "float64", False, "What was read, in the unit the channel names."),
)


def write_requests(samples: Sequence[RequestSample], path: Path, window: Window) -> None:
    """Write one row a request.

    Args:
        samples: The requests.
        path: Where to.
        window: When they were measured, kept in the schema's metadata.

    Raises:
        ExperimentError: It cannot be written.
    """
    _write(samples, REQUEST_COLUMNS, path, window)


def write_timeseries(readings: Sequence[Reading], path: Path, window: Window) -> None:
    """Write one row a reading; arguments and errors as for :func:`write_requests`."""
    _write(readings, READING_COLUMNS, path, window)


def read_requests(path: Path) -> tuple[RequestSample, ...]:
    """Read the requests back, as they were written.

    Raises:
        LLEMError: The file is missing or damaged, or a column is.
    """
    columns = _read(path, REQUEST_COLUMNS)
    for name in ("gaps_ns", "gap_tokens"):
        columns[name] = [None if cell is None else tuple(cell) for cell in columns[name]]
    return tuple(map(RequestSample, *(columns[column.name] for column in REQUEST_COLUMNS)))


def read_timeseries(path: Path) -> tuple[Reading, ...]:
    """Read the readings back; errors as for :func:`read_requests`."""
    columns = _read(path, READING_COLUMNS)
    return tuple(map(Reading, *(columns[column.name] for column in READING_COLUMNS)))


def _write(rows: Sequence[Any], columns: Sequence[Column], path: Path, window: Window) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(columns, window)
    arrays = [
        pa.array([getattr(row, field.name) for row in rows], type=field.type) for field in schema
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    write_atomically(path, lambda sink: pq.write_table(table, sink, compression="zstd"))


def _schema(columns: Sequence[Column], window: Window) -> pa.Schema:
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "list<int64>": pa.list_(pa.int64()),
    }
    fields = [
        pa.field(
            column.name, types[column.type], column.nullable, {"description": column.description}
        )
        for column in columns
    ]
    about = {
        "schema_version": SCHEMA_VERSION,
        "clock": CLOCK,
        "t0_ns": str(window.t0_ns),
        "t1_ns": str(window.t1_ns),
    }
    return pa.schema(fields, metadata=about)


def _read(path: Path, columns: Sequence[Column]) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as source:
            table = pq.read_table(source)
        return {column.name: table.column(column.name).to_pylist() for column in columns}
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    except KeyError as error:
        raise _unreadable(path, f"it has no column {error}") from None
    except pa.ArrowException as error:
        raise _unreadable(path, f"it is damaged ({error})") from None


def _unreadable(path: Path, reason: str) -> LLEMError:
    return LLEMError(f"cannot read {path}: {reason}", where=str(path))
