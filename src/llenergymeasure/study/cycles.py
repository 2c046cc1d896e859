"""The order in which a study measures its configurations. Pure: equal arguments, equal orders.

``balanced`` uses the designs of E. J. Williams, "Experimental designs balanced for the estimation
of residual effects of treatments", Australian Journal of Scientific Research A 2 (1949) 149-168.
For ``k`` configurations a design has ``k`` rows, or ``2k`` where ``k`` is odd. Each row holds every
configuration once, and over all rows each follows every other equally often (once, or twice where
``k`` is odd) and stands at every position equally often. A cycle is a row.

With fewer cycles than rows, rows are chosen so that

- no configuration begins a second cycle before each has begun one;
- within cycles no configuration follows another more often than in the whole design: at most once
  for even ``k``, where every choice of rows is as even as can be; at most twice for odd ``k``,
  where rows that repeat fewest successions are taken first; then
- a row does not begin with what the one before it ended with, and
- configurations that stood early in the rows before stand late: else a drift along the order of
  running could not be told from a difference between configurations. Of three and four the second
  row is the first one backwards for that, whatever it begins with: no other one tells drift.

With more cycles than rows, whole designs follow each other, the labels of each drawn anew. Two
configurations take turns instead (A B, B A, A B, ...): then each runs after itself as often as
after the other, which rows that are drawn anew reach only on average.

``shuffled`` draws every cycle at random, of the orders that go with the cycles before so that drift
is told from configurations (restricted randomisation: P. M. Grundy and M. J. R. Healy, Journal of
the Royal Statistical Society B 12 (1950) 286-291).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise, repeat
from math import inf, sqrt
from typing import NamedTuple

from llenergymeasure.config.models import CycleOrder
from llenergymeasure.exceptions import StudyError
from llenergymeasure.study.manifest import ExecutionPlan, Slot

MOST_SLOTS = 2_000_000
"""Experiments of a study. Of ten million the plan alone takes gigabytes."""

_Cycles = Iterator[list[int]]
_Kept = Sequence[list[int]]

WIDEST = 1.25  # times as wide as without it that telling drift may make an interval, if shuffled
_DRAWS = 100  # of one cycle
_SHORT = 4  # configurations in a row that tells drift from few others only


def slots(count: int, execution: ExecutionPlan, stored: Iterable[Slot] = ()) -> tuple[Slot, ...]:
    """Lay out every experiment of a study in the order of running.

    Args:
        count: Number of configurations.
        execution: Cycles, their order and its seed.
        stored: Whole cycles that are laid out already, perhaps by an earlier version: those that
            are added go with them.

    Raises:
        StudyError: They are more than a plan has room for.
    """
    if (wanted := count * execution.n_cycles) > MOST_SLOTS:
        factors = f"{count:,} configurations in {execution.n_cycles:,} cycles"
        most = f"a study has at most {MOST_SLOTS:,}"
        raise StudyError(f"{factors} are {wanted:,} experiments; {most}", where="n_cycles")
    if execution.cycle_order == "sequential" or count == 1:
        pairs = ((c, n) for c in range(count) for n in range(1, execution.n_cycles + 1))
    else:
        kept: dict[int, list[int]] = {}
        for slot in stored:
            kept.setdefault(slot.cycle, []).append(slot.configuration)
        cycles = _ORDERS[execution.cycle_order](count, execution, list(kept.values()))
        pairs = ((c, n) for n, cycle in enumerate(cycles, start=1) for c in cycle)
    return tuple(Slot(number, c, n) for number, (c, n) in enumerate(pairs, start=1))


def _shuffled(count: int, execution: ExecutionPlan, kept: _Kept) -> _Cycles:
    generator = random.Random(execution.seed)
    late = [0] * count
    for number in range(1, execution.n_cycles + 1):
        draws = (generator.sample(range(count), count) for _ in range(_DRAWS))
        told = (
            one for one in draws if number == 1 or _widening(_later(late, one), number) <= WIDEST
        )
        cycle = next(told, None) or sorted(range(count), key=late.__getitem__, reverse=True)
        cycle = kept[number - 1] if number <= len(kept) else cycle
        late = _later(late, cycle)
        yield cycle


def _later(late: Sequence[int], cycle: Sequence[int]) -> list[int]:
    """Add the places of one more cycle, each twice its distance from the middle."""
    later = list(late)
    for place, one in enumerate(cycle):
        later[one] += 2 * place - (len(cycle) - 1)
    return later


def _widening(late: Sequence[int], cycles: int) -> float:
    """Give how many times as wide the widest interval is as it would be if drift were known.

    A difference has the variance 2 / n + d^2 / r in units of that of the noise: d is how much
    later the one ran in the mean, r the squares of what neither configurations nor cycles say of
    its places, summed over all.
    """
    count = len(late)
    told = cycles**2 * count * (count**2 - 1) // 3 - sum(one**2 for one in late)
    return sqrt(1 + (max(late) - min(late)) ** 2 / (2 * told)) if told else inf


def _balanced(count: int, execution: ExecutionPlan, kept: _Kept) -> _Cycles:
    generator = random.Random(execution.seed)
    if count == 2:
        first = [0, 1]
        generator.shuffle(first)
        for number in range(execution.n_cycles):
            yield first[::-1] if number % 2 else first
        return
    done = 0
    while done < execution.n_cycles and count:
        rows = _rows(count, execution.n_cycles - done, generator, kept[done : done + 2 * count])
        yield from rows
        done += len(rows)


_ORDERS: dict[CycleOrder, Callable[[int, ExecutionPlan, _Kept], _Cycles]] = {
    "interleaved": lambda count, execution, _: repeat(list(range(count)), execution.n_cycles),
    "shuffled": _shuffled,
    "balanced": _balanced,
}


class _Row(NamedTuple):
    """A row of the design: every label of one of its two squares, moved on by ``shift``."""

    backwards: bool
    shift: int


def _rows(count: int, wanted: int, generator: random.Random, kept: _Kept) -> list[list[int]]:
    """Make at most ``wanted`` rows of one design, its labels drawn anew, those kept first."""
    names = list(range(count))
    generator.shuffle(names)
    # 0, 1, k-1, 2, k-2, ...: neighbours differ by 1, -2, 3, -4, ... modulo k.
    first = [(place + 1) // 2 if place % 2 else -(place // 2) % count for place in range(count)]
    labels = {name: label for label, name in enumerate(names)}
    rows = _chosen(first, wanted, generator, [[labels[one] for one in cycle] for cycle in kept])
    return [[names[label] for label in _labels(row, first)] for row in rows]


def _labels(row: _Row, first: list[int]) -> list[int]:
    labels = [(label + row.shift) % len(first) for label in first]
    return labels[::-1] if row.backwards else labels


class _Cost(NamedTuple):
    """What speaks against a row, what weighs most first.

    Attributes:
        starts: Rows before it that begin with the same label.
        successions: Those it has that rows before it have too.
        at_once: Whether it begins with what the row before it ends with, if it need not.
        alike: How far its labels stand where they stood in the rows before it.
    """

    starts: int = 0
    successions: int = 0
    at_once: bool = False
    alike: int = 0


def _chosen(first: list[int], wanted: int, generator: random.Random, kept: _Kept) -> list[_Row]:
    """Choose rows one by one, each the one that least speaks against, after those kept."""
    count = len(first)
    squares = (False, True) if count % 2 and count > 1 else (False,)
    left = [_Row(backwards, shift) for backwards in squares for shift in range(count)]
    generator.shuffle(left)
    repeats, alike = _repeats(first), _alike(count)
    costs = dict.fromkeys(left, _Cost())
    rows: list[_Row] = []
    while left and len(rows) < wanted:
        wished = kept[len(rows)] if len(rows) < len(kept) else ()
        likely = (one for one in left if wished and _start(one, first) == wished[0])
        found = (one for one in likely if _labels(one, first) == wished)
        row = next(found, None) or min(left, key=costs.__getitem__)
        rows.append(row)
        left.remove(row)
        for other in left:
            cost, apart = costs[other], (other.shift - row.shift) % count
            same = other.backwards == row.backwards  # the two squares share no succession
            costs[other] = _Cost(
                cost.starts + (_start(other, first) == _start(row, first)),
                cost.successions + (repeats[apart] if same else 0),
                count > _SHORT and _start(other, first) == _end(row, first),
                cost.alike + (alike[apart] if same else -alike[apart]),
            )
    return rows


def _start(row: _Row, first: list[int]) -> int:
    return (first[-1 if row.backwards else 0] + row.shift) % len(first)


def _end(row: _Row, first: list[int]) -> int:
    return _start(row._replace(backwards=not row.backwards), first)


def _alike(count: int) -> list[int]:
    """Tell how alike the places of labels are in two rows, by how far they are shifted.

    Labels run up and down a row as a triangle wave does, so it is that wave's correlation with
    itself, 1 - 24 x^2 + 32 x^3 for a shift by x of its length; here times count^3, a whole number.
    """
    shifts = (min(shift, count - shift) for shift in range(count))
    return [count**3 - 24 * count * shift**2 + 32 * shift**3 for shift in shifts]


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
