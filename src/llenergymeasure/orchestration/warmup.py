"""Work before the measured window: it warms the device, and shows what that draws after work.

Where a source reads a GPU's counter, the last batches are each followed by half a second of rest.
Their ends are those of the same work on the same host as the window's own, at other places of the
counter's tick, so that together they tell a tail of which one end hides a part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil

from llenergymeasure.config.models import WarmupConfig
from llenergymeasure.core.energy.protocol import EndWatcher
from llenergymeasure.core.energy.selection import Selection
from llenergymeasure.domain.results import WarmupResult
from llenergymeasure.domain.samples import Window, WindowReadings
from llenergymeasure.orchestration.executor import Executor

# Of a tick, before a tick: one just behind a tick has nearly all of a tail in one tick, the others
# tell how it goes on. The first is not aimed: nothing has told yet where ticks are.
ENDS = (0.3, 0.13, 0.06, 0.97)


def warm_up(  # noqa: PLR0913 - what it works with, of a kind each
    executor: Executor,
    selection: Selection,
    config: WarmupConfig,
    keep: Callable[[WindowReadings], None],
    *,
    watch: bool,
    instead: str | None = None,
) -> WarmupResult:
    """Run warm-up batches until there were enough of them and the thermal floor has passed.

    Args:
        executor: Runs them.
        selection: The energy source; a floor is kept for one that measures.
        config: How many, and how long.
        keep: Takes what was read around the ends.
        watch: Whether ends are looked at, where the source can. They are of the batches asked
            for, or of those that the floor asks for.
        instead: What took the place of the floor, if anything did.
    """
    kind, floor_s = selection.coverage.kind, config.thermal_floor_seconds
    reached = "off" if floor_s == 0 else f"reached: {floor_s:g} s under load"
    if floor_s and kind != "measured":
        floor_s, reached = 0.0, f"skipped: energy is {kind}, not measured"
    if instead is not None:
        floor_s, reached = 0.0, instead
    source, watched, lasts_s, tokens, done = selection.source, 0, 0.0, 0, 0
    start_s = time.monotonic()
    while (left := _left(config, done, floor_s, time.monotonic() - start_s)) > 0:
        # How many batches a floor asks for is known once one has run.
        last = left <= len(ENDS) and (done > 0 or floor_s == 0)
        watcher = source if watch and last and isinstance(source, EndWatcher) else None
        if watcher is not None:
            watcher.before_end(lasts_s or None, ENDS[-left])
        began_ns = time.monotonic_ns()
        ran = executor.warm_up(1, done)
        lasts_s, tokens, done = (ran.ended_ns - began_ns) / 1e9, tokens + ran.tokens, done + 1
        if watcher is not None:
            readings = tuple(watcher.after_end(ran.ended_ns))
            keep(WindowReadings("warmup_end", Window(began_ns, ran.ended_ns), readings))
            watched += 1
    return WarmupResult(
        batches=done,
        output_tokens=tokens,
        seconds=time.monotonic() - start_s,
        thermal_floor=reached,
        watched_ends=watched,
    )


def _left(config: WarmupConfig, done: int, floor_s: float, spent_s: float) -> int:
    """Tell how many batches are to run yet, for their number and for the floor."""
    lacking_s = max(floor_s - spent_s, 0.0)
    by_floor = ceil(lacking_s * done / spent_s) if done else ceil(lacking_s)
    return max(config.n_warmup - done, by_floor)
