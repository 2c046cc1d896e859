"""Of every causal type of transformers: figures from its shape are exact, or null with a reason.

The types are built on no device, with the sizes that transformers gives them by default.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from llenergymeasure.core.backends.shared.engines import understood
from llenergymeasure.core.flops import Execution, prefill_flops
from llenergymeasure.core.models.counted import TOLERANCE, doubt
from tests.support import causal_types
from tests.support.causal_types import TOKENS

pytest.importorskip("torch", reason="needs the pytorch extra")
pytest.importorskip("transformers", reason="needs the pytorch extra")

SOME = (
    "bitnet",
    "bloom",
    "deepseek_v3",
    "ernie4_5_moe",
    "falcon_h1",
    "gemma3_text",
    "glm4_moe",
    "gpt2",
    "granitemoehybrid",
    "jamba",
    "lfm2",
    "llama",
    "llama4_text",
    "mixtral",
    "mpt",
    "opt",
    "qwen3",
    "qwen3_next",
)
DOUBTFUL = ("reformer", "xlstm")
"""Types that the formulas do not know."""


def judged(name: str) -> str:
    """Say of a type ``exact``, ``null``, or what is wrong with its figures."""
    built = causal_types.build(name)
    shape = understood(built.config)
    if shape is None or doubt(shape, built.counted) is not None:
        return "null"
    if built.counted is None:
        return "its parameters cannot be counted"
    work = causal_types.work_of(built.model)
    phase = prefill_flops(
        shape, np.array([float(TOKENS)]), execution=Execution("all", transformers=True)
    )
    lm_head = phase.lm_head * work.logit_rows
    for what, read, ran in (
        ("products with weights", phase.linear + lm_head, work.linear),
        ("attention", phase.attention, work.attention),
    ):
        if abs(read - ran) > TOLERANCE * ran:
            return f"{what}: {read:,.0f} instead of {ran:,}"
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
    counts = Counter("wrong" if one in wrong.values() else one for one in verdicts.values())
    with capsys.disabled():
        print(f"\n{len(verdicts)} causal types: {dict(counts)}")
    assert not wrong
    assert counts["exact"] >= len(SOME)
