"""Look for the load and the sensor at which intervals miss the truth most often without a word.

Run from the repository root: ``PYTHONPATH=. python benchmarks/energy_search.py``, some minutes. A
simple evolution over the genomes of ``energy_random.py``: of each generation the worst for us
survive, and their offspring are mixtures of two of them with some genes drawn anew. What it found
is measured again on windows of their own, so that a lucky score does not count. The worst belongs
into ``WORST_FOUND`` there, as a cell of ``energy_accuracy.py`` from then on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from functools import partial
from pathlib import Path

import numpy as np

from energy_accuracy import RESULTS, SEED, Trial, run_trial
from energy_cells import Cell
from energy_random import GENES, drawn, scene_of
from energy_report import NOT_HARM

Genome = tuple[float, ...]
LITTER, KEPT = 24, 8  # genomes of a generation, and how many of all so far have offspring
ANEW, NUDGE = 0.15, 0.05  # share of genes drawn anew, and by how much the others move
WINDOWS, CHECKED = 30, 300  # of a genome in the search, and of those that are told
TOLD = 5


def silent_share(genome: Genome, windows: int, seed: int) -> tuple[float, float]:
    """Give the share of windows that miss silently, and by how many half-widths they are off."""
    cell = Cell("search", "", "drawn", 1.0, genome=genome)
    rng = np.random.default_rng(seed)
    trials = [run_trial(cell, index, rng) for index in range(windows)]
    silent = [one for one in trials if not set(one.flags) - NOT_HARM]
    off = [_half_widths(one) for one in silent]
    return sum(one > 1.0 for one in off) / windows, sum(off) / windows


def _half_widths(trial: Trial) -> float:
    """Give how far off a window is; one without a figure is not."""
    off = abs(trial.error) / trial.half if np.isfinite(trial.error) and trial.half else 0.0
    return min(off, 5.0)


def offspring(parents: list[Genome], rng: np.random.Generator) -> Genome:
    """Mix two genomes, draw some genes anew and nudge the others."""
    first, second = (parents[i] for i in rng.integers(len(parents), size=2))
    mixed = np.where(rng.random(GENES) < 0.5, first, second)
    nudged = np.clip(mixed + NUDGE * rng.standard_normal(GENES), 0.0, 0.9999)
    anew = np.where(rng.random(GENES) < ANEW, rng.random(GENES), nudged)
    return tuple(np.round(anew, 4).tolist())


def main() -> None:
    """Search, measure the worst again, print and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    rng, until_s = np.random.default_rng(given.seed), time.monotonic() + 60 * given.minutes
    score = partial(silent_share, windows=WINDOWS, seed=given.seed)
    found: dict[Genome, tuple[float, float]] = {}
    litter = drawn(LITTER, given.seed)
    with multiprocessing.Pool(given.processes) as pool:
        while time.monotonic() < until_s:
            found.update(zip(litter, pool.map(score, litter), strict=True))
            best = sorted(found, key=lambda genome: found[genome], reverse=True)[:KEPT]
            print(f"{len(found)} tried; worst so far {found[best[0]][0]:.0%} silent", flush=True)
            litter = [offspring(best, rng) for _ in range(LITTER)]
        check = partial(silent_share, windows=CHECKED, seed=given.seed + 1)
        shares = pool.map(check, best[:TOLD])
    rows = [
        {
            "silent_share": share,
            "scene": scene_of(genome, rng).words,
            "genome": genome,
        }
        for genome, (share, _) in sorted(
            zip(best, shares, strict=False), key=lambda pair: pair[1], reverse=True
        )
    ]
    for row in rows:
        print(f"{row['silent_share']:.1%} silent: {row['scene']}\n{row['genome']}")
    data = {"seed": given.seed, "tried": len(found), "windows": CHECKED, "worst": rows}
    (given.output / "energy_search.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
