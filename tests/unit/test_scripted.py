"""The scripted backend keeps to its script."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.scripted.engine import (
    ScriptedBackend,
    ScriptedEngine,
    WordTokenizer,
)
from llenergymeasure.exceptions import BackendError

NOWHERE = Path("unused")


def config(**script: Any) -> ExperimentConfig:
    section = {"ttft_ms": 1, "itl_ms": 0.5, **script}
    return ExperimentConfig(model="m", backend="scripted", scripted=section)


def engine(**script: Any) -> ScriptedEngine:
    return ScriptedBackend().load(config(**script), NOWHERE)


def requests(*budgets: int) -> list[Request]:
    return [Request(index, (1,) * (index + 1), budget) for index, budget in enumerate(budgets)]


def play(made: ScriptedEngine, work: list[Request], pass_index: int = 0):
    return made.run(made.plan(work), pass_index, lambda _: None).samples()


def test_latencies_are_at_least_those_of_the_script():
    (sample,) = play(engine(ttft_ms=20, itl_ms=4), requests(5))

    assert sample.first_token_ns - sample.scheduled_ns >= 20e6
    assert sample.last_token_ns - sample.scheduled_ns >= 36e6
    assert len(sample.gaps_ns) == 4


def test_a_late_token_does_not_make_the_next_ones_late():
    begun = time.monotonic_ns()
    (sample,) = play(engine(ttft_ms=1, itl_ms=1), requests(100))

    assert 100e6 <= sample.last_token_ns - begun < 300e6


def test_requests_produce_the_tokens_of_the_script_but_never_more_than_they_may():
    samples = play(engine(output_tokens=3, batch_size=4), requests(5, 2, 3))

    assert [sample.output_tokens for sample in samples] == [3, 2, 3]
    assert [sample.finish for sample in samples] == ["stop", "length", "length"]


def test_a_request_of_full_length_does_not_end_where_the_script_says():
    warm = [replace(request, full_length=True) for request in requests(5, 2)]
    samples = play(engine(output_tokens=1, batch_size=4), [*warm, *requests(4)])

    assert [sample.output_tokens for sample in samples] == [5, 2, 1]


def test_requests_without_a_scripted_count_produce_what_they_may():
    samples = play(engine(batch_size=2), requests(5, 2, 3))

    assert [sample.output_tokens for sample in samples] == [5, 2, 3]
    assert [sample.executed_output_tokens for sample in samples] == [5, 5, 3]
    assert [sample.padded_input_tokens for sample in samples] == [2, 2, 3]


def test_load_is_logged_at_each_change_with_increasing_times(tmp_path):
    log = tmp_path / "load.log"
    watts = {"idle_w": 50, "prefill_w": 200, "decode_w": 100}
    made = engine(load_log=str(log), **watts)
    samples = play(made, requests(3, 3))
    made.close()
    lines = [line.split() for line in log.read_text().splitlines()]
    times = [float(at) for at, _ in lines]

    assert [float(w) for _, w in lines] == [50, 200, 100, 200, 100, 50, 50]
    assert times == sorted(times)
    assert times[1] == pytest.approx(samples[0].scheduled_ns / 1e9, abs=0.05)


def test_a_log_without_a_folder_is_a_problem(tmp_path):
    asked = config(load_log=str(tmp_path / "nowhere" / "load.log"))
    (only,) = ScriptedBackend().problems(asked)

    assert only.where == "scripted.load_log"
    assert ScriptedBackend().problems(config(load_log=str(tmp_path / "load.log"))) == []


def test_it_fails_in_load_when_told_to():
    with pytest.raises(BackendError, match="fail_at") as caught:
        engine(fail_at="load")
    assert caught.value.where == "load"


@pytest.mark.parametrize(("phase", "failing", "passing"), [("warmup", -1, 0), ("measure", 0, -1)])
def test_it_fails_half_way_through_the_phase_it_is_told_to(phase, failing, passing, tmp_path):
    log = tmp_path / "load.log"
    made = engine(fail_at=phase, load_log=str(log))
    seen: list[int] = []
    plan = made.plan(requests(1, 1, 1, 1))

    made.run(plan, passing, lambda _: None)
    with pytest.raises(BackendError) as caught:
        made.run(plan, failing, seen.append)
    assert caught.value.where == phase
    assert sum(seen) == 2
    assert log.read_text().split()[-1] == "60", "the device idles after a failure"


def test_it_claims_the_devices_it_is_given():
    target = ScriptedBackend().target(config(device_uuids=["GPU-1", "GPU-2"]))

    assert (target.kind, target.gpu_uuids) == ("gpu", ("GPU-1", "GPU-2"))
    assert engine(device_uuids=["GPU-1", "GPU-2"]).inspect().compute_devices == 2
    assert ScriptedBackend().target(config()).kind == "cpu"


def test_words_are_tokens():
    tokens = WordTokenizer().encode("one two  one\nthree")

    assert len(tokens) == 4
    assert tokens[0] == tokens[2] != tokens[1]
    assert set(tokens) <= set(WordTokenizer().ordinary_ids())
