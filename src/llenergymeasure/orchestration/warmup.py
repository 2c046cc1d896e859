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
from llenergymeasure.core.energy.protocol import REST_S, EndWatcher
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
    watcher = selection.source if isinstance(selection.source, EndWatcher) and watch else None
    start_s, tokens, done = time.monotonic(), 0, 0

    def due() -> int | None:
        spent_s = time.monotonic() - start_s
        return _due(config.n_warmup, floor_s, done, spent_s, watched=watcher is not None)

    while (ends := due()) is None:
        tokens += executor.warm_up(1, done).tokens
        done += 1
    lasts_s = None
    for share in ENDS[len(ENDS) - ends :]:
        assert watcher is not None, "without one no end is due"
        watcher.before_end(lasts_s, share)
        began_ns = time.monotonic_ns()
        ran = executor.warm_up(1, done)
        readings = tuple(watcher.after_end(ran.ended_ns))
        keep(WindowReadings("warmup_end", Window(began_ns, ran.ended_ns), readings))
        lasts_s, tokens, done = (ran.ended_ns - began_ns) / 1e9, tokens + ran.tokens, done + 1
    if ends and floor_s:
        reached += f", with {ends * REST_S:g} s of rest behind its last batches"
    return WarmupResult(
        batches=done,
        output_tokens=tokens,
        seconds=time.monotonic() - start_s,
        thermal_floor=reached,
        watched_ends=ends,
    )


def _due(n_warmup: int, floor_s: float, done: int, spent_s: float, *, watched: bool) -> int | None:
    """Tell how many batches are left, once their ends are to be looked at; ``None`` before."""
    batches, lacking_s = n_warmup - done, floor_s - spent_s
    if not watched:
        return None if batches > 0 or lacking_s > 0 else 0
    if floor_s and not done:  # how many a floor asks for is known once one has run
        return None
    each_s = REST_S + (spent_s / done if done else 0.0)
    left = max(batches, ceil(lacking_s / each_s), 0)
    return left if left <= len(ENDS) else None
