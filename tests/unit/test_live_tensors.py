"""What is alive at once while transformers generates, by pencil."""

from __future__ import annotations

from dataclasses import replace

from llenergymeasure.config.models import DecoderConfig
from llenergymeasure.core.live_tensors import MAPPED_BYTES, Generation, peak_bytes
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture

TINY = ModelArchitecture.from_config(catalogue.config("tiny-llama"))
# 8 layers, hidden 256, MLP 640, 4 heads of 64, 2 of them keys and values, vocabulary 1024
ONE = Generation(
    rows=1,
    prompt_tokens=100,
    context_tokens=116,
    value_bytes=4,
    eager=False,
    padded=False,
    decoder=DecoderConfig(),
)
CACHE = 2 * 8 * 2 * 64 * 4  # bytes a token
EVERYWHERE = 2 * 256 + 2 * 64


def test_a_prefill_is_worst_inside_the_mlp() -> None:
    mlp = 2 * 256 + 3 * 640
    assert peak_bytes(TINY, ONE) == 100 * (CACHE + 4 * (EVERYWHERE + mlp))


def test_eager_attention_has_its_scores_twice_in_fp32() -> None:
    call = replace(ONE, eager=True, prompt_tokens=500, context_tokens=516)
    repeated, scores, mask = 2 * 500 * 256 * 4, 2 * 4 * 500 * 500 * 4, 500 * 500 * 4
    attention = 500 * 4 * (256 + 2 * 256 + 256)
    assert peak_bytes(TINY, call) == (
        500 * (CACHE + 4 * EVERYWHERE) + attention + repeated + scores + mask
    )


def test_eager_attention_in_16_bits_has_its_scores_in_both_types() -> None:
    call = replace(ONE, eager=True, value_bytes=2, prompt_tokens=500, context_tokens=516)
    repeated, scores, mask = 2 * 500 * 256 * 2, (2 + 4 + 4) * 4 * 500 * 500, 500 * 500 * 2
    attention = 500 * 2 * (256 + 2 * 256 + 256)
    assert peak_bytes(TINY, call) == (
        500 * (CACHE / 2 + 2 * EVERYWHERE) + attention + repeated + scores + mask
    )


def test_the_heap_of_a_cpu_takes_twice_what_is_alive() -> None:
    mlp = 2 * 256 + 3 * 640
    taken = peak_bytes(TINY, replace(ONE, in_heap=True))
    assert taken == 2 * 100 * (CACHE + 4 * (EVERYWHERE + mlp))


def test_blocks_that_are_mapped_one_by_one_leave_no_holes() -> None:
    long = replace(ONE, rows=40, prompt_tokens=2000, context_tokens=2001)
    holes = peak_bytes(TINY, replace(long, in_heap=True)) - peak_bytes(TINY, long)
    positions = 80_000 * 64 * 4  # all other blocks are larger than what is mapped
    assert positions < MAPPED_BYTES < 80_000 * 2 * 64 * 4
    assert holes == 2 * positions


def test_a_long_answer_is_worst_at_its_end() -> None:
    call = replace(ONE, prompt_tokens=1, context_tokens=2000)
    found = peak_bytes(TINY, call)
    assert 2000 * CACHE < found < 2000 * CACHE * 1.1


def test_beams_keep_more_tables_of_the_vocabulary_than_greedy_decoding() -> None:
    short = replace(ONE, rows=4, prompt_tokens=1, context_tokens=2)
    beam = DecoderConfig(decoding_strategy="beam", num_beams=4)
    more = peak_bytes(TINY, replace(short, decoder=beam)) - peak_bytes(TINY, short)
    assert more == 4 * 1024 * 4
