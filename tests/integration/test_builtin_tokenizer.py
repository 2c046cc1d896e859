"""Tests of the small tokenizer that is shipped with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

tokenizers = pytest.importorskip("tokenizers")

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "src/llenergymeasure/core/models/tokenizer"
PROMPTS = REPOSITORY / "src/llenergymeasure/datasets/builtin/mixed-1k.jsonl"
SPECIALS = ["<s>", "</s>", "<pad>"]
FOREIGN_TEXTS = [
    "Zürich, 21 °C, naïve café",
    "Привет, мир",
    "京都の秋",
    "emoji 🚲 and tabs\tand\r\nlines",
    "  two leading spaces",
]


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    """Return the shipped tokenizer."""
    return tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def sampled_prompts() -> list[str]:
    """Return every fiftieth prompt of the packaged dataset."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()[1:]
    return [json.loads(line)["prompt"] for line in lines[::50]]


def test_vocabulary_has_a_thousand_entries(tokenizer: tokenizers.Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == 1000


def test_special_tokens_have_the_first_numbers(tokenizer: tokenizers.Tokenizer) -> None:
    assert [tokenizer.token_to_id(token) for token in SPECIALS] == [0, 1, 2]


@pytest.mark.parametrize("text", [*sampled_prompts(), *FOREIGN_TEXTS])
def test_text_survives_encoding_and_decoding(tokenizer: tokenizers.Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_encoding_adds_no_special_tokens(tokenizer: tokenizers.Tokenizer) -> None:
    encoded = tokenizer.encode("The lion is a large cat.").ids
    assert not set(encoded) & {0, 1, 2}


def test_training_again_gives_the_shipped_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    from make_tokenizer import tokenizer_text

    assert tokenizer_text() == (FOLDER / "tokenizer.json").read_text(encoding="utf-8")


def test_transformers_loads_a_fast_tokenizer_with_its_special_tokens() -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(str(FOLDER))
    assert loaded.is_fast
    assert [loaded.bos_token, loaded.eos_token, loaded.pad_token] == SPECIALS
    text = "Zürich at 21 °C, and rain ."
    assert loaded.decode(loaded(text)["input_ids"]) == text
