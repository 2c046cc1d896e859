"""When nothing came of the work for long: told from tokens, and from other clocks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.stalls import read_clocks, stalled_s
from llenergymeasure.domain.samples import RawProcessResult, RequestSample, Window
from tests.support.make_result import make_failed_sample, make_process, make_sample

MS = 1_000_000
S = 1_000 * MS


def answer(
    start_ns: int,
    prefill_ms: float = 50.0,
    gaps_ms: Sequence[float] = (20.0,) * 30,
    positions: int = 100,
    **changes: object,
) -> RequestSample:
    """Make a request that is worked on at once, token by token, and handed back at its end."""
    gaps_ns = tuple(round(gap * MS) for gap in gaps_ms)
    first_ns = start_ns + round(prefill_ms * MS)
    last_ns = first_ns + sum(gaps_ns)
    values: dict[str, object] = {
        "input_tokens": positions,
        "padded_input_tokens": positions,
        "output_tokens": len(gaps_ns) + 1,
        "executed_output_tokens": None,
        "issued_ns": start_ns,
        "scheduled_ns": start_ns,
        "first_token_ns": first_ns,
        "last_token_ns": last_ns,
        "delivered_ns": last_ns,
        "gaps_ns": gaps_ns,
    }
    return make_sample(**{**values, **changes})


def one_by_one(
    *made: RequestSample, pause_ms: float = 1.0, end_ms: float = 0.0
) -> RawProcessResult:
    """Put requests behind one another, each a batch of its own."""
    rows: list[RequestSample] = []
    at_ns = 0
    for number, one in enumerate(made):
        by_ns = at_ns + round(pause_ms * MS) - one.scheduled_ns
        times = {
            name: getattr(one, name) + by_ns
            for name in ("scheduled_ns", "first_token_ns", "last_token_ns", "delivered_ns")
        }
        rows.append(replace(one, request=number, batch_index=number, issued_ns=0, **times))
        at_ns = times["delivered_ns"]
    window = Window(0, at_ns + round(end_ms * MS))
    return make_process(window=window, passes=(window,), requests=tuple(rows))


STEADY = [answer(0) for _ in range(6)]
STOPPED_MS = 4_000.0


def stopped_at(step: int, after_ms: float = STOPPED_MS) -> RequestSample:
    gaps_ms = [20.0] * 30
    gaps_ms[step] += after_ms
    return answer(0, gaps_ms=gaps_ms)


def test_steady_work_does_not_stall() -> None:
    assert stalled_s(one_by_one(*STEADY)) == 0.0


@pytest.mark.parametrize("step", [0, 7, 29])
def test_a_stop_between_two_tokens_is_told_with_its_length(step: int) -> None:
    process = one_by_one(*STEADY[:3], stopped_at(step), *STEADY[3:])
    assert stalled_s(process) == pytest.approx(STOPPED_MS / 1e3, abs=0.05)


def test_a_stop_is_told_of_a_single_answer() -> None:
    assert stalled_s(one_by_one(stopped_at(12))) == pytest.approx(STOPPED_MS / 1e3, abs=0.05)


def test_stops_add_up() -> None:
    process = one_by_one(*STEADY, stopped_at(3, 2_000.0), stopped_at(5, 1_500.0))
    assert stalled_s(process) == pytest.approx(3.5, abs=0.05)


def test_a_stop_in_a_prefill_is_told_beside_others() -> None:
    process = one_by_one(*STEADY, answer(0, prefill_ms=50.0 + STOPPED_MS))
    assert stalled_s(process) == pytest.approx(STOPPED_MS / 1e3, abs=0.1)


@pytest.mark.parametrize("where", ["between", "end"])
def test_a_stop_between_batches_or_before_the_end_is_told(where: str) -> None:
    if where == "end":
        process = one_by_one(*STEADY, end_ms=STOPPED_MS)
    else:
        process = one_by_one(*STEADY[:1], pause_ms=STOPPED_MS)
    assert stalled_s(process) == pytest.approx(STOPPED_MS / 1e3, abs=0.05)


def test_a_pause_of_a_busy_machine_is_none() -> None:
    assert stalled_s(one_by_one(*STEADY, stopped_at(4, 900.0), answer(0, prefill_ms=950.0))) == 0.0


def test_a_large_and_slow_model_does_not_stall() -> None:
    """Of 2 s a step; its short prompts take as long as a step, its long ones a minute."""
    slow = (2_000.0,) * 4
    made = [
        answer(0, prefill_ms=2_000.0 + 60.0 * positions, gaps_ms=slow, positions=positions)
        for positions in (3, 3, 8, 500, 500, 900, 1000)
    ]
    assert stalled_s(one_by_one(*made)) == 0.0


def test_a_long_prompt_among_short_ones_does_not_stall() -> None:
    """Thirty thousand positions cost more each than a hundred do: attention grows with them."""
    short = [answer(0, prefill_ms=60.0, positions=100) for _ in range(9)]
    long = answer(0, prefill_ms=60_000.0, gaps_ms=(120.0,) * 30, positions=30_000)
    assert stalled_s(one_by_one(*short, long)) == 0.0


def test_dynamic_batches_of_many_rows_do_not_stall() -> None:
    """A step of a full batch takes a hundred times as long as one of a single row."""
    alone = [answer(0, gaps_ms=(15.0,) * 20) for _ in range(5)]
    full = answer(0, prefill_ms=4_000.0, gaps_ms=(1_500.0,) * 20, positions=4_000)
    assert stalled_s(one_by_one(*alone, full)) == 0.0


def test_without_a_warm_up_the_first_batch_is_passed_over() -> None:
    process = one_by_one(answer(0, prefill_ms=9_000.0, gaps_ms=(3_000.0, *[20.0] * 29)), *STEADY)
    assert stalled_s(process, warm=False) == 0.0
    assert stalled_s(process) == pytest.approx(12.0, abs=0.2)


def test_a_stop_after_the_first_batch_is_told_without_a_warm_up_too() -> None:
    process = one_by_one(*STEADY, stopped_at(3))
    assert stalled_s(process, warm=False) == pytest.approx(STOPPED_MS / 1e3, abs=0.05)


def test_rows_side_by_side_are_one_stream_of_signs() -> None:
    """One request waits for long while others go on, as in continuous batching."""
    busy = [answer(at * 200 * MS, batch_index=None) for at in range(40)]
    waiting = answer(0, gaps_ms=(20.0, 6_000.0, 20.0), batch_index=None)
    window = Window(0, max(one.last_token_ns or 0 for one in busy))
    process = make_process(window=window, passes=(window,), requests=(waiting, *busy))
    assert stalled_s(process) == 0.0


def test_an_engine_without_token_times_tells_nothing() -> None:
    untold = replace(answer(0), gaps_ns=None)
    assert stalled_s(one_by_one(untold)) is None
    assert stalled_s(make_process(requests=(make_failed_sample(),))) is None


def process_with(idle_s: float | None, warm_share: float | None) -> RawProcessResult:
    untold = replace(answer(0), gaps_ns=None)
    window = Window(0, 20 * S)
    return make_process(
        window=window, requests=(untold,), idle_s=idle_s, warmup_idle_share=warm_share
    )


@pytest.mark.parametrize(
    ("idle_s", "warm_share", "expected"),
    [
        (4.0, 0.0, 4.0),
        (4.0, 0.05, 3.0),
        (0.9, 0.0, 0.0),  # 4.5 % of the window
        (20.0, 0.98, None),  # it waits for another process, as it did in the warm-up
        (4.0, None, None),
        (None, 0.0, None),
    ],
)
def test_a_thread_that_worked_throughout_and_then_did_not_was_stopped(
    idle_s: float | None, warm_share: float | None, expected: float | None
) -> None:
    assert stalled_s(process_with(idle_s, warm_share)) == expected


def test_the_longer_of_both_counts_once() -> None:
    process = replace(one_by_one(*STEADY, stopped_at(4)), idle_s=4.0, warmup_idle_share=0.0)
    assert stalled_s(process) == pytest.approx(4.0, abs=0.05)


def test_a_thread_that_sleeps_is_idle_and_one_that_computes_is_not() -> None:
    before = read_clocks()
    time.sleep(0.5)
    slept = read_clocks()
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass
    after = read_clocks()
    assert slept.idle_s - before.idle_s > 0.4
    assert after.idle_s - slept.idle_s < 0.2, "waiting for a CPU is not idle"
    assert after.slept_s - before.slept_s == pytest.approx(0.0, abs=0.2)


def test_a_process_that_waits_between_passes_for_another_does_not_stall() -> None:
    spans = (Window(0, 1 * S), Window(5 * S, 6 * S))
    rows = [answer(span.t0_ns, pass_index=number) for number, span in enumerate(spans)]
    stopped = answer(5 * S, pass_index=1, gaps_ms=(20.0, 4_000.0, *[20.0] * 20))
    window = Window(0, 6 * S)
    waiting = make_process(window=window, passes=spans, requests=tuple(rows))
    assert stalled_s(waiting) == 0.0

    longer = (spans[0], Window(5 * S, 10 * S))
    both = make_process(window=Window(0, 10 * S), passes=longer, requests=(rows[0], stopped))
    assert stalled_s(both) == pytest.approx(STOPPED_MS / 1e3, abs=0.05)


def noisy(seed: int, stop_ms: float = 0.0) -> RawProcessResult:
    """Make ten batches of a model of any speed, with steps as unequal as a busy machine's."""
    draw = np.random.default_rng(seed)
    step_ms = float(10 ** draw.uniform(-1, 3.3))  # 0.1 ms to 2 s
    made = []
    for _ in range(10):
        positions, rows = int(draw.integers(4, 2000)), float(draw.integers(1, 9))
        gaps_ms = step_ms * rows * draw.lognormal(0.0, 0.4, size=int(draw.integers(1, 60)))
        prefill_ms = step_ms * rows * (1 + positions / draw.uniform(40, 80))
        made.append(answer(0, prefill_ms, gaps_ms.tolist(), positions))
    if stop_ms:
        longest = max(range(10), key=lambda n: len(made[n].gaps_ns or ()))
        gaps_ns = list(made[longest].gaps_ns or ())
        gaps_ns[len(gaps_ns) // 2] += round(stop_ms * MS)
        made[longest] = answer(0, 100.0, [gap / MS for gap in gaps_ns], made[longest].input_tokens)
    return one_by_one(*made)


@pytest.mark.parametrize("seed", range(40))
def test_noise_is_no_stall_and_a_stop_in_it_is(seed: int) -> None:
    assert stalled_s(noisy(seed)) == 0.0
    stop_ms = 1_500.0 + 50 * max(max(one.gaps_ns or (0,)) for one in noisy(seed).requests) / MS
    assert stalled_s(noisy(seed, stop_ms)) == pytest.approx(stop_ms / 1e3, rel=0.1)
