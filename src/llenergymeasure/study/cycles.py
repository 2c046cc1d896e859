"""The order in which a study measures its configurations. Pure: equal arguments, equal orders.

``balanced`` uses the designs of E. J. Williams, "Experimental designs balanced for the estimation
of residual effects of treatments", Australian Journal of Scientific Research A 2 (1949) 149-168.
For ``k`` configurations a design has ``k`` rows, or ``2k`` where ``k`` is odd. Each row holds every
configuration once, and over all rows each follows every other equally often (once, or twice where
``k`` is odd) and stands at every position equally often. A cycle is a row.

With fewer cycles than rows, rows are chosen so that

- no configuration begins a second cycle before each has begun one, and
- within cycles no configuration follows another more often than in the whole design: at most once
  for even ``k``, where every choice of rows is as even as can be; at most twice for odd ``k``,
  where rows that repeat fewest successions are taken first.

With more cycles than rows, whole designs follow each other, the labels of each drawn anew. Two
configurations take turns instead (A B, B A, A B, ...): then each runs after itself as often as
after the other, which rows that are drawn anew reach only on average.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise, repeat
from typing import NamedTuple

from llenergymeasure.config.models import CycleOrder
from llenergymeasure.study.manifest import ExecutionPlan, Slot

_Cycles = Iterator[list[int]]


def slots(count: int, execution: ExecutionPlan) -> tuple[Slot, ...]:
    """Lay out every experiment of a study in the order of running.

    Args:
        count: Number of configurations.
        execution: Cycles, their order and its seed.
    """
    if execution.cycle_order == "sequential" or count == 1:
        pairs = ((c, n) for c in range(count) for n in range(1, execution.n_cycles + 1))
    else:
        cycles = _ORDERS[execution.cycle_order](count, execution)
        pairs = ((c, n) for n, cycle in enumerate(cycles, start=1) for c in cycle)
    return tuple(Slot(number, c, n) for number, (c, n) in enumerate(pairs, start=1))


def _shuffled(count: int, execution: ExecutionPlan) -> _Cycles:
    generator = random.Random(execution.seed)
    for _ in range(execution.n_cycles):
        cycle = list(range(count))
        generator.shuffle(cycle)
        yield cycle


def _balanced(count: int, execution: ExecutionPlan) -> _Cycles:
    generator = random.Random(execution.seed)
    if count == 2:
        first = [0, 1]
        generator.shuffle(first)
        for number in range(execution.n_cycles):
            yield first[::-1] if number % 2 else first
        return
    left = execution.n_cycles
    while left and count:
        rows = _rows(count, left, generator)
        yield from rows
        left -= len(rows)


_ORDERS: dict[CycleOrder, Callable[[int, ExecutionPlan], _Cycles]] = {
    "interleaved": lambda count, execution: repeat(list(range(count)), execution.n_cycles),
    "shuffled": _shuffled,
    "balanced": _balanced,
}


class _Row(NamedTuple):
    """A row of the design: every label of one of its two squares, moved on by ``shift``."""

    backwards: bool
    shift: int


def _rows(count: int, wanted: int, generator: random.Random) -> list[list[int]]:
    """Make at most ``wanted`` rows of one design, its labels drawn anew."""
    names = list(range(count))
    generator.shuffle(names)
    # 0, 1, k-1, 2, k-2, ...: neighbours differ by 1, -2, 3, -4, ... modulo k.
    first = [(place + 1) // 2 if place % 2 else -(place // 2) % count for place in range(count)]
    rows = _chosen(first, wanted, generator)
    return [[names[label] for label in _labels(row, first)] for row in rows]


def _labels(row: _Row, first: list[int]) -> list[int]:
    labels = [(label + row.shift) % len(first) for label in first]
    return labels[::-1] if row.backwards else labels


def _chosen(first: list[int], wanted: int, generator: random.Random) -> list[_Row]:
    """Choose rows one by one: a start used least, then the fewest successions seen before.

    Among equals, a row that does not begin with what the row before it ended with.
    """
    count = len(first)
    squares = (False, True) if count % 2 and count > 1 else (False,)
    left = [_Row(backwards, shift) for backwards in squares for shift in range(count)]
    generator.shuffle(left)
    repeats = _repeats(first)
    starts, seen = [0] * count, dict.fromkeys(left, 0)
    rows: list[_Row] = []
    while left and len(rows) < wanted:
        row = min(left, key=lambda row: _cost(row, first, starts, seen, rows))
        rows.append(row)
        left.remove(row)
        starts[_start(row, first)] += 1
        for other in left:
            if other.backwards == row.backwards:  # the two squares share no succession
                seen[other] += repeats[(other.shift - row.shift) % count]
    return rows


def _cost(
    row: _Row, first: list[int], starts: list[int], seen: dict[_Row, int], rows: list[_Row]
) -> tuple[int, int, bool]:
    start = _start(row, first)
    at_once = bool(rows) and start == _start(
        rows[-1]._replace(backwards=not rows[-1].backwards), first
    )
    return starts[start], seen[row], at_once


def _start(row: _Row, first: list[int]) -> int:
    return (first[-1 if row.backwards else 0] + row.shift) % len(first)


def _repeats(first: list[int]) -> list[int]:
    """Count, for two rows of a square, the successions both have, by how far they are shifted.

    A succession is a label and the step to the next one; a step that occurs twice in a row is
    shared by the rows whose shift makes the two labels equal.
    """
    count = len(first)
    places: dict[int, list[int]] = {}
    for label, follower in pairwise(first):
        places.setdefault((follower - label) % count, []).append(label)
    repeats = [0] * count
    for labels in places.values():
        for one in labels:
            for other in labels:
                if one != other:
                    repeats[(one - other) % count] += 1
    return repeats
