"""The vLLM backend on a real engine, on the CPU, with real weights."""

from __future__ import annotations

import queue
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("vllm", reason="runs in the environment that `make test-vllm` makes")

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.core.backends.protocol import Arrival
from llenergymeasure.core.backends.shared.engines import ServedTrace
from llenergymeasure.core.backends.vllm.arguments import DECIDED_ELSEWHERE, ELSEWHERE
from llenergymeasure.core.backends.vllm.engine import VLLMEngine
from llenergymeasure.core.backends.vllm.problems import is_cpu_build, known_methods
from llenergymeasure.core.metrics import latency_result
from llenergymeasure.core.workload import asked_of, departures
from llenergymeasure.exceptions import BackendError
from tests.support.models import OFTEN, greedy_tokens, mixed_prompts, save_model
from tests.support.vllm_engines import (
    HEADS,
    Impatient,
    Shared,
    as_if,
    loaded,
    named,
    requests,
    run,
    save_merged,
    save_plain_adapter,
    tokens,
    work_off,
)

LIMIT = 96
BUDGETS = [24, 7, 1, 16, 24, 3, 12, 24]
SAMPLING = {"decoding_strategy": "sampling"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model that ends about one sequence in twelve tokens and ships odd sampling defaults.

    Half of its ends are in ``config.json``, half in ``generation_config.json``.
    """
    shipped = {"repetition_penalty": 7.0, "temperature": 3.0, "top_k": 2, "do_sample": True}
    shipped["eos_token_id"] = OFTEN[1::2]
    folder = tmp_path_factory.mktemp("models") / "model"
    return save_model(folder, eos_token_id=OFTEN[::2], shipped=shipped, **HEADS)


@pytest.fixture(scope="module")
def shared(model, tmp_path_factory):
    made = Shared(tmp_path_factory.mktemp("cache"), model=str(model))
    yield made
    made.close()


@pytest.fixture
def engine(shared):
    yield shared.get()
    shared.look()


@pytest.fixture(scope="module")
def shared_wide(model, tmp_path_factory):
    decoder = {"decoding_strategy": "beam", "num_beams": 12, "ignore_eos": True}
    cache = tmp_path_factory.mktemp("cache")
    made = Shared(cache, drawn_twice, model=str(model), decoder=decoder, random_seed=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_drafted(model, tmp_path_factory):
    draft = save_model(tmp_path_factory.mktemp("models") / "draft", seed=5, **HEADS)
    decoder = {"speculative_decoding": True, "draft_model": str(draft)}
    made = Shared(tmp_path_factory.mktemp("cache"), model=str(model), decoder=decoder)
    yield made
    made.close()


@pytest.fixture
def wide(shared_wide):
    """An engine for wide searches, with a seed of its own."""
    yield shared_wide.get()
    shared_wide.look()


@pytest.fixture(scope="module")
def prompts(shared) -> list[list[int]]:
    return [shared.get().tokenizer.encode(text)[:LIMIT] for text in mixed_prompts(len(BUDGETS))]


@pytest.fixture(scope="module")
def long(prompts) -> list[int]:
    return (max(prompts, key=len) * LIMIT)[:LIMIT]


def ignoring_eos(engine: VLLMEngine, **decoder) -> VLLMEngine:
    return as_if(engine, decoder={"ignore_eos": True, **decoder})


def drawn_twice(engine: VLLMEngine) -> list[list[list[int]]]:
    """Draw tokens in two passes."""
    drawing = as_if(engine, decoder={**SAMPLING, "ignore_eos": True})
    prompt = drawing.tokenizer.encode(mixed_prompts(1)[0])[:LIMIT]
    return [tokens(run(drawing, requests([prompt], [12]), number)) for number in range(2)]


def test_greedy_tokens_are_those_of_plain_forward_passes(engine, model, prompts):
    expected = greedy_tokens(model, prompts, BUDGETS, OFTEN)
    trace = run(engine, requests(prompts, BUDGETS))

    assert tokens(trace) == expected
    samples = trace.samples()
    assert [sample.output_tokens for sample in samples] == [len(answer) for answer in expected]
    assert [sample.input_tokens for sample in samples] == [len(prompt) for prompt in prompts]
    ends = ["stop" if answer[-1] in OFTEN else "length" for answer in expected]
    assert [sample.finish for sample in samples] == ends
    assert {*ends} == {"stop", "length"}


def test_the_ends_of_a_sequence_are_those_that_any_file_of_the_model_states(engine):
    assert engine.inspect().resolved["eos_token_ids"] == sorted({*OFTEN, 1})
    assert ignoring_eos(engine).inspect().resolved["eos_token_ids"] == []


def test_beam_search_says_which_ends_it_does_not_know(engine):
    report = as_if(engine, decoder={"decoding_strategy": "beam", "num_beams": 2}).inspect()

    assert report.resolved["eos_token_ids"] == [1]
    assert any("the model has further ones: 5, 17" in note for note in report.notes)


def test_answers_have_exactly_the_tokens_asked_for_where_the_end_is_ignored(engine, prompts):
    samples = run(ignoring_eos(engine), requests(prompts, BUDGETS)).samples()

    assert [sample.output_tokens for sample in samples] == BUDGETS
    assert {sample.finish for sample in samples} == {"length"}


def test_no_answer_ends_before_its_least_number_of_tokens(engine, model, prompts):
    free = greedy_tokens(model, prompts, [24] * len(prompts), OFTEN)
    assert min(map(len, free)) < 8
    held = as_if(engine, decoder={"min_new_tokens": 8})
    samples = run(held, requests(prompts, [24] * len(prompts))).samples()

    assert min(sample.output_tokens for sample in samples) >= 8


def test_equal_prompts_draw_different_tokens(engine, prompts):
    drawing = as_if(engine, decoder={**SAMPLING, "ignore_eos": True})
    drawn = tokens(run(drawing, requests([prompts[0]] * 4, [24] * 4)))

    assert len({tuple(answer) for answer in drawn}) > 1


def test_the_least_nucleus_draws_what_greedy_decoding_takes(engine, prompts):
    made = requests(prompts, [8] * len(prompts))
    sharp = as_if(engine, decoder={**SAMPLING, "top_k": 1, "ignore_eos": True})

    assert tokens(run(sharp, made)) == tokens(run(ignoring_eos(engine), made))


def test_a_repetition_penalty_changes_the_answers(engine, prompts):
    made = requests(prompts, [24] * len(prompts))
    punished = ignoring_eos(engine, repetition_penalty=5.0)

    assert tokens(run(punished, made)) != tokens(run(ignoring_eos(engine), made))


def test_times_of_a_request_are_in_order_and_say_when_each_token_came(engine, prompts):
    samples = run(ignoring_eos(engine), requests(prompts, BUDGETS)).samples()

    assert len({sample.issued_ns for sample in samples}) == 1
    for sample in samples:
        times = (
            sample.issued_ns,
            sample.scheduled_ns,
            sample.first_token_ns,
            sample.last_token_ns,
            sample.delivered_ns,
        )
        assert all(before <= after for before, after in pairwise(times)), sample
        assert len(sample.gaps_ns) == sample.output_tokens - 1
        assert sum(sample.gaps_ns) == sample.last_token_ns - sample.first_token_ns
        assert all(gap > 0 for gap in sample.gaps_ns)
        assert sample.first_token_ns > sample.scheduled_ns


def test_no_more_requests_run_side_by_side_than_the_section_allows(engine, prompts):
    samples = run(ignoring_eos(engine), requests(prompts, [16] * len(prompts))).samples()

    for sample in samples:
        beside = [
            other
            for other in samples
            if other.scheduled_ns <= sample.scheduled_ns < other.last_token_ns
        ]
        assert len(beside) <= 4
    assert max(sample.scheduled_ns for sample in samples) > min(s.last_token_ns for s in samples)


def test_progress_tells_of_requests_as_they_end(engine, prompts):
    seen: list[int] = []
    asked = ignoring_eos(engine)
    asked.serve([Arrival(one) for one in requests(prompts, BUDGETS)], 0, seen.append)

    assert sum(seen) == len(prompts)
    assert len(seen) > 1


def cached(trace: ServedTrace) -> list[int]:
    return [sample.cached_input_tokens for sample in trace.samples()]


def test_prompts_of_one_pass_that_share_a_beginning_are_prefix_cache_hits(engine, prompts, long):
    asked = ignoring_eos(engine)
    assert cached(run(asked, requests(prompts[:2], [2, 2]))) == [0, 0]

    found = cached(run(asked, requests([long] * 8, [2] * 8), 1))
    assert any(found)
    assert all(each < len(long) for each in found), "the last token of a prompt is computed"


def test_no_pass_finds_the_prompts_of_the_one_before(engine, long):
    asked = ignoring_eos(engine)
    for pass_index in range(3):
        assert cached(run(asked, requests([long], [2]), pass_index)) == [0]


def test_a_prefix_cache_that_cannot_be_emptied_is_an_error(engine, long):
    asked, library = ignoring_eos(engine), engine._library
    endless = {"max_tokens": 400, "ignore_eos": True}
    with engine._asking():
        library.llm.enqueue(
            [{"prompt_token_ids": long}], library._sampling(**endless), use_tqdm=False
        )
        while library.empty_prefix_cache():
            pass  # the engine core has not begun yet
    with pytest.raises(BackendError, match="could not empty its prefix cache"):
        run(asked, requests([long], [2]))
    work_off(engine)
    run(asked, requests([long], [2]))


def test_an_answer_that_the_context_cuts_short_is_told(engine, long):
    made = requests([(long * 6)[:500]], [100])
    samples = run(ignoring_eos(engine), made).samples()

    assert samples[0].output_tokens < 100
    (told,) = departures(samples, asked_of(made), ignores_eos=True)
    assert "ended 1 of 1 answers before" in told


def test_a_prompt_that_the_context_cannot_hold_names_our_fields(engine, long):
    with pytest.raises(BackendError, match="lower max_input_tokens"):
        run(engine, requests([(long * 6)[:520]], [1]))


@pytest.mark.parametrize("decoder", [{}, {"decoding_strategy": "beam", "num_beams": 2}], ids=str)
def test_a_request_of_full_length_goes_on_where_the_model_would_stop(engine, prompts, decoder):
    asked = as_if(engine, decoder=decoder)
    made = requests(prompts, [24] * len(prompts))
    warm = [replace(request, full_length=True) for request in made]
    full = [sample.output_tokens for sample in run(asked, warm).samples()]

    assert full == [24] * len(prompts)
    if not decoder:
        assert min(sample.output_tokens for sample in run(asked, made).samples()) < 24


def test_beam_search_gives_the_tokens_asked_for_and_no_times(engine, prompts):
    asked = ignoring_eos(engine, decoding_strategy="beam", num_beams=2)
    budgets = [5, 3, 5]
    samples = run(asked, requests(prompts[:3], budgets)).samples()

    assert {sample.request: sample.output_tokens for sample in samples} == {0: 5, 1: 3, 2: 5}
    for sample in samples:
        assert (sample.first_token_ns, sample.last_token_ns, sample.gaps_ns) == (None, None, None)
        assert sample.issued_ns <= sample.scheduled_ns < sample.delivered_ns
        assert sample.cached_input_tokens is None, "each step finds its own past there"
    assert any("beam search" in note for note in asked.inspect().notes)
    latency = latency_result(samples, searches=True)
    assert latency.e2e_ms is not None
    assert latency.e2e_ms.count == 3
    assert (latency.ttft_ms, latency.tpot_ms, latency.itl_ms) == (None, None, None)


def test_a_search_is_as_wide_as_it_is_asked_to_be(wide):
    prompt = wide.tokenizer.encode(mixed_prompts(1)[0])[:LIMIT]
    (sample,) = run(wide, requests([prompt], [3])).samples()

    assert sample.output_tokens == 3


def test_a_beam_is_at_least_as_likely_as_the_greedy_answer(engine, model, prompts):
    import torch
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def likelihood(prompt: list[int], answer: list[int]) -> float:
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + answer])).logits[0]  # (length, vocabulary)
        steps = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return float(steps[range(len(answer)), answer].sum())

    # Two tokens: the greedy first one is in every search, and later a search may drop its path.
    made = requests(prompts[:4], [2] * 4)
    beams = tokens(run(ignoring_eos(engine, decoding_strategy="beam", num_beams=4), made))
    greedy = tokens(run(ignoring_eos(engine), made))
    for prompt, beam, plain in zip(prompts, beams, greedy, strict=False):
        assert likelihood(prompt, beam) >= likelihood(prompt, plain) - 1e-3


def test_the_report_says_what_is_in_force(engine, prompts):
    run(engine, requests(prompts, BUDGETS))
    report = engine.inspect()

    assert set(report.resolved) >= set(VLLMConfig.model_fields)
    assert report.resolved["max_num_seqs"] == 4
    assert report.resolved["max_model_len"] == report.context_limit == 512
    assert report.resolved["block_size"] == 32
    assert report.resolved["enforce_eager"] is True
    assert report.resolved["enable_prefix_caching"] is True
    assert report.resolved["compute_dtype"] == "float32"
    assert report.resolved["tensor_parallel_size"] == 1
    assert report.resolved["load_format"] == "auto"
    assert report.resolved["attention_backend"] not in ("", "None")
    assert min(report.resolved["worker_threads"]) >= 1
    assert report.compute_devices == 1
    assert report.weights == "pretrained"
    assert report.architecture.layers == 2
    assert report.counted.total == report.counted.text == report.architecture.parameters
    assert report.doubt is None


@pytest.mark.skipif(not is_cpu_build(), reason="on a GPU it is device memory")
def test_memory_is_that_of_the_engines_own_processes(engine, prompts):
    run(engine, requests(prompts, BUDGETS))
    memory = engine.inspect().memory

    assert memory.kind == "resident_set"
    assert 0 < memory.model_mb <= memory.peak_mb <= memory.capacity_mb
    pids = {process.pid for process in engine._processes.running()}
    assert len(pids) >= 2, "the engine core and a worker"


def test_every_process_of_the_engine_counts_gpus_as_nvml_does(engine):
    orders = [process.environ()["CUDA_DEVICE_ORDER"] for process in engine._processes.running()]

    assert orders == ["PCI_BUS_ID"] * len(orders)
    assert len(orders) >= 2


def test_every_argument_that_moves_workers_is_one_of_vllms():
    from vllm.engine.arg_utils import EngineArgs

    names = EngineArgs.__dataclass_fields__
    assert [begun for begun in ELSEWHERE if not any(n.startswith(begun) for n in names)] == []


def test_every_argument_that_is_decided_elsewhere_is_one_of_vllms():
    from vllm.engine.arg_utils import EngineArgs

    assert DECIDED_ELSEWHERE.keys() - EngineArgs.__dataclass_fields__.keys() == set()


def test_every_method_of_quantisation_is_one_of_vllms_or_of_an_older_ones():
    from vllm.model_executor.layers.quantization import QuantizationMethods

    known = known_methods()
    assert known == get_args(QuantizationMethods)
    assert BACKENDS["vllm"].quantisation.keys() - set(known) <= {"bitsandbytes"}


def test_the_hottest_temperature_is_vllms():
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    assert SamplingParams(temperature=2.0).temperature == 2.0
    with pytest.raises(VLLMValidationError, match="temperature must be in"):
        SamplingParams(temperature=2.1)


def test_an_adapter_gives_the_answers_of_the_model_it_is_merged_into(model, tmp_path):
    adapter = save_plain_adapter(model, tmp_path / "adapter")
    merged = save_merged(model, adapter, tmp_path / "merged")
    with loaded(tmp_path, model=str(model), lora={"adapter_path": str(adapter)}) as adapted:
        prompts = [adapted.tokenizer.encode(text)[:LIMIT] for text in mixed_prompts(4)]
        answers = tokens(run(adapted, requests(prompts, [12] * 4)))
        notes = adapted.inspect().notes

    assert answers == greedy_tokens(merged, prompts, [12] * 4, OFTEN)
    assert answers != greedy_tokens(model, prompts, [12] * 4, OFTEN)
    assert any("adapter" in note for note in notes)


def test_a_draft_model_proposes_and_the_model_decides(model, shared_drafted):
    drafted = shared_drafted.get()
    prompts = [drafted.tokenizer.encode(text)[:LIMIT] for text in mixed_prompts(4)]
    trace = run(drafted, requests(prompts, [12] * 4))
    report = drafted.inspect()

    assert tokens(trace) == greedy_tokens(model, prompts, [12] * 4, OFTEN)
    assert report.resolved["num_speculative_tokens"] == 5
    for sample in trace.samples():
        steps = len(sample.gaps_ns) + 1
        assert 5 * (steps - 1) >= sample.drafted_tokens >= sample.accepted_tokens
        assert sample.accepted_tokens >= sample.output_tokens - steps, "beyond the last one as well"
    assert sum(sample.drafted_tokens for sample in trace.samples()) > 0
    assert any("drafting" in note for note in report.notes)


# What ends an engine comes last, when no other test needs it any more: each load is dear.


def test_an_engine_core_that_is_stopped_is_closed(shared_drafted):
    stopped = shared_drafted.get()
    (core,) = named(stopped, "EngineCore")
    core.suspend()
    shared_drafted.close()

    assert stopped._processes.running() == []


def ended_by_a_kill(engine: VLLMEngine, name: str) -> BackendError:
    """Kill one of its processes in the middle of a pass; give what is said of it."""

    def kill(_: int) -> None:
        for process in named(engine, name):
            process.kill()

    made = requests([[10, 11, 12]] * 4, [2, 400, 400, 400])
    with pytest.raises(BackendError, match="the engine core died") as caught:
        ignoring_eos(engine).serve([Arrival(request) for request in made], 0, kill)
    assert caught.value.where == "generate"
    return caught.value


def test_an_engine_core_that_dies_alone_ends_the_run_and_costs_one_test(shared_wide):
    broken = shared_wide.get()
    said = ended_by_a_kill(broken, "EngineCore").message
    assert "SIGKILL" in said
    assert "vllm.max_num_seqs" in said
    shared_wide.look()

    assert shared_wide.get() is not broken
    assert run(shared_wide.get(), requests([[10, 11, 12]], [2])).samples()


def test_the_same_seed_draws_the_same_tokens_and_another_draws_others(shared, shared_wide):
    notes = as_if(shared_wide.get(), decoder=SAMPLING).inspect().notes
    if len(shared_wide.firsts) == 1:
        shared_wide.close()
        shared_wide.get()
    one, other = shared_wide.firsts[:2]

    assert one == other
    assert one[0] != one[1]
    assert shared.get()._config.random_seed != 2
    assert not [draw for draw in drawn_twice(shared.get()) if draw in one]
    assert any("same tokens only where requests are scheduled" in note for note in notes)


def test_a_worker_that_dies_alone_ends_the_run(shared):
    broken = shared.get()
    ended_by_a_kill(broken, "Worker")
    shared.close()

    assert broken._processes.running() == []


def test_an_engine_whose_output_is_lost_ends_the_run(shared_wide):
    lost = as_if(shared_wide.get())
    lost._processes = Impatient(lost._processes._processes, 8.0)
    lost._library._core.outputs_queue = queue.Queue()  # nobody fills it any more
    with pytest.raises(BackendError, match="its processes have done nothing for 8 s"):
        run(lost, requests([[10, 11, 12]], [2]))
    shared_wide.close()
