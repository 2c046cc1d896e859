"""The executor of one process: its share of the prompts, and what it keeps of them."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from llenergymeasure.core.backends.protocol import PREFILL_PASS
from llenergymeasure.core.backends.scripted.engine import ScriptedBackend
from llenergymeasure.orchestration.executor import ALL_PROMPTS, LocalExecutor, Share
from tests.support.queue_engine import QueueBackend
from tests.support.scripted_run import make_order, scripted_config


class Listener:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.expected = self.finished = 0

    def expect(self, total: int) -> None:
        self.expected += total

    def progress(self, finished: int) -> None:
        self.finished += finished


def ready(folder: Path, share: Share, n: int = 4) -> LocalExecutor:
    """Make an executor that has loaded and prepared."""
    order = make_order(scripted_config(n=n), folder)
    made = LocalExecutor(ScriptedBackend(), order, Listener(), share)
    made.load()
    made.prepare()
    return made


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_are_even_in_number_and_hold_every_prompt_once(
    tmp_path: Path, processes: int
) -> None:
    dealt: list[list[int]] = []
    for process in range(processes):
        executor = ready(tmp_path, Share(process, processes), n=7)
        executor.run_pass("measure", 0)
        dealt.append([sample.request for sample in executor.samples("measure")])
    assert sorted(chain.from_iterable(dealt)) == list(range(7))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_prefill_pass_produces_one_token_a_prompt_and_is_kept_apart(tmp_path: Path) -> None:
    executor = ready(tmp_path, ALL_PROMPTS)
    executor.run_pass("measure", 0)
    executor.rehearse_prefill()
    executor.run_pass("prefill", 0)
    assert [sample.output_tokens for sample in executor.samples("prefill")] == [1] * 4
    assert [sample.output_tokens for sample in executor.samples("measure")] == [3] * 4
    assert {sample.pass_index for sample in executor.samples("prefill")} == {PREFILL_PASS}


def test_raw_samples_are_those_of_the_measured_passes(tmp_path: Path) -> None:
    executor = ready(tmp_path, Share(1, 2))
    windows = [executor.run_pass("measure", begun_ns) for begun_ns in (5, 7)]
    (raw,) = executor.collect().processes
    assert (raw.process_index, raw.passes) == (1, tuple(windows))
    assert (raw.window.t0_ns, raw.window.t1_ns) == (5, windows[1].t1_ns)
    assert [(one.pass_index, one.request) for one in raw.requests] == [
        (0, 1), (0, 3), (1, 1), (1, 3),
    ]  # fmt: skip


def test_warm_up_tells_its_tokens_and_every_finished_request(tmp_path: Path) -> None:
    listener = Listener()
    order = make_order(scripted_config(), tmp_path)
    executor = LocalExecutor(ScriptedBackend(), order, listener)
    executor.load()
    executor.prepare()
    assert executor.warm_up(2).tokens == 2 * 2 * 3, "batches of two, three tokens each"
    assert (listener.expected, listener.finished) == (4, 4)
    assert executor.warm_up(0).tokens == 0


def test_a_warm_up_is_of_full_length_where_the_model_stops_after_one_token(tmp_path: Path) -> None:
    stops = {"ttft_ms": 1.0, "itl_ms": 0.1, "batch_size": 2, "output_tokens": 1}
    config = scripted_config(scripted=stops, max_new_tokens=24)
    executor = LocalExecutor(ScriptedBackend(), make_order(config, tmp_path), Listener())
    executor.load()
    executor.prepare()
    assert executor.warm_up(1).tokens == 2 * 24
    executor.run_pass("measure", 0)
    assert [one.output_tokens for one in executor.samples("measure")] == [1] * 4


def test_clocks_of_the_passes_and_of_the_warm_up_are_kept(tmp_path: Path) -> None:
    """The script sleeps, in both alike; the machine does not."""
    executor = ready(tmp_path, ALL_PROMPTS)
    executor.warm_up(2)
    executor.run_pass("measure", 0)
    (raw,) = executor.collect().processes
    assert raw.suspended_s is not None
    assert 0.0 <= raw.suspended_s < 0.5
    assert raw.idle_s is not None
    assert raw.idle_s > 0.0
    assert raw.warmup_idle_share is not None
    assert raw.warmup_idle_share > 0.0


def test_a_warm_up_batch_by_batch_has_the_shapes_of_the_plan_and_is_expected_at_once(
    tmp_path: Path,
) -> None:
    listener = Listener()
    order = make_order(scripted_config(n=3, warmup={"n_warmup": 2}), tmp_path)
    executor = LocalExecutor(ScriptedBackend(), order, listener)
    executor.load()
    assert executor.prepare().batches == 2
    seen = []
    for number in range(3):  # the last is of a thermal floor
        executor.warm_up(1, number)
        seen.append((listener.expected, listener.finished))
    assert seen == [(3, 1), (3, 3), (4, 4)], "the third request has the longest prompt"


def test_an_engine_that_schedules_itself_gets_every_request_of_a_pass_in_one_go(
    tmp_path: Path,
) -> None:
    executor = LocalExecutor(QueueBackend(), make_order(scripted_config(), tmp_path), Listener())
    executor.load()
    work = executor.prepare()
    assert work.batches == 1
    assert executor.warm_up(2).tokens == 2 * 4 * 3, "each warm-up batch is a pass of four requests"
    executor.rehearse_prefill()
    for begun_ns in (5, 7):
        executor.run_pass("measure", begun_ns)
    executor.run_pass("prefill", 9)
    samples = executor.samples("measure")
    assert [(one.pass_index, one.request) for one in samples] == [
        (number, request) for number in range(2) for request in range(4)
    ]
    assert {one.output_tokens for one in executor.samples("prefill")} == {1}
    assert work.latency_start == "scheduled", "offline, nobody stands in the queue"


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    executor = ready(tmp_path, ALL_PROMPTS)
    executor.close()
    executor.close()
