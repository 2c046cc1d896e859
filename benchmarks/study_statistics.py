"""How often a study shows a difference that is not there, and how often one that is.

Simulated studies (``study_simulation.py``), in four parts:

* loads: equal configurations under drift and carry-over; what one study prints as the effect that
  the next one shows is held against the next one;
* noise: configurations that are equal but for their noise;
* outliers: one run of a study is 20 % too high, or none is;
* order: how much wider the package's own orders make intervals because drift has to be told too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

import machine
from llenergymeasure.config.models import CycleOrder
from llenergymeasure.study.blocks import fit
from llenergymeasure.study.outliers import outlying
from study_simulation import (
    LOADS,
    NOISE,
    SPREADS,
    Load,
    Studies,
    analyse,
    default_orders,
    drawn_orders,
    fixed_orders,
    observations,
    package_agrees,
    product_orders,
    simulate,
    widening,
)
from study_statistics_report import report

Row = dict[str, Any]

FAMILIES = (2, 3, 4, 8, 20, 40)
CYCLES = (2, 3, 5, 10)
MOST_FALSE = {2: 0.07, 3: 0.06, 5: 0.06, 10: 0.06}  # of studies with noise alike, by cycles
MOST_FALSE_UNEQUAL = {2: 0.20, 3: 0.09, 5: 0.065, 10: 0.06}  # by cycles
SHOWN = (0.75, 0.88)  # of next studies, of the effect that a study prints for them
MOST_NAMED = 0.05  # of studies without an outlying run
LEAST_NAMED = 0.95  # of studies with one, where there is enough to tell it by
TELLING = 5  # degrees of freedom from which one is to be named
MOST_WIDE: dict[CycleOrder, float] = {"balanced": 1.15, "shuffled": 1.25}
"""Times as wide for drift, the worst pair of an order. The others do not tell drift."""
OUTLYING = 0.20
ORDERS = range(2, 65)  # configurations
ORDER_CYCLES = (2, 3, 4, 5)
PARTS = ("loads", "noise", "outliers", "order")


def load_cell(seed: int, load: Load, family: int, cycles: int, repeats: int) -> Row:
    """Run one size of study under one load, and its alternatives beside it."""
    rng = np.random.default_rng([seed, family, cycles, LOADS.index(load)])
    balanced = simulate(rng, drawn_orders(repeats, family, cycles), load)
    default = simulate(rng, default_orders(repeats, family, cycles), load)
    fixed = simulate(rng, fixed_orders(repeats, family, cycles), load)
    said, said_default = analyse(balanced), analyse(default)
    printed = said.detectable
    checked = 50 if family <= 8 else 10
    row: Row = {
        "load": load.name,
        "configurations": family,
        "cycles": cycles,
        "repeats": repeats,
        "false": _share(said.shown),
        "default_seed_false": _share(said_default.shown),
        "shown_next": said.shows(np.roll(printed, 1)),
        "default_seed_shown_next": said_default.shows(np.roll(said_default.detectable, 1)),
        "median_mde_percent": float(100 * np.expm1(np.median(printed))),
        "fixed_false": _share(analyse(fixed).shown),
        "unpaired_false": _share(_unpaired(balanced)),
        "package_agrees": package_agrees(balanced, said, checked)
        and package_agrees(default, said_default, checked),
    }
    false = max(row["false"], row["default_seed_false"])
    shown = row["shown_next"], row["default_seed_shown_next"]
    # Drift and what is carried over only add to what is found by chance.
    enough = SHOWN[0] <= min(shown) and (load != LOADS[0] or max(shown) <= SHOWN[1])
    return {
        **row,
        "as_claimed": bool(false <= MOST_FALSE[cycles] and enough and row["package_agrees"]),
    }


def noise_cell(seed: int, name: str, family: int, cycles: int, repeats: int) -> Row:
    """Run studies of configurations that are equal but for their noise."""
    rng = np.random.default_rng([seed, family, cycles, len(LOADS) + [*SPREADS].index(name)])
    spread = SPREADS[name](family)
    studies = simulate(rng, drawn_orders(repeats, family, cycles), LOADS[0], spread)
    said = analyse(studies)
    quiet = sorted(range(family), key=lambda one: spread[one])[:2]
    factor = np.sqrt(2 / cycles) * NOISE * min(spread)
    false = _share(said.shown)
    return {
        "noise": name,
        "configurations": family,
        "cycles": cycles,
        "repeats": repeats,
        "false": false,
        "quiet_pair_half_width": float(np.median(said.margin[:, quiet[0], quiet[1]]) / factor),
        "package_agrees": package_agrees(studies, said, 10),
        "as_claimed": false <= (MOST_FALSE if name == "alike" else MOST_FALSE_UNEQUAL)[cycles],
    }


def outlier_cell(seed: int, family: int, cycles: int, repeats: int) -> Row:
    """Make one run of each study too high, and see whether it is named, and what is without it."""
    rng = np.random.default_rng([seed, family, cycles, 77])
    orders = drawn_orders(repeats, family, cycles)
    alike, noisy = (
        simulate(rng, orders, LOADS[0], SPREADS[name](family))
        for name in ("alike", "one 5 times as noisy as the rest")
    )
    named, alone, blind, without = [], [], [], []
    for index in range(repeats):
        runs = list(observations(alike, index))
        bad = int(rng.integers(len(runs)))
        worse = [*runs]
        worse[bad] = runs[bad]._replace(value=runs[bad].value * (1 + OUTLYING))
        found = [one.runs for one in outlying(worse)]
        named.append(any(bad in one for one in found))
        alone.append((bad,) in found)
        blind.append(fit(worse).residual_sd)
        without.append(fit(runs).residual_sd)
    false = _named_at_all(alike)
    freedom = (family - 1) * (cycles - 1)
    chance = 2 * np.sqrt(MOST_NAMED * (1 - MOST_NAMED) / repeats)  # of this many studies
    enough = freedom < TELLING or np.mean(named) >= LEAST_NAMED
    return {
        "configurations": family,
        "cycles": cycles,
        "repeats": repeats,
        "named": float(np.mean(named)),
        "named_alone": float(np.mean(alone)),
        "false": false,
        "false_unequal": _named_at_all(noisy),
        "noise_grows": float(np.median(blind) / np.median(without)),
        "as_claimed": bool(false <= MOST_NAMED + chance and enough),
    }


def _named_at_all(studies: Studies) -> float:
    found = [
        next(outlying(list(observations(studies, index))), None)
        for index in range(len(studies.slot))
    ]
    return float(np.mean([one is not None for one in found]))


def order_cell(
    order: CycleOrder, family: int, cycles: int, seeds: Sequence[int] = (42, 1, 2, 3)
) -> Row:
    """Tell how much wider an order makes intervals, by the default seed and by others."""
    wide = [widening(one) for one in product_orders(seeds, family, cycles, order)]
    worst = float(max(one.max() for one in wide))
    return {
        "order": order,
        "configurations": family,
        "cycles": cycles,
        "widest": worst,
        "median": float(max(np.median(one) for one in wide)),
        "as_claimed": worst <= MOST_WIDE[order],
    }


def _share(happened: npt.NDArray[np.bool_]) -> float:
    return float(happened.mean())


def _unpaired(studies: Studies) -> npt.NDArray[np.bool_]:
    """Tell where a t-test that ignores cycles finds the first two to differ."""
    cycles = studies.log_value.shape[1]
    spread = studies.log_value[:, :, :2].var(axis=1, ddof=1).sum(axis=1)
    means = studies.log_value.mean(axis=1)
    critical = student.ppf(0.975, 2 * (cycles - 1))
    return np.asarray(np.abs(means[:, 0] - means[:, 1]) > critical * np.sqrt(spread / cycles))


def rows_of(part: str, seed: int, repeats: int, families: Sequence[int]) -> Iterator[Row]:
    """Run one part.

    Args:
        part: One of ``PARTS``.
        seed: Of everything drawn.
        repeats: Studies of a cell with two configurations; larger ones have fewer.
        families: Numbers of configurations.
    """
    if part == "order":
        yield from (order_cell(*size) for size in product(MOST_WIDE, ORDERS, ORDER_CYCLES))
        return
    for family, cycles in product(families, CYCLES):
        fewer = min(repeats, max(16 * repeats // family**2, 1_000))
        if part == "loads":
            yield from (load_cell(seed, load, family, cycles, fewer) for load in LOADS)
        elif part == "noise" and family > 2:
            yield from (noise_cell(seed, name, family, cycles, fewer) for name in SPREADS)
        elif part == "outliers" and family * cycles > 4:
            yield outlier_cell(seed, family, cycles, max(repeats // 20, 50))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cells; 1 when one is not as claimed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    parser.add_argument("--families", type=int, nargs="+", default=FAMILIES)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    given = parser.parse_args(arguments)
    file = given.output / "study_statistics.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    parts = {part: kept.get(part, []) for part in PARTS}
    for part in given.parts:
        others = [row for row in parts[part] if row["configurations"] not in given.families]
        rows = [*rows_of(part, given.seed, given.repeats, given.families)]
        rows += others if part != "order" else []
        parts[part] = sorted(rows, key=lambda row: (row["configurations"], row["cycles"]))
    data = {
        "machine": machine.describe(),
        "seed": given.seed,
        "noise": NOISE,
        "claims_hold": all(row["as_claimed"] for rows in parts.values() for row in rows),
        **parts,
    }
    machine.save(file, data)
    (given.output / "study_statistics.md").write_text(report(data), encoding="utf-8")
    return 0 if data["claims_hold"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
