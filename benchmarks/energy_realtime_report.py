"""The figures of ``energy_realtime.py``, and the page it writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from energy_accuracy import covered_upper

Row = dict[str, Any]
OURS = "llem"
TIMES = 10.0
RIVALS = ("zeus_monitor", "codecarbon", "codecarbon_task")
INTEGRATING = ("a100", "h100", "rtx4090")
NAMES = {
    "zeus_monitor": "ZeusMonitor",
    "zeus_power_monitor": "Zeus PowerMonitor",
    "codecarbon": "CodeCarbon, start to stop",
    "codecarbon_task": "CodeCarbon, task",
}

INTRODUCTION = """# How near joules come to the truth, in real time

llenergymeasure, Zeus and CodeCarbon measured the same windows of the same load at the same time, on
simulated devices whose true energy is known. Written by `make bench-energy`
(`benchmarks/energy_realtime.py`). It shows whether a known sensor is handled rightly; it says
nothing about a real board's gain.

Errors are per cent of the true energy between a program's own two marks. *Disturbed* windows were
marked over 20 ms late, because the machine was busy; no figure holds them.
"""


def cell_figures(rows: Sequence[Row]) -> list[Row]:
    """Sum up the windows of every cell and method."""
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        key = (row["profile"], row["wave"], row["nominal_s"], row["method"])
        cells[key].append(row)
    return [_cell(key, some) for key, some in cells.items()]


def _cell(key: tuple[Any, ...], rows: Sequence[Row]) -> Row:
    used = [row for row in rows if not row["disturbed"]]
    told = [row for row in used if row["error"] is not None]
    with_interval = [row for row in told if row["half"] is not None]
    profile, wave, nominal_s, method = key
    return {
        "profile": profile,
        "wave": wave,
        "nominal_s": nominal_s,
        "method": method,
        "windows": len(used),
        "disturbed": len(rows) - len(used),
        "no_figure": len(used) - len(told),
        "false_zeros": sum(row["zero"] for row in used),
        "errors_percent": [round(100 * row["error"], 4) for row in told],
        "halves_percent": [round(100 * row["half"], 4) for row in with_interval],
        "covered": sum(abs(row["error"]) <= row["half"] for row in with_interval),
        "flags": sorted({flag for row in used for flag in row["flags"]}),
    }


def _mean_error(cells: Sequence[Row], method: str, nominal_s: float) -> float | None:
    some = [
        float(np.abs(cell["errors_percent"]).mean())
        for cell in cells
        if (cell["method"], cell["nominal_s"]) == (method, nominal_s)
        and cell["profile"] in INTEGRATING
        and cell["errors_percent"]
    ]
    return float(np.mean(some)) if some else None


def _targets(cells: Sequence[Row]) -> Iterator[tuple[str, str, str, bool]]:
    """Give what was to be reached, how much of it, what was reached, and whether that does."""
    ours = _mean_error(cells, OURS, 1.0)
    for rival in RIVALS:
        theirs = _mean_error(cells, rival, 1.0)
        if ours is not None and theirs is not None:
            what = f"mean error of {NAMES[rival]} / of llem, 1 s, counters"
            yield what, f"{TIMES:.0f} times", f"{theirs / ours:.1f} times", theirs / ours >= TIMES
    mine = [cell for cell in cells if cell["method"].startswith(OURS)]
    zeros = sum(cell["false_zeros"] for cell in mine)
    yield "false zeros of llem", "0", str(zeros), not zeros
    missed = [cell for cell in mine if not _is_covered(cell)]
    yield "cells that miss 95 % coverage", "0", f"{len(missed)} of {len(mine)}", not missed


def _is_covered(cell: Row) -> bool:
    count = len(cell["halves_percent"])
    return not count or covered_upper(cell["covered"], count) >= 0.95


def verdict(cells: Sequence[Row]) -> bool:
    """Tell whether every target is met."""
    return all(met for *_, met in _targets(cells))


def report(data: Row) -> str:
    """Write the page."""
    cells = data["cells"]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    about = data["machine"]
    where = f"{about['cpu']}, {about['cores']} cores; {versions}."
    parts = [INTRODUCTION, where, _target_table(cells), _method_table(cells), _cell_table(cells)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _target_table(cells: Sequence[Row]) -> str:
    lines = ["## Targets", "", "| target | limit | reached | met |", "|---|---|---|---|"]
    for what, limit, reached, met in _targets(cells):
        lines.append(f"| {what} | {limit} | {reached} | {'yes' if met else '**no**'} |")
    return "\n".join(lines)


def _method_table(cells: Sequence[Row]) -> str:
    """Pool loads: counters together, and every power-only device by itself."""
    head = "| devices | method | window | windows | mean error | p95 | bias | half-width | covered "
    lines = ["## All loads", "", f"{head}| zeros | no figure | disturbed |", "|---" * 12 + "|"]
    pooled: dict[tuple[str, str, float], list[Row]] = defaultdict(list)
    for cell in cells:
        kind = "counter" if cell["profile"] in INTEGRATING else "power only"
        pooled[kind, cell["method"], cell["nominal_s"]].append(cell)
    for (kind, method, nominal_s), some in sorted(pooled.items()):
        lines.append(f"| {kind} | {NAMES.get(method, method)} | {nominal_s} s | {_line(some)} |")
    return "\n".join(lines)


def _cell_table(cells: Sequence[Row]) -> str:
    head = "| device | load | method | window | windows | mean error | p95 | bias | half-width "
    lines = ["## Every cell", "", f"{head}| covered | zeros | no figure | disturbed |"]
    lines.append("|---" * 13 + "|")
    for cell in cells:
        name = f"{cell['profile']} | {cell['wave']} | {NAMES.get(cell['method'], cell['method'])}"
        lines.append(f"| {name} | {cell['nominal_s']} s | {_line([cell])} |")
    return "\n".join(lines)


def _line(cells: Sequence[Row]) -> str:
    error = np.concatenate([cell["errors_percent"] for cell in cells])
    half = np.concatenate([cell["halves_percent"] for cell in cells])
    figures = ["-", "-", "-"]
    if len(error):
        size = np.abs(error)
        figures = [f"{size.mean():.3f}", f"{np.quantile(size, 0.95):.3f}", f"{error.mean():+.3f}"]
    covered = f"{sum(cell['covered'] for cell in cells) / len(half):.3f}" if len(half) else "-"
    width = f"{np.median(half):.3f}" if len(half) else "-"
    counts = [
        str(sum(cell[field] for cell in cells))
        for field in ("false_zeros", "no_figure", "disturbed")
    ]
    windows = str(sum(cell["windows"] for cell in cells))
    return " | ".join([windows, *figures, width, covered, *counts])
