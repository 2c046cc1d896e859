"""No directory of a model, however odd, ends in a traceback or a wait without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import fuzz
from tests.support.fuzz_models import model_directory


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(20), id="some"),
        pytest.param(range(20, 1000), id="many", marks=pytest.mark.exhaustive),
    ],
)
def test_any_model_gets_a_clear_word(seeds: range, tmp_path: Path) -> None:
    fuzz.hold(model_directory, seeds, tmp_path)
