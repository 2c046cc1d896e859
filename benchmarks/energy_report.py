"""The page that ``energy_accuracy.py`` writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from llenergymeasure.domain.warnings import FINDINGS

Row = dict[str, Any]
# What says which sensor was read and how well it is known, and what is no warning at all.
NOT_HARM = {"sensor_uncalibrated", "integrated_power", "one_second_average"} | {
    code for code, finding in FINDINGS.items() if finding.level == "info"
}
CALM = ("quiet", "sensors as published", "loud edges", "four devices")
# Groups that have to be covered without a word, and those that may be flagged instead.
COVERED = (
    "quiet",
    "lag 50 ms",
    "rise 40 ms",
    "rise 80 ms",
    "sensors as published",
    "ramps",
    "ramps and tails met",
    "ramps of a device kept awake",
    "tails met",
    "tails never met",
    "loud edges",
    "late polls 10 %",
    "four devices",
)
# Groups that may be flagged instead of covered, and the finding that does; any where none is named.
WARNED = {
    "beating loads": "aliasing_risk",
    "part time": "aliasing_risk",
    "busy before": None,
    "busy after": None,
    "found by the search": None,
}
WORST_DRAWN = 10

INTRODUCTION = """# How near joules come to the truth

Simulated devices on a virtual clock, whose true energy is known; each window is taken as the
product takes it: the last warm-up batches before it, 0.4 to 4 s long, differing by 1 or 2 % (one
standard deviation) and aimed by the product's own rule, its waits, guards and reading plan, 2 % of
the sampler's wake-ups late by 10 to 50 ms, calibrations by the product's own script.
Written by `PYTHONPATH=. python benchmarks/energy_accuracy.py`. It shows whether a known sensor is
handled rightly; it says nothing about a real board's gain.

Errors are per cent of the true energy: 95th percentile and mean of the absolute error, bias, and
half-width of the 95 % interval (median). *Plain* is the difference of two counter reads, *linear*
interpolates between polls; both on the same windows. A cell counts as covered if its coverage is
not shown to lie below 95 % (exact upper bound of Clopper and Pearson). *Silent* is the share of
windows whose interval misses the truth and that carry no finding that warns; a *gross* miss is a
silent one by more than twice the half-width. A group's figure is its worst cell.
"""


class Line(NamedTuple):
    """A target and what was reached."""

    what: str
    window: str
    limit: str
    reached: str
    met: bool


def report(rows: Sequence[Row], seed: int) -> str:
    """Write the page."""
    lines = ["| target | window | limit | reached | met |", "|---|---|---|---|---|"]
    lines += [
        f"| {one.what} | {one.window} | {one.limit} | {one.reached} | "
        f"{'yes' if one.met else '**no**'} |"
        for one in targets(rows)
    ]
    table = "## Targets\n\n" + "\n".join(lines) + "\n"
    chosen = [row for row in rows if row["group"] != "drawn"]
    parts = [INTRODUCTION, table, _groups(chosen), _misses(chosen), _drawn(rows, seed)]
    return "\n".join(part for part in parts if part)


def targets(rows: Sequence[Row]) -> Iterator[Line]:
    """Give every target that these cells say something of."""
    quiet = {0.5: 0.6, 1.0: 0.3, 5.0: 0.08}
    never_met = {0.5: 2.0, 1.0: 1.0, 5.0: 0.2}
    yield from _worst(rows, "quiet", "p95_percent", "p95, quiet, calibrated", quiet)
    yield from _ratio(rows)
    for group in COVERED:
        yield from _covered(rows, group)
    label = "half-width, tails never met"
    yield from _worst(rows, "tails never met", "median_half_percent", label, never_met)
    yield from _worst(rows, "power only", "p95_percent", "p95, power only", {1.0: 1.0})
    yield from _share(rows, "power only", "silent_share", "silent misses, power only", 2.0)
    for group, by in WARNED.items():
        yield from _warned(rows, group, by)
    four = [row for row in rows if row["group"] == "four devices"]
    if four:
        worst = 100 * max(row["flag_shares"].get("unknown_tail", 0.0) for row in four)
        yield Line("false unknown_tail, four devices", "all", "2 %", f"{worst:.1f} %", worst <= 2)
    harmless = [row for row in rows if row["group"] in CALM]
    if harmless:
        flagged = 100 * sum(map(is_flagged, harmless)) / len(harmless)
        yield Line("harmless cells flagged", "all", "5 %", f"{flagged:.1f} %", flagged <= 5)
    zeros = sum(row["false_zeros"] for row in rows)
    yield Line("false zeros", "all", "0", str(zeros), not zeros)
    yield from _times_better(rows)


def _worst(
    rows: Sequence[Row], group: str, field: str, what: str, limits: dict[float, float]
) -> Iterator[Line]:
    for nominal_s, limit in limits.items():
        found = [
            abs(row[field])
            for row in rows
            if (row["group"], row["nominal_s"]) == (group, nominal_s) and row[field] is not None
        ]
        if found:
            reached = f"{max(found):.3f} %"
            yield Line(what, f"{nominal_s} s", f"{limit} %", reached, max(found) <= limit)


def _ratio(rows: Sequence[Row]) -> Iterator[Line]:
    found = [
        row["median_half_percent"] / row["p95_percent"]
        for row in rows
        if row["group"] == "quiet" and row["p95_percent"]
    ]
    if found:
        what, reached = "median half-width ÷ p95, quiet", f"{max(found):.1f}"
        reached += f" (median of cells {float(np.median(found)):.1f})"
        yield Line(what, "all", "3", reached, max(found) <= 3)


def _covered(rows: Sequence[Row], group: str) -> Iterator[Line]:
    some = [row for row in rows if row["group"] == group]
    if not some:
        return
    missed = [row for row in some if not is_covered(row)]
    worst = 100 * min(row["coverage"] for row in some)
    reached = f"{len(missed)} of {len(some)} (worst {worst:.1f} %)"
    yield Line(f"{group}: cells below 95 % coverage", "all", "0", reached, not missed)
    yield from _share(rows, group, "silent_share", f"{group}: silent misses", 5.0)
    yield from _share(rows, group, "gross_share", f"{group}: gross misses", 0.5)


def _share(
    rows: Sequence[Row], group: str, field: str, what: str, limit_percent: float
) -> Iterator[Line]:
    found = [100 * row[field] for row in rows if row["group"] == group]
    if found:
        reached, met = f"{max(found):.1f} %", max(found) <= limit_percent
        yield Line(what, "all", f"{limit_percent:g} %", reached, met)


def _warned(rows: Sequence[Row], group: str, by: str | None) -> Iterator[Line]:
    some = [row for row in rows if row["group"] == group]
    if some:
        missed = [row for row in some if not is_covered(row) and not is_flagged(row, by)]
        worst = 100 * max(row["silent_share"] for row in some)
        reached = f"{len(missed)} of {len(some)} (silent misses up to {worst:.1f} %)"
        what = f"{group}: cells neither covered nor flagged{f' {by}' if by else ''}"
        yield Line(what, "all", "0", reached, not missed)


def _times_better(rows: Sequence[Row]) -> Iterator[Line]:
    some = [row for row in rows if row["group"] == "quiet" and row["nominal_s"] == 1.0]
    if some:
        ours = float(np.mean([row["mean_abs_percent"] for row in some]))
        plain = float(np.mean([row["plain_mean_abs_percent"] for row in some]))
        reached = f"{plain / ours:.0f} times"
        yield Line(
            "mean error, plain / ours, quiet", "1.0 s", "10 times", reached, plain > 10 * ours
        )


def is_flagged(row: Row, by: str | None = None) -> bool:
    """Tell whether a cell's user is warned: most of its windows carry a finding of their own.

    Args:
        row: The cell.
        by: The finding; any that warns where none is named.
    """
    shares = row["flag_shares"]
    warning = {by} if by else shares.keys() - NOT_HARM
    share = max((shares.get(flag, 0.0) for flag in warning), default=0.0)
    return bool(share > 0.5 or row["measured_share"] < 0.5)


def is_covered(row: Row) -> bool:
    """Tell whether the coverage is not shown to lie below 95 %."""
    return bool(row["coverage_upper"] >= 0.95)


def _groups(rows: Sequence[Row]) -> str:
    head = "| group | window | cells | p95 | bias | half-width | coverage | silent | gross "
    lines = [f"{head}| plain p95 | linear p95 | measured | findings |", "|---" * 13 + "|"]
    for group, nominal_s in dict.fromkeys((row["group"], row["nominal_s"]) for row in rows):
        some = [row for row in rows if (row["group"], row["nominal_s"]) == (group, nominal_s)]
        lines.append(_group_line(group, nominal_s, some))
    return "## Groups, worst cell each\n\n" + "\n".join(lines) + "\n"


def _group_line(group: str, nominal_s: float, rows: Sequence[Row]) -> str:
    def worst(field: str, pick: Callable[..., float] = max) -> str:
        found = [abs(row[field]) for row in rows if row[field] is not None]
        return f"{pick(found):.3f}" if found else "-"

    flags: dict[str, float] = {}
    for row in rows:
        for flag, share in row["flag_shares"].items():
            flags[flag] = max(flags.get(flag, 0.0), share)
    named = ", ".join(f"{flag} {share:.2f}" for flag, share in sorted(flags.items()))
    figures = [worst(f) for f in ("p95_percent", "bias_percent", "median_half_percent")]
    shares = [worst("coverage", min), worst("silent_share"), worst("gross_share")]
    others = [worst("plain_p95_percent"), worst("linear_p95_percent"), worst("measured_share", min)]
    cells = (group, f"{nominal_s} s", str(len(rows)), *figures, *shares, *others, named)
    return f"| {' | '.join(cells)} |"


def _misses(rows: Sequence[Row]) -> str:
    head = "## Cells whose interval covers less than 95 %, or that miss silently more than 5 %\n\n"
    found = [row for row in rows if not is_covered(row) or row["silent_share"] > 0.05]
    return head + _table(found)


def _drawn(rows: Sequence[Row], seed: int) -> str:
    some = [row for row in rows if row["group"] == "drawn"]
    if not some:
        return ""
    some.sort(key=lambda row: (-row["silent_share"], row["coverage"]))
    silent = 100 * float(np.mean([row["silent_share"] for row in some]))
    coverage = 100 * float(np.mean([row["coverage"] for row in some]))
    return (
        f"## Scenes that nobody chose\n\n{len(some)} scenes drawn with seed {seed}, "
        f"{some[0]['windows']} windows each: covered {coverage:.1f} %, silent misses "
        f"{silent:.1f} %. The worst {WORST_DRAWN}:\n\n" + _table(some[:WORST_DRAWN])
    )


def _table(rows: Sequence[Row]) -> str:
    lines = ["| group | device | load | window | coverage | silent | p95 | bias | half-width |"]
    lines[0] += " flagged |"
    lines.append("|---" * 10 + "|")
    for row in rows:
        lines.append(
            f"| {row['group']} | {row['name']} | {row['nominal_s']} s | {row['coverage']:.3f} | "
            f"{row['silent_share']:.3f} | {row['p95_percent']} | {row['bias_percent']} | "
            f"{row['median_half_percent']} | {'yes' if is_flagged(row) else '**no**'} |"
        )
    return "\n".join(lines) + "\n"
