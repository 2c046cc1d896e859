"""No input, however odd, ends in a traceback, a wait without end, or a wall of text.

Every case is made from a seed, which a failure names. 500 of them are looked at here and in the
tests of results and models, 10,000 by ``make test-exhaustive``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401 - or a clock would run while the first case imports it

from llenergymeasure import ExperimentConfig, run_experiment
from llenergymeasure.exceptions import PreFlightError
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


@pytest.mark.parametrize(
    "path", ["/x\0", "~nosuchuser/x", "/" + "x" * 5_000, "loop/x", "/dev/null/x"]
)
@pytest.mark.parametrize(
    "fields",
    [
        {"model": "{}"},
        {"model": "random:{}"},
        {"dataset": "{}.jsonl"},
        {"lora": {"adapter_path": "{}"}},
        {"decoder": {"speculative_decoding": True, "draft_model": "{}"}},
        {"backend": "scripted", "scripted": {"load_log": "{}/x"}},
    ],
)
def test_a_path_that_can_lead_nowhere_is_a_problem_of_its_field(
    fields: dict[str, Any], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    (field,) = [name for name in fields if name not in ("backend",)]
    config = ExperimentConfig.model_validate(
        {"model": "random:tiny-llama", "energy_backend": "none", "n": 2, **with_path(fields, path)}
    )

    found = fuzz.check_call(lambda: run_experiment(config))

    assert isinstance(found, PreFlightError)
    assert any(problem.where.startswith(field) for problem in found.problems), found.message


def with_path(fields: Any, path: str) -> Any:
    if isinstance(fields, dict):
        return {name: with_path(value, path) for name, value in fields.items()}
    return fields.replace("{}", path) if isinstance(fields, str) else fields
