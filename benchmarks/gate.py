"""How often a gate fails what is within its limit, and passes what is beyond it.

Simulated pairs of studies with a known change, judged by the package. Three parts:

* limit: a true change of exactly the limit, which is the worst case of both errors, with noise
  alike and not, for one configuration and for several;
* power: changes on both sides of the limit, and what is said of them;
* cycles: of what is inconclusive, how often the number of cycles that is named decides.

Run it from the root of the project: ``python benchmarks/gate.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from gate_simulation import Studies, decided_as_said, verdicts

Row = dict[str, Any]

LIMIT = 0.05
CYCLES = ((2, 2), (3, 3), (3, 10), (5, 5))
NOISE = ((0.02, 0.02), (0.01, 0.05), (0.05, 0.01), (0.2, 0.2))
CONFIGURATIONS = (1, 8)
MOST_WRONG = 0.05
LEAST_DECIDED = 0.75
CHANCE = 0.02  # of the worst of all rows, the smallest of which has 200 studies


def at_the_limit(rng: np.random.Generator, most: int) -> list[Row]:
    """Judge changes of exactly the limit; of several configurations also one beyond others."""
    rows = []
    for cycles, noise, count in product(CYCLES, NOISE, CONFIGURATIONS):
        times = max(most // count, 200)
        studies = Studies(cycles, noise, times)
        every = verdicts(rng, [1 + LIMIT] * count, LIMIT, studies)
        one = verdicts(rng, [1 + LIMIT] + [0.8] * (count - 1), LIMIT, studies)
        rows.append(
            {
                "cycles": cycles,
                "noise": noise,
                "configurations": count,
                "studies": times,
                "fail_all_at_limit": every["fail"],
                "pass_one_at_limit": one["pass"],
            }
        )
    return rows


def power(rng: np.random.Generator, studies: int) -> list[Row]:
    """Judge changes around the limit at a noise of 2 %."""
    return [
        {"change": change, "cycles": n, "studies": studies}
        | verdicts(rng, [1 + change], LIMIT, Studies((n, n), (0.02, 0.02), studies))
        for change in (-0.05, 0.0, 0.025, 0.05, 0.075, 0.1, 0.2)
        for n in (3, 5, 10)
    ]


def cycles_named(rng: np.random.Generator, studies: int) -> list[Row]:
    """Follow the number of cycles that inconclusive studies name."""
    rows = []
    for change, n, noise in product((0.0, 0.1), (3, 5), (0.03, 0.05)):
        named, median, decided = decided_as_said(
            rng, 1 + change, LIMIT, Studies((n, n), (noise, noise), studies)
        )
        rows.append(
            {
                "change": change,
                "cycles": n,
                "noise": noise,
                "inconclusive": named,
                "median_named": median,
                "decided": decided,
            }
        )
    return rows


def main() -> int:
    """Simulate, write what came out, and tell whether it is as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=14)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gate.json"))
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    found = {
        "limit": LIMIT,
        "seed": asked.seed,
        "at_the_limit": at_the_limit(rng, asked.studies),
        "power": power(rng, asked.studies // 4),
        "cycles_named": cycles_named(rng, asked.studies // 5),
    }
    asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    wrong = max(
        max(row["fail_all_at_limit"], row["pass_one_at_limit"]) for row in found["at_the_limit"]
    )
    decided = min(row["decided"] for row in found["cycles_named"])
    print(f"wrong in at most {100 * wrong:.1f} % of studies")
    print(f"decided by the cycles that are named in at least {100 * decided:.0f} %")
    return int(wrong > MOST_WRONG + CHANCE or decided < LEAST_DECIDED)


if __name__ == "__main__":
    sys.exit(main())
