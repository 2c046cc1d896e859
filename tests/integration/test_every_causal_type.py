"""Of every causal type of transformers: figures from its shape are exact, or null with a reason.

The types are built on no device, with the sizes that transformers gives them by default.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from llenergymeasure.core.backends.shared.engines import understood
from llenergymeasure.core.flops import Execution, prefill_flops
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.counted import TOLERANCE, count, doubt
from tests.support import causal_types

torch = pytest.importorskip("torch", reason="needs the pytorch extra")
pytest.importorskip("transformers", reason="needs the pytorch extra")
flop_counting = pytest.importorskip("tests.support.flop_counting")

TOKENS = 16
EAGER = Execution("all", transformers=True)
SOME = (
    "bitnet",
    "bloom",
    "deepseek_v3",
    "ernie4_5_moe",
    "gemma3",
    "gemma4_text",
    "glm4_moe",
    "gpt2",
    "jamba",
    "lfm2",
    "llama",
    "llama4",
    "mamba2",
    "mixtral",
    "mpt",
    "opt",
    "qwen3",
    "qwen3_next",
)
DOUBTFUL = ("biogpt", "xlstm")
"""Types that the formulas do not know."""


def judged(name: str) -> str:
    """Say of a type ``exact``, ``null``, or what is wrong with its figures."""
    verdict = "it cannot be built"
    for model in causal_types.models(name):
        shape, held = understood(model.config.to_dict()), count(model)
        if shape is None or doubt(shape, held) is not None:
            return "null"
        if held is None or held.active is None:
            return "its parameters cannot be counted"
        try:
            return compared(shape, work_of(model))
        except (RuntimeError, ValueError) as error:
            verdict = f"it cannot be run: {error}"
    shapes = [understood(config.to_dict()) for config in causal_types.configurations(name)]
    return "null" if all(one is None or one.doubt for one in shapes) else verdict


def work_of(model: Any) -> flop_counting.Counted:
    """Count a pass; some models look at what tokens are without a mask, and some with one."""
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    try:
        return flop_counting.count(model, ids)[0]
    except RuntimeError:
        return flop_counting.count(model, ids, attention_mask=torch.ones_like(ids))[0]


def compared(shape: ModelArchitecture, ran: flop_counting.Counted) -> str:
    """Hold the operations of a shape against those that PyTorch counted."""
    phase = prefill_flops(shape, np.array([float(TOKENS)]), execution=EAGER)
    for what, read, counted in (
        ("matrices", phase.linear + phase.lm_head, ran.matrices),
        ("attention", phase.attention, ran.attention),
    ):
        if abs(read - counted) > TOLERANCE * counted:
            return f"{what}: {read:,.0f} instead of {counted:,}"
    if (phase.recurrence > 0) != (ran.recurrence > 0):
        return f"recurrence: {phase.recurrence:,.0f}, and PyTorch sees {ran.recurrence:,}"
    return "exact"


@pytest.mark.parametrize("name", SOME)
def test_figures_of_a_family_that_people_run_are_exact(name: str) -> None:
    assert judged(name) == "exact"


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_the_formulas_do_not_know_is_null(name: str) -> None:
    assert judged(name) == "null"


@pytest.mark.exhaustive
def test_no_causal_type_has_a_wrong_figure(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = {name: judged(name) for name in causal_types.names()}
    wrong = {name: one for name, one in verdicts.items() if one not in ("exact", "null")}
    counts = Counter("wrong" if name in wrong else one for name, one in verdicts.items())
    with capsys.disabled():
        print(f"\n{len(verdicts)} causal types: {dict(counts)}")
    assert not wrong
    assert counts["exact"] > 80
