"""What is estimated before a model loads is what it then takes, cell by cell of the benchmark."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from memory_estimates import HIGHEST, LOWEST, ONE_BILLION, Cell, cells, measure, without_holes

LINUX = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="peaks are read from Linux's /proc"
)


def named(cell: Cell) -> str:
    return "-".join(str(part) for part in cell)


@LINUX
@pytest.mark.parametrize("cell", cells(quick=True)[:12:6], ids=named)
def test_what_is_alive_at_once_in_a_tiny_model_is_what_was_counted(
    cell: Cell, tmp_path: Path
) -> None:
    # Without the holes of a heap, whose number is luck, growth is the same in every run.
    assert LOWEST <= without_holes(cell, tmp_path)["alive_ratio"] <= HIGHEST


@LINUX
@pytest.mark.exhaustive
@pytest.mark.parametrize("cell", cells(), ids=named)
def test_the_growth_of_any_cell_is_what_was_estimated(cell: Cell, tmp_path: Path) -> None:
    whole_mb = 6_000 if cell.precision == "fp32" else 3_500
    free_mb = psutil.virtual_memory().available >> 20
    if cell.model == ONE_BILLION and free_mb < whole_mb:
        pytest.skip(f"it takes {whole_mb} MiB, and {free_mb} are free")
    found = measure(cell, tmp_path)
    assert found["ratio"] >= LOWEST, found
    # Free memory that loading left in the heap is used first, so that growth may be far less.
    assert 0.95 <= found["whole_estimate_mb"] / found["whole_mb"] <= 1.25, found
    assert 0.8 <= found["alive_ratio"] <= 1.5, found
