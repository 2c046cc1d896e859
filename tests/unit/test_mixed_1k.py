"""Tests of the packaged prompt dataset."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "scripts"
SHIPPED = REPOSITORY / "src/llenergymeasure/datasets/builtin/mixed-1k.jsonl"
QUANTILES = {0: 2, 0.05: 7, 0.1: 9, 0.25: 36, 0.5: 98, 0.75: 248, 0.9: 603}
LONGEST = 603


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Return every line of the shipped file."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def prompts(rows: list[dict[str, str]]) -> list[str]:
    """Return the shipped prompts."""
    return [row["prompt"] for row in rows[1:]]


@pytest.fixture(scope="module")
def lengths(prompts: list[str]) -> np.ndarray:
    """Return the number of words of every prompt."""
    return np.array([len(prompt.split()) for prompt in prompts])


@pytest.fixture
def script_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the modules of the scripts folder importable."""
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_header_comes_first_and_names_licence_and_script(rows: list[dict[str, str]]) -> None:
    header = rows[0]
    assert "prompt" not in header
    assert header["_provenance"]
    assert header["_description"]
    assert header["_license"] == "MIT"
    assert (REPOSITORY / header["_script"]).is_file()


def test_there_are_a_thousand_prompts_and_nothing_else(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 1001
    assert all(set(row) == {"prompt"} for row in rows[1:])


def test_prompts_are_distinct(prompts: list[str]) -> None:
    assert len(set(prompts)) == len(prompts)


def test_prompts_have_no_unfilled_slots_or_stray_spaces(prompts: list[str]) -> None:
    for prompt in prompts:
        assert prompt == prompt.strip()
        assert "$" not in prompt
        assert "~" not in prompt
        assert "{" not in prompt or "def " in prompt or "class " in prompt


@pytest.mark.usefixtures("script_modules")
def test_the_three_kinds_have_equal_shares_and_take_turns() -> None:
    from mixed_1k.targets import KINDS, kinds_in_file_order

    kinds = kinds_in_file_order()
    assert Counter(kinds) == {"encyclopaedic": 334, "web": 333, "request": 333}
    assert all(kind == KINDS[place % 3] for place, kind in enumerate(kinds))


@pytest.mark.parametrize("level", QUANTILES)
def test_length_quantiles_match_their_targets(lengths: np.ndarray, level: float) -> None:
    wanted = QUANTILES[level]
    assert abs(np.quantile(lengths, level, method="higher") - wanted) <= max(1, 0.05 * wanted)


@pytest.mark.parametrize("level", [0.95, 0.99, 1])
def test_long_prompts_are_clipped_at_the_limit(lengths: np.ndarray, level: float) -> None:
    assert np.quantile(lengths, level, method="higher") == LONGEST


def test_lengths_stay_between_two_and_603_words(lengths: np.ndarray) -> None:
    assert lengths.min() == 2
    assert lengths.max() == LONGEST


@pytest.mark.usefixtures("script_modules")
def test_no_long_sentence_is_used_in_more_than_twelve_prompts(prompts: list[str]) -> None:
    from mixed_1k.overlap import long_sentences

    uses = Counter(line for prompt in prompts for line in set(long_sentences(prompt)))
    assert max(uses.values()) <= 12


@pytest.mark.usefixtures("script_modules")
def test_no_prompt_repeats_a_sentence(prompts: list[str]) -> None:
    from mixed_1k.overlap import long_sentences

    for prompt in prompts:
        sentences = long_sentences(prompt)
        assert len(set(sentences)) == len(sentences)


@pytest.mark.usefixtures("script_modules")
def test_no_two_prompts_share_half_of_their_word_runs(prompts: list[str]) -> None:
    from mixed_1k.overlap import highest_overlap

    assert highest_overlap(prompts) < 0.5


@pytest.mark.usefixtures("script_modules")
def test_overlap_of_equal_texts_is_complete() -> None:
    from mixed_1k.overlap import highest_overlap

    text = "one two three four five six seven eight nine ten"
    assert highest_overlap([text, text]) == 1.0


@pytest.mark.parametrize("count", [100, 200])
def test_a_prefix_has_about_the_lengths_of_the_whole(lengths: np.ndarray, count: int) -> None:
    prefix = lengths[:count]
    assert np.median(prefix) == pytest.approx(np.median(lengths), rel=0.25)
    assert prefix.mean() == pytest.approx(lengths.mean(), rel=0.2)


def test_file_is_small_enough_to_ship() -> None:
    assert SHIPPED.stat().st_size <= 1_600_000
