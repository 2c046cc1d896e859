"""The page that ``study_statistics.py`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Row = dict[str, Any]

INTRODUCTION = """# Does a study show what is there, and only that?

Simulated studies whose truth is known, written by `benchmarks/study_statistics.py`. Noise between
fresh processes is 1 %. The order of running is the package's own (`study/cycles.py`), with a seed
drawn for each study. *Carry-over* is what a run leaves to the next one, drawn for each
configuration, so configurations that are equal still disturb their followers differently.

- **false**: share of studies of equal configurations that show any difference (at most 6 %).
- **MDE**: the minimum detectable effect a study prints, median.
- **shown**: share of studies that show a true difference as large as the MDE they print (75 to
  85 %).
- **shown, MDE of the noise**: the same with one true difference for all studies, the root mean
  square of what they print.
- **shown, MDE of a pilot**: with what *another* study of the same size printed. A small study does
  not know its own noise well, so this is less.
- **default seed**: *false* and *shown* of studies that name no seed, which all run in one order.
- **fixed order**: the same analysis of A B, A B, A B in place of the balanced order; share of
  false differences.
- **unpaired**: a t-test of the first two configurations that ignores cycles, in the balanced
  order; share of false differences, and of true ones (as large as *MDE of the noise*) shown.
"""
UNEQUAL = """
## Configurations that are equal but for their noise

No drift, no carry-over. *False* is the share of studies that show any difference, with a pair
judged by its own noise where that is larger than that of all, as the package does; beside it with
one noise for all. With three cycles a pair does not know its own noise well, which is what is left.
"""
COLUMNS = (
    ("false", "false"),
    ("shown", "shown_own_mde"),
    ("shown, MDE of the noise", "shown_rms_mde"),
    ("shown, MDE of a pilot", "shown_pilot_mde"),
    ("default seed: false", "default_seed_false"),
    ("default seed: shown", "default_seed_shown"),
    ("fixed order: false", "fixed_false"),
    ("unpaired: false", "unpaired_false"),
    ("unpaired: shown", "unpaired_shown"),
)


def report(data: Row) -> str:
    """Write the page."""
    tables = [*_table(data["rows"]), UNEQUAL, *_unequal(data["unequal_noise"])]
    return "\n".join([INTRODUCTION, _verdict(data), "", *tables, ""])


def _verdict(data: Row) -> str:
    rows = data["rows"]
    short = sum(not row["as_claimed"] for row in rows)
    holds = (
        f"{short} of {len(rows)} rows are NOT as claimed (marked !)"
        if short
        else "Every row is as claimed"
    )
    repeats = rows[0]["repeats"]
    return (
        f"{holds}. {repeats:,} studies a row, seed {data['seed']}; of each row the first were "
        "analysed by the package itself too, with the same outcome."
    )


def _table(rows: Sequence[Row]) -> Iterator[str]:
    heads = ["load", "configurations", "cycles", "MDE", *(head for head, _ in COLUMNS)]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        mark = "" if row["as_claimed"] else "! "
        cells = [f"{mark}{row['load']}", str(row["configurations"]), str(row["cycles"])]
        cells.append(f"{row['median_mde_percent']:.1f} %")
        cells.extend(f"{100 * row[field]:.1f} %" for _, field in COLUMNS)
        yield f"| {' | '.join(cells)} |"


def _unequal(rows: Sequence[Row]) -> Iterator[str]:
    yield "| noise | configurations | cycles | false | one noise for all: false |"
    yield f"|{'---|' * 5}"
    for row in rows:
        shares = (row["false"], row["false_by_one_noise_for_all"])
        told = " | ".join(f"{100 * share:.1f} %" for share in shares)
        yield f"| {row['spread']} | {row['configurations']} | {row['cycles']} | {told} |"
