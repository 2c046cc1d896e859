"""Columns laid out by hand are what PyArrow itself would make of the same values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.results.columns import Kind, arrow_type, kind_of, make_column, rows_table
from tests.support.make_result import make_result

INTEGERS = st.integers(-(2**63), 2**63 - 1)
CELLS: dict[Kind, st.SearchStrategy[Any]] = {
    "int64": INTEGERS,
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(),
    "list<int64>": st.lists(INTEGERS, max_size=4).map(tuple),
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_column_holds_what_it_was_given(kind: Kind) -> None:
    @given(st.lists(st.none() | CELLS[kind]))
    def holds(values: list[Any]) -> None:
        column = make_column(values, kind)
        column.validate(full=True)
        assert column.equals(pa.array(values, arrow_type(kind)))

    holds()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, True], "bool"),
        ([1, None, 2], "int64"),
        ([1, 2.5], "float64"),
        (["a", 1], "string"),
        ([True, 1], "string"),
        ([None], "string"),
        ([], "string"),
    ],
)
def test_the_kind_of_free_values_holds_them_all(values: list[Any], kind: Kind) -> None:
    assert kind_of(values) == kind


def test_a_whole_number_of_any_size_costs_no_table() -> None:
    huge = ExperimentConfig(model="m", passthrough_kwargs={"a": -(10**400)})
    huge = huge.model_copy(update={"max_new_tokens": 10**40})
    usual = ExperimentConfig(model="m", passthrough_kwargs={"a": 0.5})
    table = rows_table([make_result(config=one) for one in (huge, usual)], ExperimentResult)
    assert table["config.max_new_tokens"].to_pylist() == [str(10**40), "128"]
    assert table["config.passthrough_kwargs.a"].to_pylist() == [str(-(10**400)), "0.5"]
