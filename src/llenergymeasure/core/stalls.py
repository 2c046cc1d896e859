"""Stretches of a window in which nothing came of the work: it was stopped, or frozen, or starved.

Each token, each batch that begins or ends, is a sign of work. Between two of them lies a step, and
steps of a kind are alike: those of decoding within a batch; prefills, by the positions that they
compute. Between batches lies less than a step. A stretch that is long, and many times as long as is
usual for its kind, is a stall, whatever the reason: a worker that was stopped (SIGSTOP), a
container that was frozen, a machine that had no time or memory for it, a kernel that was compiled
only now.

Other clocks tell what samples cannot. A thread that works throughout, as one that computes on a CPU
or hands work to a GPU does, is never idle: that it neither ran nor waited for a CPU tells a stop,
wherever it fell. And a machine that sleeps stops the monotonic clock as well; ``CLOCK_BOOTTIME``
(clock_gettime(2)) goes on.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from llenergymeasure.domain.samples import RawProcessResult, RequestSample, Window
from llenergymeasure.units import NS_PER_S

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

LEAST_S = 1.0  # below are pauses of a busy machine, of collectors, of a kernel's first use
FAR = 10.0  # times what is usual; cores and batches permitting, steps of one kind differ by less
WORKS_THROUGHOUT = 0.1  # of a warm-up: a thread that is idle for more waits for others
LONG_SHARE = 0.05  # of the window: less idle time than that is no stop, whatever it is
_SAME_NS = 1_000_000  # signs closer than that are of one step, seen by several requests
_BETWEEN, _DECODE, _PREFILL = range(3)
_SCHEDSTAT = Path("/proc/thread-self/schedstat")  # ns on a CPU, ns that it waited for one, turns


class Clocks(NamedTuple):
    """What other clocks than the monotonic one show; only differences of two readings count.

    Attributes:
        slept_s: How long the machine has slept; not a number where no clock tells.
        idle_s: How long this thread has neither run nor waited for a CPU; the same.
    """

    slept_s: float
    idle_s: float


def read_clocks() -> Clocks:
    """Read them for the calling thread, in some 20 microseconds."""
    now_s, slept_s, idle_s = time.monotonic(), math.nan, math.nan
    if hasattr(time, "CLOCK_BOOTTIME"):
        slept_s = time.clock_gettime(time.CLOCK_BOOTTIME) - now_s
    with contextlib.suppress(OSError, ValueError):
        ran_ns, waited_ns, _ = map(int, _SCHEDSTAT.read_text().split())
        idle_s = now_s - (ran_ns + waited_ns) / NS_PER_S
    return Clocks(slept_s, idle_s)


def stalled_s(process: RawProcessResult, *, warm: bool = True) -> float | None:
    """Tell how long the work of one process stood still, beyond what its steps usually take, s.

    Args:
        process: Its share.
        warm: Whether there was a warm-up. Without one the first batch pays for what a warm-up
            hides, and is passed over.

    Returns:
        Seconds, or ``None`` where neither tokens nor clocks tell.
    """
    window, usual, by_clock_s = process.window, process.warmup_idle_share, None
    if process.idle_s is not None and usual is not None and usual <= WORKS_THROUGHOUT:
        beyond_s = process.idle_s - usual * window.seconds
        is_long = beyond_s > max(LEAST_S, LONG_SHARE * window.seconds)
        by_clock_s = beyond_s if is_long else 0.0
    told = [one for one in process.requests if one.finish != "failed"]
    if not told or any(one.first_token_ns is None or one.gaps_ns is None for one in told):
        return by_clock_s
    import numpy as np

    # Between passes a process waits for the others; that time is taken out.
    waits_ns = [after.t0_ns - before.t1_ns for before, after in pairwise(process.passes)]
    early_ns = dict(enumerate(accumulate(waits_ns, initial=0)))
    start_ns, end_ns = window.t0_ns, window.t1_ns - sum(waits_ns)
    if not warm:
        first = (one for one in told if one.pass_index == 0 and not one.batch_index)
        start_ns = max((one.delivered_ns or 0 for one in first), default=start_ns)
    at = [start_ns, end_ns]
    for one in told:
        early = early_ns.get(one.pass_index, 0)
        own = (one.scheduled_ns, one.delivered_ns or one.scheduled_ns)
        tokens = accumulate(one.gaps_ns or (), initial=one.first_token_ns or 0)
        at += (at_ns - early for at_ns in (*own, *tokens))
    apart_ns = np.diff(np.sort(np.clip(np.array(at, np.int64), start_ns, end_ns)))
    if apart_ns.max() <= LEAST_S * NS_PER_S:
        return by_clock_s or 0.0
    by_samples_s = _Steps.between(told, early_ns, Window(start_ns, end_ns)).stalled_ns() / NS_PER_S
    return max(by_samples_s, by_clock_s or 0.0)


class _Steps(NamedTuple):
    """What lies between one sign of work and the next, by what it ended with.

    Attributes:
        lasts_ns: How long it took.
        kind: Whether it ended with a token, with the first token of a request, or with neither.
        batch: Number of the batch that it was a step of.
        positions: Positions of the prompts whose first token it ended with.
    """

    lasts_ns: Ints  # (steps,)
    kind: Ints  # (steps,)
    batch: Ints  # (steps,)
    positions: Ints  # (steps,)

    @classmethod
    def between(
        cls, samples: Sequence[RequestSample], early_ns: Mapping[int, int], window: Window
    ) -> Self:
        """Order the signs of work inside a window, and tell what lies between them.

        Args:
            samples: Requests.
            early_ns: By how much the times of each pass are moved to an earlier one.
            window: Where its times lie then.
        """
        import numpy as np

        numbers: dict[tuple[int, int | None], int] = {}
        signs = [(window.t1_ns, _BETWEEN, -1, 0)]
        for one in samples:
            batch = numbers.setdefault((one.pass_index, one.batch_index), len(numbers))
            early = early_ns.get(one.pass_index, 0)
            first_ns, *others_ns = accumulate(one.gaps_ns or (), initial=one.first_token_ns or 0)
            ends_ns = (one.scheduled_ns, one.delivered_ns or one.scheduled_ns)
            signs += [(at_ns - early, _BETWEEN, batch, 0) for at_ns in ends_ns]
            signs += [(at_ns - early, _DECODE, batch, 0) for at_ns in others_ns]
            signs.append((first_ns - early, _PREFILL, batch, one.computed_input_tokens))
        inside = [sign for sign in signs if window.t0_ns < sign[0] <= window.t1_ns]
        at, kind, batches, positions = np.array(sorted(inside), np.int64).T
        begins = (np.diff(at, prepend=window.t0_ns - 2 * _SAME_NS) > _SAME_NS).nonzero()[0]
        before = np.concatenate(([window.t0_ns], at[begins[1:] - 1]))
        return cls(
            at[begins] - before,
            np.maximum.reduceat(kind, begins),
            batches[begins],
            np.add.reduceat(positions, begins),
        )

    def stalled_ns(self) -> float:
        """Sum what stalls lasted beyond what is usual."""
        long = (self.lasts_ns > LEAST_S * NS_PER_S).nonzero()[0].tolist()
        pairs = ((float(self.lasts_ns[step]), self.usual_ns(step)) for step in long)
        return sum(ns - usual_ns for ns, usual_ns in pairs if ns > FAR * usual_ns)

    def usual_ns(self, step: int) -> float:
        """Give what steps of its kind usually take, at the median; one alone is usual."""
        import numpy as np

        alike, decode = self.kind == self.kind[step], self.kind == _DECODE
        decode_ns = float(np.median(self.lasts_ns[decode])) if decode.any() else 0.0
        if self.kind[step] == _PREFILL:
            each_ns = np.median(self.lasts_ns[alike] / self.positions[alike])
            return float(each_ns * self.positions[step]) + decode_ns
        if self.kind[step] == _BETWEEN:
            return min(decode_ns, float(np.median(self.lasts_ns[alike])))
        own = alike & (self.batch == self.batch[step])
        return max(decode_ns, float(np.median(self.lasts_ns[own])))
