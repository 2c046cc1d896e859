"""Columns of a table from plain Python values, laid out in Arrow's own buffers.

``pyarrow.array`` imports pandas wherever it is installed, which takes longer than all that an
experiment writes. The layout is that of https://arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["int64", "float64", "bool", "string", "list<int64>"]


def make_column(values: Sequence[Any], kind: Kind) -> pa.Array:
    """Give values, of which some may be ``None``, as an Arrow array of a kind."""
    if kind == "string":
        texts = [b"" if value is None else value.encode() for value in values]
        return _array(values, kind, [_offsets(texts), _buffer(b"".join(texts))])
    if kind == "list<int64>":
        cells = [() if value is None else value for value in values]
        inside = make_column(list(chain.from_iterable(cells)), "int64")
        return _array(values, kind, [_offsets(cells)], [inside])
    if kind == "bool":
        return _array(values, kind, [_bits(values)])
    return _array(values, kind, [_numbers(values, kind)])


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


def _array(
    values: Sequence[Any], kind: Kind, buffers: list[pa.Buffer], children: Sequence[pa.Array] = ()
) -> pa.Array:
    import pyarrow as pa

    return pa.Array.from_buffers(
        arrow_type(kind), len(values), [_validity(values), *buffers], children=children
    )


def _validity(values: Sequence[Any]) -> pa.Buffer | None:
    if all(value is not None for value in values):
        return None
    return _bits([value is not None for value in values])


def _bits(values: Sequence[Any]) -> pa.Buffer:
    import numpy as np

    bits = np.fromiter(map(bool, values), bool, len(values))
    return _buffer(np.packbits(bits, bitorder="little"))


def _numbers(values: Sequence[Any], kind: Kind) -> pa.Buffer:
    import numpy as np

    filled = (0 if value is None else value for value in values)
    return _buffer(np.fromiter(filled, np.dtype(kind), len(values)))


def _offsets(cells: Sequence[Any]) -> pa.Buffer:
    import numpy as np

    ends = np.cumsum([0, *map(len, cells)], dtype=np.int64)
    if ends[-1] > np.iinfo(np.int32).max:
        raise OverflowError("a column holds more than Arrow's 32-bit offsets reach")
    return _buffer(ends.astype(np.int32))


def _buffer(data: Any) -> pa.Buffer:
    import pyarrow as pa

    return pa.py_buffer(data)
