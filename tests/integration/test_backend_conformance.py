"""What every inference backend does, run over all registered ones and one of the tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from llenergymeasure.config.backend_facts import LEFT_TO_ENGINES, BackendFacts
from llenergymeasure.config.models import DecoderConfig, ExperimentConfig
from llenergymeasure.config.plugins import load_object, missing
from llenergymeasure.config.registry import BACKENDS, plugin_backends
from llenergymeasure.core.backends.protocol import Arrival, Request, RequestEngine
from llenergymeasure.core.workload import batches_for, run_batches
from llenergymeasure.exceptions import BackendError

QUEUE = replace(BACKENDS["scripted"], implementation="tests.support.queue_engine:QueueBackend")
ENTRIES = {**BACKENDS, **plugin_backends(), "a queue": QUEUE}
REGISTERED = list(ENTRIES)
READ: dict[str, set[str]] = {name: set() for name in REGISTERED}
TEXTS = ["One", "Two words are here", "A longer request, which asks for a list of five rivers."] * 3


class WatchedDecoder(DecoderConfig):
    """Notes which of its fields are read."""

    _backend: str = ""

    def __getattribute__(self, name: str) -> Any:
        if name in DecoderConfig.model_fields:
            READ[self._backend].add(f"decoder.{name}")
        return super().__getattribute__(name)


class WatchedExperiment(ExperimentConfig):
    """Notes which of its fields are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in LEFT_TO_ENGINES:
            READ[super().__getattribute__("backend")].add(name)
        return super().__getattribute__(name)


@pytest.fixture(scope="module", params=REGISTERED)
def entry(request: pytest.FixtureRequest) -> BackendFacts:
    return ENTRIES[request.param]


@pytest.fixture(scope="module")
def config(entry: BackendFacts) -> ExperimentConfig:
    if problem := missing(entry, "backend"):
        pytest.skip(str(problem))
    precision = "fp32" if "fp32" in entry.precisions else entry.precisions[0]
    strategy = "sampling" if "sampling" in entry.decoding else "greedy"
    decoder = WatchedDecoder(decoding_strategy=strategy)
    decoder._backend = entry.name
    asked = WatchedExperiment(
        model="random:tiny-llama",
        backend=entry.name,
        precision=precision,
        max_new_tokens=5,
        decoder=decoder,
        **{entry.name: {entry.batch_field: 2}},
    )
    READ[entry.name].clear()
    return asked


@pytest.fixture(scope="module")
def loader(config, entry):
    made = load_object(entry.implementation)()
    if problems := made.problems(config):
        pytest.skip(str(problems[0]))
    return made


@pytest.fixture(scope="module")
def engine(config, loader, tmp_path_factory):
    made = loader.load(config, tmp_path_factory.mktemp("cache"))
    yield made
    made.close()
    made.close()  # a second time does nothing


@pytest.fixture(scope="module")
def requests(engine) -> list[Request]:
    return [
        Request(index, tuple(engine.tokenizer.encode(text)), 1 + index % 5)
        for index, text in enumerate(TEXTS)
    ]


@pytest.fixture(scope="module")
def samples(engine, requests):
    return played(engine, requests, pass_index=3)


def played(engine, requests, pass_index=0, progress=lambda _: None):
    traces = run_batches(engine, batches_for(engine, requests), pass_index, progress)
    return [sample for trace in traces for sample in trace.samples()]


def test_the_target_names_gpus_only_for_work_on_gpus(loader, config):
    target = loader.target(config)

    assert target.kind in ("cpu", "gpu")
    assert target.kind == "gpu" or not target.gpu_uuids
    assert loader.target(config) == target


def test_a_text_has_tokens_and_the_same_ones_every_time(engine):
    tokens = engine.tokenizer.encode("The same text twice")

    assert tokens
    assert tokens == engine.tokenizer.encode("The same text twice")
    assert len(engine.tokenizer.encode("The same text twice, and more of it")) > len(tokens)


def test_ordinary_ids_are_distinct_and_can_be_generated_from(engine):
    ids = engine.tokenizer.ordinary_ids()
    asked = [Request(0, tuple(ids[:7]), 2)]

    assert len(set(ids)) == len(ids) > 100
    assert played(engine, asked)[0].input_tokens == 7


def test_a_plan_is_a_partition_of_the_requests_and_always_the_same(engine, requests):
    before = list(requests)
    plan = batches_for(engine, requests)

    assert Counter(request for batch in plan for request in batch) == Counter(requests)
    assert all(plan)
    assert batches_for(engine, requests) == plan
    assert requests == before
    assert batches_for(engine, []) == ()


def test_a_run_gives_one_sample_a_request(engine, requests, samples):
    by_index = {request.index: request for request in requests}

    assert sorted(sample.request for sample in samples) == sorted(by_index)
    for sample in samples:
        request = by_index[sample.request]
        assert sample.input_tokens == len(request.token_ids)
        assert 1 <= sample.output_tokens <= request.max_new_tokens
        assert sample.computed_input_tokens >= sample.input_tokens
        assert sample.computed_output_tokens >= sample.output_tokens
        assert sample.pass_index == 3
        assert sample.error is None


def test_the_samples_of_a_batch_share_its_index(engine, requests, samples):
    if isinstance(engine, RequestEngine):
        assert {sample.batch_index for sample in samples} == {None}
        return
    where = {
        request.index: n
        for n, batch in enumerate(batches_for(engine, requests))
        for request in batch
    }

    assert {sample.request: sample.batch_index for sample in samples} == where


def test_a_request_that_is_due_later_is_handed_over_then_or_refused(engine, entry, requests):
    if not isinstance(engine, RequestEngine):
        pytest.skip("it works on batches, which nobody is waiting for")
    offsets_ns = [0, 20_000_000, 21_000_000]
    load = [Arrival(*pair) for pair in zip(requests, offsets_ns, strict=False)]
    if entry.name == "vllm":  # it is handed everything at once
        with pytest.raises(BackendError, match="due at different times"):
            engine.serve(load, 0, lambda _: None)
        return
    samples = engine.serve(load, 0, lambda _: None).samples()
    by_request = {sample.request: sample for sample in samples}
    ordered = [by_request[arrival.request.index] for arrival in load]
    assert [one.due_ns - ordered[0].due_ns for one in ordered] == offsets_ns
    assert all(one.due_ns <= one.issued_ns <= one.scheduled_ns for one in ordered)


def test_times_of_a_request_never_run_backwards(samples):
    for sample in samples:
        times = (
            sample.issued_ns,
            sample.scheduled_ns,
            sample.first_token_ns,
            sample.last_token_ns,
            sample.delivered_ns,
        )
        assert all(before <= after for before, after in pairwise(times)), sample


def test_gaps_add_up_to_the_time_from_the_first_token_to_the_last(samples):
    for sample in samples:
        if sample.gaps_ns is not None:
            assert sum(sample.gaps_ns) == sample.last_token_ns - sample.first_token_ns
            assert all(gap >= 0 for gap in sample.gaps_ns)
            tokens = sample.gap_tokens or (1,) * len(sample.gaps_ns)
            assert len(tokens) == len(sample.gaps_ns)
            assert sample.output_tokens - sum(tokens) >= 1


def test_progress_adds_up_to_the_requests(engine, requests):
    seen: list[int] = []
    played(engine, requests, progress=seen.append)

    assert sum(seen) == len(requests)


def test_running_nothing_gives_no_samples(engine):
    assert played(engine, []) == []


def test_the_report_resolves_every_field_of_the_section(config, entry, engine, samples):
    report = engine.inspect()

    assert set(report.resolved) >= set(type(config.section).model_fields)
    assert report.resolved[entry.batch_field] == 2
    assert report.compute_devices >= 1
    assert report.weights in ("random", "none")
    assert (report.architecture is None) == (report.weights == "none")


def test_memory_is_known_and_not_zero(engine, samples):
    memory = engine.inspect().memory

    assert memory.kind != "none"
    assert 0 < memory.model_mb <= memory.peak_mb <= memory.capacity_mb


def test_every_setting_that_is_said_to_be_honoured_is_looked_at(config, samples):
    entry = ENTRIES[config.backend]
    if not entry.runs_a_model:
        pytest.skip("a script chooses no tokens")
    by_rule = {
        "decoder.speculative_decoding",  # goes with decoder.draft_model, or is refused
        "system_prompt",  # is read where prompts become tokens, before an engine has them
    }

    assert entry.honours - by_rule <= READ[config.backend]
