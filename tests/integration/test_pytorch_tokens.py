"""Token counts and latencies of whole experiments, against independent counts and clocks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llenergymeasure import run_experiment
from tests.support.models import (
    OFTEN,
    generated,
    greedy_tokens,
    mixed_prompts,
    requests,
    run,
    save_model,
)

LIMIT = 96  # max_input_tokens


@dataclass
class ForwardLog:
    """When each forward pass of a causal language model began and ended."""

    begun_ns: list[int] = field(default_factory=list)
    ended_ns: list[int] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        from torch.nn.modules import module
        from transformers import LlamaForCausalLM

        def before(watched: Any, _: Any) -> None:
            if isinstance(watched, LlamaForCausalLM):
                self.begun_ns.append(time.monotonic_ns())

        def after(watched: Any, *_: Any) -> None:
            if isinstance(watched, LlamaForCausalLM):
                self.ended_ns.append(time.monotonic_ns())

        handles = [
            module.register_module_forward_pre_hook(before),
            module.register_module_forward_hook(after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def measure(folder: Path, **fields: Any) -> list[dict[str, Any]]:
    """Run a whole experiment and read what it left of its requests."""
    asked = {
        "precision": "fp32",
        "energy_backend": "none",
        "max_input_tokens": LIMIT,
        "warmup": {"n_warmup": 1},
        "pytorch": {"batch_size": 4},
    }
    run_experiment(output_dir=folder, **{**asked, **fields})
    (table,) = folder.rglob("requests.parquet")
    rows: list[dict[str, Any]] = pq.read_table(table).to_pylist()
    return rows


def tokenised(model: Path, texts: list[str]) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return [tokenizer(text)["input_ids"][:LIMIT] for text in texts]


@pytest.fixture(scope="module")
def stopping(engines) -> Path:
    """A model that ends about one sequence in twelve tokens."""
    return engines.stopping


@pytest.fixture(scope="module")
def timed(stopping, tmp_path_factory) -> tuple[list[dict[str, Any]], ForwardLog]:
    """Requests of a run over 10 mixed prompts, and every forward pass behind them."""
    log = ForwardLog()
    with log.watching():
        rows = measure(
            tmp_path_factory.mktemp("out"),
            model=str(stopping),
            n=10,
            max_new_tokens=24,
            warmup={"n_warmup": 0},
        )
    return rows, log


def test_token_counts_are_those_of_plain_forward_passes_prompt_by_prompt(stopping, timed):
    prompts = tokenised(stopping, mixed_prompts(10))
    answers = greedy_tokens(stopping, prompts, [24] * 10, OFTEN)
    rows, _ = timed

    assert [row["request"] for row in rows] == list(range(10))
    assert [row["input_tokens"] for row in rows] == [len(prompt) for prompt in prompts]
    assert [row["output_tokens"] for row in rows] == [len(answer) for answer in answers]
    assert len({len(answer) for answer in answers}) > 3, "the model should stop at many lengths"


def test_a_request_that_met_its_end_of_sequence_says_stop(stopping, timed):
    prompts = tokenised(stopping, mixed_prompts(10))
    answers = greedy_tokens(stopping, prompts, [24] * 10, OFTEN)
    rows, _ = timed
    expected = ["stop" if answer[-1] in OFTEN else "length" for answer in answers]

    assert [row["finish"] for row in rows] == expected
    assert {*expected} == {"stop", "length"}


def test_rows_of_a_batch_share_padding_and_steps(timed):
    rows, _ = timed

    for start in range(0, 10, 4):
        batch = rows[start : start + 4]
        longest = max(row["input_tokens"] for row in batch)
        steps = max(row["output_tokens"] for row in batch)
        assert {row["padded_input_tokens"] for row in batch} == {longest}
        assert {row["executed_output_tokens"] for row in batch} == {steps}
        assert len({row["delivered_ns"] for row in batch}) == 1


def test_there_is_one_forward_pass_for_each_executed_token(timed):
    rows, log = timed
    steps = {row["batch_index"]: row["executed_output_tokens"] for row in rows}

    assert len(log.begun_ns) == len(log.ended_ns) == sum(steps.values())


def test_each_token_arrives_between_its_forward_pass_and_the_next(timed):
    rows, log = timed
    steps = {row["batch_index"]: row["executed_output_tokens"] for row in rows}
    for row in rows:
        first = sum(count for batch, count in steps.items() if batch < row["batch_index"])
        arrivals = [row["first_token_ns"]]
        for gap in row["gaps_ns"]:
            arrivals.append(arrivals[-1] + gap)
        assert len(arrivals) == row["output_tokens"]
        assert row["scheduled_ns"] <= log.begun_ns[first]
        for step, arrival in enumerate(arrivals, start=first):
            assert log.ended_ns[step] <= arrival
            if step + 1 < len(log.begun_ns):
                assert arrival <= log.begun_ns[step + 1]
        assert arrivals[-1] == row["last_token_ns"] <= row["delivered_ns"]


def test_batches_are_scheduled_one_after_the_other_and_issued_together(timed):
    rows, _ = timed

    assert len({row["issued_ns"] for row in rows}) == 1
    for before, after in pairwise(rows):
        if before["batch_index"] != after["batch_index"]:
            assert before["delivered_ns"] <= after["scheduled_ns"]


def test_random_weights_answer_to_the_full_length_whatever_they_say(tmp_path):
    rows = measure(tmp_path, model="random:tiny-llama", n=6, max_new_tokens=7)

    assert [row["output_tokens"] for row in rows] == [7] * 6
    assert {row["finish"] for row in rows} == {"length"}


def test_every_request_of_a_static_batch_keeps_its_own_budget(tmp_path):
    model = save_model(tmp_path / "model")
    dataset = tmp_path / "prompts.jsonl"
    budgets = [3, 9, 1, 5, 2, 2]
    lines = [{"prompt": f"Prompt {n}", "max_new_tokens": own} for n, own in enumerate(budgets)]
    dataset.write_text("\n".join(json.dumps(line) for line in lines))
    rows = measure(
        tmp_path / "out",
        model=str(model),
        dataset=str(dataset),
        n=6,
        decoder={"ignore_eos": True},
    )

    assert [row["output_tokens"] for row in rows] == budgets
    assert [row["executed_output_tokens"] for row in rows] == [9, 9, 9, 9, 2, 2]
    assert [len(row["gaps_ns"]) for row in rows] == [own - 1 for own in budgets]


def test_a_batch_ends_once_every_row_has_its_budget_or_its_end_of_sequence(engines, stopping):
    texts = mixed_prompts(10)
    prompts = tokenised(stopping, texts)
    free = greedy_tokens(stopping, prompts, [24] * 10, OFTEN)
    early = min(range(10), key=lambda n: len(free[n]))
    late = max(range(10), key=lambda n: len(free[n]))
    engine = engines.get(stopping, max_input_tokens=LIMIT, pytorch={"batch_size": 2})
    own = len(free[early]) + 2
    trace = run(engine, requests(engine, [texts[late], texts[early]], [own, 24]))
    samples = trace.samples()

    assert [sample.output_tokens for sample in samples] == [own, len(free[early])]
    assert {sample.executed_output_tokens for sample in samples} == {own}


def test_tokens_do_not_depend_on_the_rows_beside_them(engines, stopping):
    texts = mixed_prompts(6)
    answers = []
    for batch_size in (1, 6):
        engine = engines.get(stopping, pytorch={"batch_size": batch_size})
        answers.append(generated(run(engine, requests(engine, texts, [16] * 6))))

    assert answers[0] == answers[1]
