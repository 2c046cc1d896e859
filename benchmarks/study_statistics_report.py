"""The page that ``study_statistics.py`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]

INTRODUCTION = """# Does a study show what is there, and only that?

Simulated studies whose truth is known, written by `benchmarks/study_statistics.py`. Noise between
fresh processes is 1 %. The order of running is the package's own (`study/cycles.py`).
"""
TEXTS = {
    "loads": """## Under drift and carry-over

*Carry-over* is what a run leaves to the next one, drawn for each configuration, so configurations
that are equal still disturb their followers differently.

- **MDE**: the effect that a study prints as shown by 4 of 5 studies, median.
- **false**: share of studies of equal configurations that show any difference (at most 6 %).
- **next shows**: share of studies that show a true difference as large as *another* study of the
  same size has printed, over all pairs (75 to 88 % with noise only; drift and carry-over make
  studies wide).
- **default seed**: both of studies that name no seed, which all run in one order.
- **fixed order**: the same analysis of A B, A B, A B in place of the balanced order.
- **unpaired**: a t-test of the first two configurations that ignores cycles, in balanced order.
""",
    "noise": """## Configurations that are equal but for their noise

No drift, no carry-over. **False** is the share of studies that show any difference. With three
cycles nobody knows a configuration's own noise well, and with two not at all, which is what is
left. **Quiet pair**: half-width of the interval between the two quietest configurations, median,
in units of the standard error that it would have if their noise were known.
""",
    "outliers": """## One run that is 20 % too high

Noise is 1 %, alike for all. **Named**: the bad run is named, alone or as one of two which cannot be
told apart (two configurations, or two cycles). **False**: any run is named though none is bad;
beside it where one configuration is five times as noisy as the rest. **Noise grows**: how many
times the noise of the study seems with the bad run in it. At least 95 % are named from 5 degrees
of freedom. The bound of false names is 5 %, and what 1,000 studies leave to chance beside it
(1.4 %); all metrics of a study share it, of which this is one.
""",
    "order": """## What the order costs

A drift along the order of running is taken out where there are six degrees of freedom or more.
**Widest** is how many times as wide as without that the interval of a pair gets, at most, over the
default seed and three others; **median** the same of the median pair. It follows from the order
alone (normal equations with and without a column for drift) and is given where drift is not taken
out too. Every number of configurations from 2 to 64 was laid out; the table has the widest of each
range. `interleaved` and `sequential` order do not tell drift, so none is taken out of them.
""",
}
COLUMNS: dict[str, dict[str, str]] = {
    "loads": {
        "load": "load",
        "median_mde_percent": "MDE",
        "false": "false",
        "shown_next": "next shows",
        "default_seed_false": "default seed: false",
        "default_seed_shown_next": "default seed: next shows",
        "fixed_false": "fixed order: false",
        "unpaired_false": "unpaired: false",
    },
    "noise": {"noise": "noise", "false": "false", "quiet_pair_half_width": "quiet pair"},
    "outliers": {
        "named": "named",
        "named_alone": "named alone",
        "false": "false",
        "false_unequal": "false, one five times as noisy",
        "noise_grows": "noise grows",
    },
    "order": {"order": "order", "widest": "widest", "median": "median"},
}
PLAIN = {"quiet_pair_half_width", "noise_grows", "widest", "median"}
RANGES = ((2, 6), (7, 8), (9, 16), (17, 32), (33, 64))


def report(data: Row) -> str:
    """Write the page."""
    parts = {**data, "order": list(_ranges(data["order"]))}
    tables = [line for part in TEXTS for line in (TEXTS[part], *_table(parts[part], part), "")]
    return "\n".join([INTRODUCTION, _verdict(data), "", *tables])


def _verdict(data: Row) -> str:
    rows = [row for part in TEXTS for row in data[part]]
    short = sum(not row["as_claimed"] for row in rows)
    holds = (
        f"{short} of {len(rows)} rows are NOT as claimed (marked !)"
        if short
        else f"All {len(rows)} rows are as claimed"
    )
    repeats = [row["repeats"] for row in rows if "repeats" in row] or [0]
    return (
        f"{holds}. {min(repeats):,} to {max(repeats):,} studies a row, fewer of "
        f"many configurations, seed {data['seed']}; of each row the first were analysed by the "
        "package itself too, with the same outcome."
    )


def _ranges(rows: Sequence[Row]) -> Iterator[Row]:
    kinds = sorted({(row["order"], row["cycles"]) for row in rows})
    for low, high in RANGES:
        for kind in kinds:
            mine = [
                row
                for row in rows
                if low <= row["configurations"] <= high and (row["order"], row["cycles"]) == kind
            ]
            if not mine:
                continue
            yield {
                "order": kind[0],
                "configurations": f"{low} to {high}",
                "cycles": kind[1],
                "widest": max(row["widest"] for row in mine),
                "median": max(row["median"] for row in mine),
                "as_claimed": all(row["as_claimed"] for row in mine),
            }


def _table(rows: Sequence[Row], part: str) -> Iterator[str]:
    columns = COLUMNS[part]
    words = [name for name in columns if name == part.removesuffix("s") or name == part]
    figures = {name: head for name, head in columns.items() if name not in words}
    heads = [*(columns[name] for name in words), "configurations", "cycles", *figures.values()]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        cells = [*(row[name] for name in words), str(row["configurations"]), str(row["cycles"])]
        cells.extend(_cell(name, row[name]) for name in figures)
        mark = "" if row["as_claimed"] else "! "
        yield f"| {mark}{' | '.join(cells)} |"


def _cell(name: str, value: float) -> str:
    if name in PLAIN:
        return f"{value:.2f}"
    return f"{value:.1f} %" if name.endswith("percent") else f"{100 * value:.1f} %"
