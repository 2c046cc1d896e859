"""The page that ``energy_accuracy.py`` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]
NOT_HARM = {"sensor_uncalibrated", "integrated_power", "one_second_average"}

INTRODUCTION = """# How near joules come to the truth

A simulated device on a virtual clock: the true energy is known. Written by
`PYTHONPATH=. python benchmarks/energy_accuracy.py --held-out`. It shows whether a known sensor is
handled rightly; it says nothing about a real board's gain.

Errors are per cent of the true energy: 95th percentile and mean of the absolute error, bias, and
half-width of the 95 % interval (median). *Plain* is the difference of two counter reads, *linear*
interpolates between polls; both on the same windows. A group's figure is its worst cell.

Groups called *held out* use devices, tails, loads and seeds that nothing was tuned on.

A tail is power that goes on after the work. It is not the window's energy, but whole ticks that
cover the end hold its first part. A tail that the calibration never saw is told from the ticks
behind it: its hidden part is taken off, the doubt is in the interval, and `unknown_tail` is raised.
Where it does not stand out of their noise, the interval allows for one that falls no faster than
20 /s. A quicker one, as in *fast tail, unknown* (30 /s), is over before the first of these ticks:
many such windows miss the truth without a finding, unless the device also has power readings that
look at a part of each tick (*fast tail, unknown, and power*). A cell counts as flagged where more
than half of its windows carry a finding, so it may hold many that do not. *Silent* is the share of
windows whose interval misses and that carry no finding.
"""


class Target(NamedTuple):
    """What must be reached.

    Attributes:
        what: In words.
        group: Whose cells it is about.
        field: Which figure.
        limits: Per nominal window, per cent.
    """

    what: str
    group: str
    field: str
    limits: dict[float, float]


TARGETS = (
    Target("p95, quiet edges", "quiet", "p95_percent", {0.5: 1.2, 1.0: 0.6, 5.0: 0.15}),
    Target("bias, quiet edges", "quiet", "bias_percent", {0.5: 0.2, 1.0: 0.2, 5.0: 0.2}),
    Target("half-width, quiet edges", "quiet", "median_half_percent", {0.5: 2, 1.0: 1, 5.0: 0.2}),
    Target("p95, loud edges", "loud", "p95_percent", {0.5: 3, 1.0: 1.5, 5.0: 0.3}),
    Target("half-width, loud edges", "loud", "median_half_percent", {0.5: 2, 1.0: 1, 5.0: 0.2}),
    Target("p95, fast tail", "fast tail", "p95_percent", {0.5: 2, 1.0: 1, 5.0: 0.2}),
    Target("bias, fast tail", "fast tail", "bias_percent", {0.5: 0.5, 1.0: 0.5, 5.0: 0.5}),
)


def report(rows: Sequence[Row]) -> str:
    """Write the page."""
    parts = [INTRODUCTION, _targets(rows), _groups(rows), _misses(rows)]
    return "\n".join(parts)


def _targets(rows: Sequence[Row]) -> str:
    lines = ["| target | window | limit % | worst cell % | met |", "|---|---|---|---|---|"]
    for target in TARGETS:
        for nominal_s, limit in target.limits.items():
            found = [
                abs(row[target.field])
                for row in rows
                if row["group"] == target.group and row["nominal_s"] == nominal_s
            ]
            if found:
                met = "yes" if max(found) <= limit else "**no**"
                lines.append(
                    f"| {target.what} | {nominal_s} s | {limit} | {max(found):.3f} | {met} |"
                )
    lines += [_shared(rows, "coverage"), _silent(rows), _flagged(rows), _zeros(rows)]
    lines.append(_times_better(rows))
    return "## Targets\n\n" + "\n".join(lines) + "\n"


def is_flagged(row: Row) -> bool:
    """Tell whether a cell's user is warned: most of its windows carry a finding of their own."""
    shares = [share for flag, share in row["flag_shares"].items() if flag not in NOT_HARM]
    return max(shares, default=0.0) > 0.5 or row["measured_share"] < 0.5


def is_covered(row: Row) -> bool:
    """Tell whether the coverage is not shown to lie below 95 %."""
    return bool(row["coverage_upper"] >= 0.95)


def _shared(rows: Sequence[Row], _: str) -> str:
    bare = [row for row in rows if not is_flagged(row)]
    missed = [row for row in bare if not is_covered(row)]
    met = "yes" if not missed else "**no**"
    return (
        f"| coverage, cells not flagged | all | 0 missed | {len(missed)} of {len(bare)} | {met} |"
    )


def _silent(rows: Sequence[Row]) -> str:
    """Tell the worst share of windows that miss unsaid; a cell counts as flagged from half on."""
    worst = 100 * max((row["silent_share"] for row in rows), default=0.0)
    met = "yes" if worst <= 5 else "**no**"
    return f"| windows that miss unsaid, worst cell | all | 5 | {worst:.1f} | {met} |"


def _flagged(rows: Sequence[Row]) -> str:
    groups = {"quiet", "loud", "counter and power"}
    harmless = [row for row in rows if row["group"] in groups and row["nominal_s"] > 0.3]
    flagged = [row for row in harmless if is_flagged(row)]
    share = 100 * len(flagged) / max(len(harmless), 1)
    return (
        f"| harmless cells flagged | all | 5 | {share:.1f} | {'yes' if share <= 5 else '**no**'} |"
    )


def _zeros(rows: Sequence[Row]) -> str:
    zeros = sum(row["false_zeros"] for row in rows)
    return f"| false zeros | all | 0 | {zeros} | {'yes' if not zeros else '**no**'} |"


def _times_better(rows: Sequence[Row]) -> str:
    some = [row for row in rows if row["group"] == "quiet" and row["nominal_s"] == 1.0]
    if not some:
        return ""
    ours = float(np.mean([row["mean_abs_percent"] for row in some]))
    plain = float(np.mean([row["plain_mean_abs_percent"] for row in some]))
    times = plain / ours
    met = "yes" if times >= 10 else "**no**"
    return f"| mean error, plain / ours, quiet | 1.0 s | 10 times | {times:.0f} times | {met} |"


def _groups(rows: Sequence[Row]) -> str:
    head = "| group | window | cells | p95 | bias | half-width | coverage | plain p95 | linear p95 "
    lines = [f"{head}| measured | findings |", "|---" * 11 + "|"]
    keys = dict.fromkeys((row["group"], row["nominal_s"]) for row in rows)
    for group, nominal_s in keys:
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
    figures = (worst(f) for f in ("p95_percent", "bias_percent", "median_half_percent"))
    others = (worst("plain_p95_percent"), worst("linear_p95_percent"))
    cells = (group, f"{nominal_s} s", str(len(rows)), *figures, worst("coverage", min), *others)
    return f"| {' | '.join((*cells, worst('measured_share', min), named))} |"


def _misses(rows: Sequence[Row]) -> str:
    missed = [row for row in rows if not is_covered(row)]
    lines = ["| group | device | load | window | coverage | silent | p95 | half-width | flagged |"]
    lines.append("|---" * 9 + "|")
    for row in missed:
        name = f"{row['group']} | {row['profile']} | {row['wave']} | {row['nominal_s']} s"
        lines.append(
            f"| {name} | {row['coverage']:.3f} | {row['silent_share']:.3f} | "
            f"{row['p95_percent']} | {row['median_half_percent']} | "
            f"{'yes' if is_flagged(row) else '**no**'} |"
        )
    return "## Cells whose interval covers less than 95 %\n\n" + "\n".join(lines) + "\n"
