"""Which tokens end a sequence, told from the files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.core.models import sources
from llenergymeasure.core.models.tokenizers import HFTokenizer, end_tokens


def ends(
    folder: Path, config: dict[str, Any], shipped: dict[str, Any] | None, tokenizer: int | None
) -> tuple[int, ...]:
    (folder / "config.json").write_text(json.dumps(config))
    if shipped is not None:
        (folder / "generation_config.json").write_text(json.dumps(shipped))
    inner = SimpleNamespace(eos_token_id=tokenizer)
    return end_tokens(sources.resolve(str(folder)), HFTokenizer(inner, lambda _: None))


@pytest.mark.parametrize(
    ("config", "shipped", "tokenizer", "expected"),
    [
        ({"eos_token_id": 2}, {"eos_token_id": [7, 8]}, 9, (2, 7, 8, 9)),
        ({"eos_token_id": [2, 3]}, {"eos_token_id": 2}, 2, (2, 3)),
        ({"eos_token_id": 2}, None, None, (2,)),
        ({}, {}, 0, (0,)),
        ({"text_config": {"eos_token_id": 4}}, {"eos_token_id": None}, None, (4,)),
        ({}, None, None, ()),
    ],
)
def test_every_file_of_a_model_may_state_some(tmp_path, config, shipped, tokenizer, expected):
    assert ends(tmp_path, config, shipped, tokenizer) == expected


def test_a_generation_config_that_cannot_be_read_states_none(tmp_path):
    (tmp_path / "generation_config.json").write_text("{")

    assert ends(tmp_path, {"eos_token_id": 2}, None, None) == (2,)


def test_a_model_on_a_hub_that_cannot_be_reached_has_those_of_its_tokenizer(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    tokenizer = HFTokenizer(SimpleNamespace(eos_token_id=5), lambda _: None)

    assert end_tokens(sources.resolve("org/absent"), tokenizer) == (5,)
