"""Draw what ``energy_accuracy.py`` and ``energy_realtime.py`` found: error against window length.

``python benchmarks/energy_plot.py [FOLDER]`` needs matplotlib and the two JSON files in the folder.
Lines are mean absolute errors; a band reaches up to the 95th percentile: 95 % of windows lie below
its upper edge.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
QUIET_COUNTERS = ("a100", "h100", "rtx4090")
DATE_FREE: Mapping[str, None] = {"Date": None}  # the same figures give the same file


class Style(NamedTuple):
    """How a method is drawn; colours of Okabe and Ito, which colour-blind readers tell apart."""

    label: str
    colour: str
    marker: str


STYLES = {
    "llem": Style("llenergymeasure, calibrated", "#0072B2", "o"),
    "llem, uncalibrated": Style("llenergymeasure, uncalibrated", "#56B4E9", "s"),
    "zeus_monitor": Style("ZeusMonitor", "#D55E00", "^"),
    "zeus_power_monitor": Style("Zeus PowerMonitor", "#CC79A7", "v"),
    "codecarbon": Style("CodeCarbon, start to stop", "#009E73", "D"),
    "codecarbon_task": Style("CodeCarbon, task", "#E69F00", "P"),
    "plain": Style("difference of two counter reads", "#D55E00", "^"),
    "linear": Style("linear interpolation", "#000000", "x"),
}


class Point(NamedTuple):
    """Errors of a method at one nominal window, per cent."""

    window_s: float
    mean: float
    p95: float


Curves = dict[str, list[Point]]


def virtual_curves(rows: Iterable[dict[str, Any]]) -> Curves:
    """Average the cells with quiet edges and a counter that counts every moment."""
    found: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row["group"] == "quiet":
            for method, prefix in {"llem": "", "plain": "plain_", "linear": "linear_"}.items():
                pair = (row[f"{prefix}mean_abs_percent"], row[f"{prefix}p95_percent"])
                found[method, row["nominal_s"]].append(pair)
    return _curves(
        (method, Point(at, sum(p[0] for p in pairs) / len(pairs), max(p[1] for p in pairs)))
        for (method, at), pairs in found.items()
    )


def real_curves(cells: Iterable[dict[str, Any]]) -> Curves:
    """Pool the windows of devices with a counter."""
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for cell in cells:
        if cell["profile"] in QUIET_COUNTERS:
            sizes = [abs(error) for error in cell["errors_percent"]]
            found[cell["method"], cell["nominal_s"]] += sizes
    return _curves(
        (method, Point(at, sum(sizes) / len(sizes), _p95(sizes)))
        for (method, at), sizes in found.items()
        if sizes
    )


def _p95(sizes: list[float]) -> float:
    return sorted(sizes)[min(len(sizes) - 1, int(0.95 * len(sizes)))]


def _curves(points: Iterable[tuple[str, Point]]) -> Curves:
    made: Curves = defaultdict(list)
    for method, point in points:
        made[method].append(point)
    return {method: sorted(made[method]) for method in STYLES if method in made}


def draw(panels: Mapping[str, Curves], path: Path) -> None:
    """Draw a panel for each set of curves, side by side."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "llenergymeasure"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.4 * len(panels), 4.6), sharey=True, squeeze=False
    )
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        _draw_panel(axis, title, curves)
    axes[0][0].set_ylabel("error of the energy, % of the truth")
    figure.tight_layout()
    figure.savefig(path, metadata=DATE_FREE)


def _draw_panel(axis: Any, title: str, curves: Curves) -> None:
    for method, points in curves.items():
        style = STYLES[method]
        at, mean, p95 = zip(*points, strict=True)
        axis.plot(at, mean, color=style.colour, marker=style.marker, label=style.label)
        axis.fill_between(at, mean, p95, color=style.colour, alpha=0.15, linewidth=0)
    axis.set(xscale="log", yscale="log", title=title, xlabel="nominal window, s")
    windows = sorted({point.window_s for points in curves.values() for point in points})
    axis.set_xticks(windows, [f"{window:g}" for window in windows], minor=False)
    axis.set_xticks([], minor=True)
    axis.grid(visible=True, which="both", linewidth=0.3)
    axis.legend(fontsize=8)


def main(folder: Path) -> None:
    """Draw what there is in a folder."""
    virtual = json.loads((folder / "energy_accuracy.json").read_text())
    real = json.loads((folder / "energy_realtime.json").read_text())
    panels = {
        "virtual clock, quiet edges; band to the worst cell's p95": virtual_curves(virtual),
        "real time, devices with a counter; band to p95": real_curves(real["cells"]),
    }
    draw(panels, folder / "energy_accuracy.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
