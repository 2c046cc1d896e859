"""The decoder section, down to the tokens that come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import DecoderConfig
from llenergymeasure.core.backends.pytorch.engine import PyTorchEngine, decoding_options
from llenergymeasure.core.metrics import latency_result
from llenergymeasure.exceptions import BackendError
from tests.support.models import (
    OFTEN,
    generated,
    greedy_tokens,
    mixed_prompts,
    requests,
    run,
    save_model,
)

TEXTS = [text[:200] for text in mixed_prompts(4)]
SAMPLING = {"decoding_strategy": "sampling"}


@pytest.fixture(scope="module")
def model(engines) -> Path:
    return engines.model


@pytest.fixture(scope="module")
def stopping(engines) -> Path:
    return engines.stopping


@pytest.fixture
def tokens_of(engines):
    """Generate for ``TEXTS`` with a decoder section."""

    def tokens(
        model: Path, n: int = 12, batch_size: int = 4, **fields: Any
    ) -> dict[int, list[int]]:
        return answers(engines.get(model, pytorch={"batch_size": batch_size}, **fields), n)

    return tokens


def answers(engine: PyTorchEngine, n: int = 12) -> dict[int, list[int]]:
    """Generate for ``TEXTS`` with an engine."""
    return generated(run(engine, requests(engine, TEXTS, [n] * len(TEXTS))))


def plainly(folder: Path, n: int, **options: Any) -> dict[int, list[int]]:
    """Generate for ``TEXTS`` one by one with transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = {}
    for index, text in enumerate(TEXTS):
        prompt = tokenizer(text, return_tensors="pt")
        output = model.generate(**prompt, max_new_tokens=n, **options)
        answers[index] = output[0, prompt["input_ids"].shape[1] :].tolist()
    return answers


def test_greedy_tokens_are_those_of_plain_transformers(model, tokens_of):
    assert tokens_of(model) == plainly(model, 12, do_sample=False)


def test_beam_search_gives_the_tokens_of_plain_transformers(stopping, tokens_of):
    beam = {"decoding_strategy": "beam", "num_beams": 3}

    assert tokens_of(stopping, decoder=beam) == plainly(stopping, 12, num_beams=3)
    assert tokens_of(stopping, decoder=beam) != tokens_of(stopping)


def test_times_of_a_search_go_on_until_its_batch_ends_and_e2e_until_it_is_handed_back(
    engines, stopping
):
    beam = {"decoding_strategy": "beam", "num_beams": 3}
    engine = engines.get(stopping, decoder=beam, pytorch={"batch_size": 4})
    samples = run(engine, requests(engine, TEXTS, [24] * 4)).samples()
    latency = latency_result(samples, searches=True)

    assert any(sample.output_tokens < sample.executed_output_tokens for sample in samples)
    for sample in samples:
        assert len(sample.gaps_ns) == sample.executed_output_tokens - 1
        assert sample.first_token_ns + sum(sample.gaps_ns) == sample.last_token_ns
        assert sample.last_token_ns <= sample.delivered_ns
    (delivered_ns,) = {sample.delivered_ns for sample in samples}
    assert latency.e2e_ms.minimum == (delivered_ns - samples[0].scheduled_ns) / 1e6
    assert latency.tpot_ms is None
    assert any("TPOT is null" in note for note in engine.inspect().notes)


@pytest.mark.parametrize(
    "decoder",
    [
        {},
        SAMPLING,
        {"min_new_tokens": 2},
        {"decoding_strategy": "beam", "num_beams": 2},
        "speculative",
    ],
    ids=str,
)
def test_a_request_of_full_length_goes_on_where_the_model_stops_at_once(load, tmp_path, decoder):
    ending = save_model(tmp_path / "ending", eos_token_id=list(range(3, 1020)))
    if decoder == "speculative":
        decoder = speculating(ending)
    batch_size = 1 if "draft_model" in decoder else 4
    engine = load(ending, decoder=decoder, pytorch={"batch_size": batch_size})
    made = requests(engine, TEXTS, [24, 5, 24, 24])
    stopped = [one.output_tokens for one in run(engine, made).samples()]
    warm = [replace(request, full_length=True) for request in made]
    full = [one.output_tokens for one in run(engine, warm).samples()]

    assert min(stopped) <= 3, "or there was nothing to go on from"
    assert full == [24, 5, 24, 24]
    assert [one.output_tokens for one in run(engine, made).samples()] == stopped


def test_rows_of_a_batch_under_beam_search_keep_their_own_budgets(load, model):
    engine = load(
        model,
        decoder={"decoding_strategy": "beam", "num_beams": 3, "ignore_eos": True},
        pytorch={"batch_size": 4},
    )
    samples = run(engine, requests(engine, TEXTS, [2, 7, 1, 4])).samples()

    assert [sample.output_tokens for sample in samples] == [2, 7, 1, 4]


def test_every_pass_of_a_sampled_workload_draws_the_same_tokens(load, model):
    engine = load(model, decoder=SAMPLING, pytorch={"batch_size": 4})
    made = requests(engine, TEXTS, [12] * 4)
    first = generated(run(engine, made))
    run(engine, made[:1], pass_index=-1)
    again = generated(run(engine, made, pass_index=1))

    assert first == again


def test_sampled_tokens_follow_the_seed(load, model, tokens_of):
    draw = tokens_of(model, decoder=SAMPLING, random_seed=1)

    again = load(model, decoder=SAMPLING, random_seed=1, pytorch={"batch_size": 4})
    assert answers(again) == draw
    assert tokens_of(model, decoder=SAMPLING, random_seed=2) != draw


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_sampling_narrowed_to_the_best_token_is_greedy(model, tokens_of, narrow):
    assert tokens_of(model, decoder={**SAMPLING, **narrow}) == tokens_of(model)


def test_sampling_without_top_k_draws_from_the_whole_vocabulary(load, tmp_path):
    flat = save_model(tmp_path / "flat", initializer_range=1e-4)
    engine = load(
        flat,
        decoder={**SAMPLING, "ignore_eos": True},
        pytorch={"batch_size": 300},
    )
    drawn = generated(run(engine, requests(engine, ["The same prompt"] * 300, [1] * 300)))

    # 300 of 1,024 tokens draw about 260 different ones; transformers' own default keeps 50
    assert len({tuple(tokens) for tokens in drawn.values()}) > 150


def test_a_repetition_penalty_keeps_tokens_from_coming_twice(model, tokens_of):
    plain = tokens_of(model, n=40)
    assert any(len(set(tokens)) < 40 for tokens in plain.values())

    for tokens in tokens_of(model, n=40, decoder={"repetition_penalty": 1000.0}).values():
        assert len(set(tokens)) == 40


def test_there_is_no_end_of_sequence_before_min_new_tokens(stopping, tokens_of):
    assert min(len(tokens) for tokens in tokens_of(stopping, n=24).values()) < 9

    for tokens in tokens_of(stopping, n=24, decoder={"min_new_tokens": 9}).values():
        assert len(tokens) > 9 or tokens[-1] in OFTEN
        assert not set(tokens[:9]) & set(OFTEN)


def test_an_ignored_end_of_sequence_ends_nothing(stopping, tokens_of):
    answers = tokens_of(stopping, n=24, decoder={"ignore_eos": True})

    assert {len(tokens) for tokens in answers.values()} == {24}
    assert any(set(tokens[:-1]) & set(OFTEN) for tokens in answers.values())


@pytest.mark.parametrize("decoder", [{}, SAMPLING], ids=["greedy", "sampling"])
def test_what_a_model_ships_as_generation_config_changes_nothing(
    model, tokens_of, tmp_path, decoder
):
    shipped = {
        "do_sample": True,
        "temperature": 7.0,
        "top_k": 2,
        "top_p": 0.1,
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "max_length": 3,
        "num_beams": 2,
        "min_new_tokens": 11,
    }
    opinionated = save_model(tmp_path / "opinionated", shipped=shipped)

    assert tokens_of(opinionated, decoder=decoder) == tokens_of(model, decoder=decoder)


def test_an_end_of_sequence_that_only_the_generation_config_names_counts(
    engines, tmp_path, tokens_of
):
    folder = save_model(tmp_path / "model", shipped={"eos_token_id": OFTEN})
    answers = tokens_of(folder, n=24)
    made = requests(engines.get(engines.model), TEXTS, [1] * 4)
    prompts = [request.token_ids for request in made]

    assert list(answers.values()) == greedy_tokens(folder, prompts, [24] * 4, OFTEN)
    assert any(len(tokens) < 24 for tokens in answers.values())


def speculating(draft: Path) -> dict[str, Any]:
    return {"speculative_decoding": True, "draft_model": str(draft)}


def test_a_draft_of_the_same_weights_delivers_several_tokens_at_once(load, stopping):
    engine = load(stopping, decoder=speculating(stopping))
    trace = run(engine, requests(engine, TEXTS, [24] * 4))
    report = engine.inspect()
    plain = plainly(stopping, 24, do_sample=False)

    assert generated(trace) == plain
    gaps = [sample.gap_tokens or () for sample in trace.samples()]
    assert max(size for sizes in gaps for size in sizes) > 1
    for sample, sizes in zip(trace.samples(), gaps, strict=True):
        assert sample.output_tokens == len(plain[sample.request])
        assert len(sizes) <= sample.output_tokens - 1
    assert any("draft" in note for note in report.notes)


@pytest.fixture
def drafted(monkeypatch) -> list[int]:
    """Tokens that transformers itself takes as candidates, a list entry a step."""
    from transformers.generation.candidate_generator import AssistedCandidateGenerator

    lengths: list[int] = []
    get = AssistedCandidateGenerator.get_candidates

    def noted(self, input_ids, **others):
        candidates, logits = get(self, input_ids, **others)
        lengths.append(candidates.shape[1] - input_ids.shape[1])
        return candidates, logits

    monkeypatch.setattr(AssistedCandidateGenerator, "get_candidates", noted)
    return lengths


def test_drafted_tokens_are_those_that_were_proposed_and_accepted_ones_those_gained(
    load, stopping, tmp_path, drafted
):
    draft = save_model(tmp_path / "draft", seed=9, hidden_size=32, num_hidden_layers=1)
    for which, rate in ((draft, 0.1), (stopping, 1.0)):
        drafted.clear()
        engine = load(stopping, decoder={**speculating(which), "ignore_eos": True})
        samples = run(engine, requests(engine, TEXTS, [24] * 4)).samples()

        assert sum(sample.drafted_tokens for sample in samples) == sum(drafted) > 0
        for sample in samples:
            steps = len(sample.gaps_ns) + 1
            assert sample.accepted_tokens == sample.output_tokens - steps
        accepted = sum(sample.accepted_tokens for sample in samples)
        assert accepted / sum(drafted) == pytest.approx(rate, abs=0.1)


def test_without_a_draft_nothing_is_drafted(engines, model):
    engine = engines.get(model)
    (sample,) = run(engine, requests(engine, TEXTS[:1], [4])).samples()

    assert (sample.drafted_tokens, sample.accepted_tokens) == (None, None)


def test_a_random_draft_has_the_weights_of_a_random_model_of_its_shape_and_seed(load):
    """Another draw of them would agree with the model at chance alone."""
    tiny = "random:tiny-llama"
    engine = load(tiny, decoder={"speculative_decoding": True, "draft_model": tiny})
    samples = run(engine, requests(engine, TEXTS[:2], [12] * 2)).samples()

    drafted = sum(sample.drafted_tokens for sample in samples)
    assert sum(sample.accepted_tokens for sample in samples) >= 0.9 * drafted > 0


def test_another_draft_changes_the_steps_but_not_the_tokens(stopping, tokens_of, tmp_path):
    draft = save_model(tmp_path / "draft", seed=9, hidden_size=32, num_hidden_layers=1)

    answers = tokens_of(stopping, n=16, batch_size=1, decoder=speculating(draft))
    assert answers == plainly(stopping, 16, do_sample=False)


def test_a_draft_with_another_vocabulary_is_refused_by_the_field_that_names_it(
    load, model, tmp_path
):
    draft = save_model(tmp_path / "draft", vocab_size=2048)
    engine = load(model, decoder=speculating(draft))
    with pytest.raises(BackendError, match=r"decoder\.draft_model"):
        run(engine, requests(engine, TEXTS[:1], [8]))


@pytest.mark.parametrize(
    ("decoder", "expected"),
    [
        ({}, {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}),
        (
            SAMPLING,
            {
                "do_sample": True,
                "num_beams": 1,
                "repetition_penalty": 1.0,
                "temperature": 1.0,
                "top_p": 1.0,
                "top_k": 0,
            },
        ),
        (
            {**SAMPLING, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.2},
            {
                "do_sample": True,
                "num_beams": 1,
                "repetition_penalty": 1.2,
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 7,
            },
        ),
        (
            {"decoding_strategy": "beam", "num_beams": 4, "min_new_tokens": 2},
            {"do_sample": False, "num_beams": 4, "repetition_penalty": 1.0, "min_new_tokens": 2},
        ),
    ],
)
def test_the_decoder_section_becomes_generation_options(decoder, expected):
    assert decoding_options(DecoderConfig(**decoder)) == expected
