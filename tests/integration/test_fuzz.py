"""No input, however odd, ends in a traceback, a wait without end, or a wall of text.

Every case is made from a seed, which a failure names. 500 of them are looked at here and in the
tests of results and models, 10,000 by ``make test-exhaustive``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import fuzz

SHARES = [
    (fuzz.configuration, 70),
    (fuzz.fields, 90),
    (fuzz.inherited, 20),
    (fuzz.user_configuration, 30),
    (fuzz.flags, 70),
    (fuzz.dataset, 70),
]


@pytest.mark.parametrize(("make", "count"), SHARES)
def test_any_input_gets_a_clear_word(make: fuzz.Maker, count: int, tmp_path: Path) -> None:
    fuzz.hold(make, range(count), tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("make", "count"), SHARES)
def test_any_of_thousands_of_inputs_gets_a_clear_word(
    make: fuzz.Maker, count: int, tmp_path: Path
) -> None:
    fuzz.hold(make, range(count, 20 * count), tmp_path)
