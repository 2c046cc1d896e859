"""What is counted from the source of transformers is what is alive while it generates."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from llenergymeasure.config.models import DecoderConfig
from llenergymeasure.core.backends.pytorch.engine import decoding_options
from llenergymeasure.core.live_tensors import Generation, peak_bytes
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from tests.support.live_bytes import LiveBytes

TYPES = {4: torch.float32, 2: torch.bfloat16}
PLAIN = {"rows": 1, "prompt": 300, "new": 4, "value_bytes": 4, "eager": False}
CASES: list[dict[str, Any]] = [
    {},
    {"eager": True},
    {"eager": True, "value_bytes": 2, "rows": 3},
    {"rows": 4, "padded": True},
    {"rows": 8, "prompt": 4, "new": 60},
    {"rows": 8, "prompt": 4, "new": 60, "eager": True, "value_bytes": 2},
    {"rows": 8, "prompt": 4, "vocab_size": 32_000},
    {"rows": 8, "prompt": 4, "vocab_size": 32_000, "decoder": {"decoding_strategy": "sampling"}},
    {
        "prompt": 4,
        "rows": 4,
        "vocab_size": 32_000,
        "decoder": {"decoding_strategy": "beam", "num_beams": 4},
    },
]
WIDE = [
    {"rows": rows, "prompt": prompt, "value_bytes": size, "eager": eager, "padded": rows > 1}
    for rows, prompt, size, eager in product((1, 8, 32), (16, 200, 700), TYPES, (False, True))
]


def both(case: dict[str, Any]) -> tuple[float, float]:
    """Give the bytes alive at the peak as counted, and as watched."""
    asked = {**PLAIN, "padded": False, "vocab_size": 1024, "decoder": {}, **case}
    data = {**catalogue.config("tiny-llama"), "vocab_size": asked["vocab_size"]}
    decoder = DecoderConfig(**asked["decoder"])
    call = Generation(
        rows=asked["rows"],
        prompt_tokens=asked["prompt"],
        context_tokens=asked["prompt"] + asked["new"],
        value_bytes=asked["value_bytes"],
        eager=asked["eager"],
        padded=asked["padded"],
        decoder=decoder,
    )
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**data),
        dtype=TYPES[asked["value_bytes"]],
        attn_implementation="eager" if asked["eager"] else "sdpa",
    ).eval()
    ids = torch.full((asked["rows"] // (decoder.num_beams or 1), asked["prompt"]), 7)
    mask = torch.ones_like(ids)
    if asked["padded"]:
        mask[0, 0] = 0
    options = GenerationConfig(
        max_new_tokens=asked["new"], pad_token_id=2, use_cache=True, **decoding_options(decoder)
    )
    with torch.no_grad(), LiveBytes(model) as live:
        model.generate(input_ids=ids, attention_mask=mask, generation_config=options)
    return peak_bytes(ModelArchitecture.from_config(data), call), live.peak


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_counted_is_what_is_alive(case: dict[str, Any]) -> None:
    counted, alive = both(case)
    assert 0.97 <= counted / alive <= 1.1


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_what_is_counted_is_what_is_alive_at_every_size(case: dict[str, Any]) -> None:
    counted, alive = both(case)
    assert 0.97 <= counted / alive <= 1.1
