"""How near joules come to an external meter, on recordings of real boards.

Run from the repository root: ``python benchmarks/energy_recorded.py FOLDER...``. A folder holds
``meter.parquet`` (``t_s``, ``power_w``: all that the board drew), ``readings.parquet`` (``t_s`` on
the same clock, ``power_instant_w``, ``power_draw_w``, ``power_average_w`` as far as the board has
them) and ``marks.json`` (``marks_s`` in pairs: when the host began or ended something). Such
recordings are published with arXiv 2312.02741; they are not part of this repository.

A sensor has a gain and an offset of its own. The meter is put on its scale by a straight line
through the plateaus of the board's *step* recording (the folder whose name begins alike and ends in
``-step``); what is left is the error of the method. Boards are not calibrated here: llem knows no
more than it would of a board that it meets for the first time.

Beside it, on the very same readings, what others make of them (:data:`PEERS`).
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyarrow import parquet

import machine
from energy_report import NOT_HARM
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    Knowledge,
    PowerReadings,
    estimate_energy,
)
from llenergymeasure.core.energy.sampled_source import GPUSource
from llenergymeasure.domain.samples import Window

Floats = NDArray[np.float64]

WINDOWS_S = (0.5, 1.0, 2.0, 5.0)
GUARD_S = {"instant": 0.5, "average": 2.0, "draw": 2.0}  # as the product's NVML source has them
LEAST_GUARD_S = 0.4  # where a recording begins later than that before its load
ORIGIN_NS = 10**12
SETTLED_S, LAST_S = 1.5, 2.0  # a plateau of load begins so late; one of rest is the last seconds


@dataclass(frozen=True, eq=False)
class Series:
    """Power over time.

    Attributes:
        t_s: When, ascending, shape (n,).
        power_w: Watts, shape (n,).
    """

    t_s: Floats
    power_w: Floats

    @property
    def known(self) -> Series:
        """What is a number."""
        kept = np.isfinite(self.power_w)
        return Series(self.t_s[kept], self.power_w[kept])

    def between(self, from_s: float, to_s: float) -> Series:
        """Give what lies between two times."""
        kept = (self.t_s >= from_s) & (self.t_s <= to_s)
        return Series(self.t_s[kept], self.power_w[kept])

    def at(self, when_s: float) -> float:
        """Give what a reader of that time sees: the last value."""
        return float(self.power_w[max(int(np.searchsorted(self.t_s, when_s, side="right")) - 1, 0)])

    def trapezoid_j(self, from_s: float, to_s: float) -> float:
        """Integrate, with both ends interpolated."""
        inner = self.between(from_s, to_s)
        t_s = np.concatenate(([from_s], inner.t_s, [to_s]))
        return float(np.trapezoid(np.interp(t_s, self.t_s, self.power_w), t_s))

    @property
    def changes(self) -> Series:
        """The readings that show another value than the one before."""
        new = np.flatnonzero(np.diff(self.power_w)) + 1
        return Series(self.t_s[new], self.power_w[new])


class Scale(NamedTuple):
    """What a sensor makes of a meter's watts."""

    gain: float
    offset_w: float


@dataclass(frozen=True, eq=False)
class Recording:
    """One board beside a meter.

    Attributes:
        name: Name of its folder.
        meter: What the meter said.
        sensors: What the board said, by ``instant``, ``average`` and ``draw``.
        steps_s: When the load began, changed and ended, shape (n,).
    """

    name: str
    meter: Series
    sensors: dict[str, Series]
    steps_s: Floats

    @property
    def board(self) -> str:
        """The folder's name up to its load."""
        return self.name.rpartition("-")[0]

    @property
    def read(self) -> tuple[str, ...]:
        """The sensors to read: ``power.draw`` only where nothing else says what it is."""
        named = tuple(name for name in ("instant", "average") if name in self.sensors)
        return named or ("draw",)

    @property
    def load_s(self) -> tuple[float, float]:
        """When load began and ended."""
        return float(self.steps_s[0]), float(self.steps_s[-1])


def load_recording(folder: Path) -> Recording:
    """Read a folder."""
    meter = parquet.read_table(folder / "meter.parquet")
    readings = parquet.read_table(folder / "readings.parquet")
    marks_s = np.unique(json.loads((folder / "marks.json").read_text())["marks_s"])
    t_s = readings["t_s"].to_numpy()
    columns = {name: f"power_{name}_w" for name in GUARD_S}
    sensors = {
        name: Series(t_s, readings[column].to_numpy().astype(np.float64)).known
        for name, column in columns.items()
        if column in readings.column_names
    }
    steps_s = marks_s[:-1] if folder.name.endswith("-step") else marks_s  # the last ends the rest
    return Recording(
        folder.name,
        Series(meter["t_s"].to_numpy(), meter["power_w"].to_numpy().astype(np.float64)),
        sensors,
        steps_s,
    )


def scale(step: Recording, sensor: str) -> Scale:
    """Lay a straight line through a plateau of load and one of rest."""
    began_s, ended_s = step.load_s
    last_s = float(step.meter.t_s[-1])
    plateaus = ((began_s + SETTLED_S, ended_s - 0.1), (last_s - LAST_S, last_s))

    def means(series: Series) -> Floats:
        return np.array([series.between(*plateau).power_w.mean() for plateau in plateaus])

    gain, offset_w = np.polyfit(means(step.meter), means(step.sensors[sensor]), 1).tolist()
    return Scale(gain, offset_w)


class Trial(NamedTuple):
    """One window: figures relative to the meter on the sensor's scale.

    Attributes:
        t0_s: Where in the recording.
        place: See :func:`place`.
        error: Ours minus the meter, or NaN without a figure.
        half: Half-width of our interval.
        flags: What was flagged.
        others: Error of every other method.
    """

    t0_s: float
    place: str
    error: float
    half: float
    flags: tuple[str, ...]
    others: dict[str, float]

    @property
    def missed(self) -> bool:
        """Whether the meter lies outside the interval."""
        return not abs(self.error) <= self.half

    @property
    def silent(self) -> bool:
        """Whether it does and no finding warns of it."""
        return self.missed and not set(self.flags) - NOT_HARM


def run_trial(one: Recording, sensor: str, on: Scale, window_s: tuple[float, float]) -> Trial:
    """Measure one window."""
    t0_s, t1_s = window_s
    true_j = on.gain * one.meter.trapezoid_j(t0_s, t1_s) + on.offset_w * (t1_s - t0_s)
    began_s = t0_s - GUARD_S[sensor] - GPUSource.settle_s  # when a source opens its window
    seen = one.sensors[sensor].between(began_s, t1_s + GUARD_S[sensor])
    read_ns = nanoseconds(seen.t_s, t0_s)
    power = PowerReadings(read_ns, read_ns, seen.power_w)
    instant = sensor == "instant"
    readings = DeviceReadings(power=power) if instant else DeviceReadings(average_power=power)
    # A step is work with the pause behind it, as a token or a batch is.
    known = Knowledge(
        step_times_ns=nanoseconds(one.steps_s[::2], t0_s),
        rest_from_ns=int(nanoseconds(t0_s - GUARD_S[sensor], t0_s)),
    )
    window = Window(ORIGIN_NS, int(nanoseconds(t1_s, t0_s)))
    found = estimate_energy(readings, window, known)
    error = np.nan if found.energy_j is None else found.energy_j / true_j - 1
    half = np.nan if found.interval95_j is None else found.interval95_j / true_j
    others = {
        name: peer.joules(one.sensors[peer.reads or sensor], t0_s, t1_s) / true_j - 1
        for name, peer in PEERS.items()
        if peer.reads in {None, *one.sensors}
    }
    where = place(one, window_s, GUARD_S[sensor])
    return Trial(t0_s, where, error, half, found.flags, others)


def nanoseconds(at_s: Any, origin_s: float) -> Any:
    """Put seconds of a recording on a monotonic clock."""
    return ((np.asarray(at_s) - origin_s) * 1e9).astype(np.int64) + ORIGIN_NS


def place(one: Recording, window_s: tuple[float, float], guard_s: float) -> str:
    """Say what a window lies over.

    Returns:
        ``edges`` where load begins or ends in it, ``near`` where it does within the guard before
        or after, which is another's load to it; else ``load`` or ``rest``.
    """
    t0_s, t1_s = window_s
    edges_s = np.array(one.load_s)
    if ((edges_s > t0_s) & (edges_s < t1_s)).any():
        return "edges"
    if ((edges_s > t0_s - guard_s) & (edges_s < t1_s + guard_s)).any():
        return "near"
    return "load" if edges_s[0] < t0_s < edges_s[1] else "rest"


def plain_j(seen: Series, t0_s: float, t1_s: float) -> float:
    """Difference of a counter that adds up updates."""
    ticks = with_repeats(seen.changes)
    counter_j = np.concatenate(([0.0], np.cumsum(ticks.power_w[1:] * np.diff(ticks.t_s))))
    at = np.searchsorted(ticks.t_s, [t0_s, t1_s], side="right") - 1
    return float(np.diff(counter_j[np.maximum(at, 0)])[0])


def with_repeats(changes: Series) -> Series:
    """Add the updates to the same value, which do not show: they leave gaps of several ticks."""
    gaps_s = np.diff(changes.t_s)
    usual_s = float(np.median(gaps_s))
    count = np.maximum(np.rint(gaps_s / usual_s).astype(np.int64), 1)
    times_s = [
        start_s + usual_s * np.arange(n) for start_s, n in zip(changes.t_s[:-1], count, strict=True)
    ]
    power_w = np.append(np.repeat(changes.power_w[:-1], count), changes.power_w[-1])
    return Series(np.append(np.concatenate(times_s), changes.t_s[-1]), power_w)


def zeus_j(seen: Series, t0_s: float, t1_s: float) -> float:
    """What Zeus makes of power."""
    kept = seen.changes.between(t0_s, t1_s)
    if len(kept.t_s) < 2:
        return seen.at(t0_s) * (t1_s - t0_s)
    return float(np.trapezoid(kept.power_w, kept.t_s))


def codecarbon_j(seen: Series, t0_s: float, t1_s: float) -> float:
    """What CodeCarbon makes of power."""
    looks_s = np.arange(t0_s + 1.0, t1_s, 1.0).tolist() or [t1_s]
    return float(np.mean([seen.at(s) for s in looks_s])) * (t1_s - t0_s)


class Peer(NamedTuple):
    """How another program gets joules from readings.

    Attributes:
        joules: From a series, a start and an end.
        reads: What it reads, or ``None`` for the sensor that we read.
        how: In words.
    """

    joules: Callable[[Series, float, float], float]
    reads: str | None
    how: str


PEERS = {
    "plain": Peer(
        plain_j,
        None,
        "a counter that adds up each update over the time since the one before, read at both "
        "ends: what ZeusMonitor and CodeCarbon take where there is a counter",
    ),
    "draw": Peer(Series.trapezoid_j, "draw", "the trapezoid over nvidia-smi's `power.draw`"),
    "zeus": Peer(
        zeus_j,
        None,
        "Zeus 0.16.0 without a counter (`zeus.monitor.power.PowerMonitor.get_energy`): the "
        "trapezoid over the samples between both times, where a sample is kept if it differs from "
        "the one before; with fewer than two of them the power at the beginning * time "
        "(`zeus.monitor.energy.ZeusMonitor.end_window`)",
    ),
    "codecarbon": Peer(
        codecarbon_j,
        "draw",
        "CodeCarbon 3.3.2 without a counter (`codecarbon.core.gpu_device.GPUDevice`): the mean of "
        "one reading of `power.draw` a second, or of one at the end where there was none, * time",
    ),
}


def places(one: Recording, sensor: str, length_s: float, count: int, seed: int) -> list[float]:
    """Draw where windows of one length begin, anywhere in the recording."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{one.name} {sensor} {length_s}".encode())])
    t_s = one.sensors[sensor].t_s
    first_s = max(float(one.meter.t_s[0]), float(t_s[0]) + LEAST_GUARD_S)
    last_s = min(float(one.meter.t_s[-1]), float(t_s[-1]) - GUARD_S[sensor]) - length_s
    starts_s: list[float] = rng.uniform(first_s, last_s, count).tolist()
    return starts_s


def figures(found: Sequence[Trial]) -> dict[str, Any]:
    """Bring windows together."""
    error, half = np.array([t.error for t in found]), np.array([t.half for t in found])
    told = np.isfinite(error)
    missed = [t for t in found if t.missed]
    flags = sorted({flag for t in found for flag in t.flags})
    others = {name: np.array([t.others[name] for t in found]) for name in found[0].others}
    return {
        "windows": len(found),
        "p95_percent": _percent(np.quantile(np.abs(error[told]), 0.95)) if told.any() else None,
        "bias_percent": _percent(error[told].mean()) if told.any() else None,
        "coverage": 1 - len(missed) / len(found),
        "median_half_percent": _percent(np.median(half[told])) if told.any() else None,
        "silent_share": float(np.mean([t.silent for t in found])),
        "missed_without_aliasing_risk": float(
            np.mean([t.missed and "aliasing_risk" not in t.flags for t in found])
        ),
        "no_figure_share": float(1 - told.mean()),
        "flag_shares": {f: float(np.mean([f in t.flags for t in found])) for f in flags},
        "others_p95_percent": {
            name: _percent(np.quantile(np.abs(gone), 0.95)) for name, gone in others.items()
        },
        "others_bias_percent": {name: _percent(gone.mean()) for name, gone in others.items()},
        "worst_t0_s": round(max(found, key=lambda t: abs(np.nan_to_num(t.error))).t0_s, 3),
    }


def _told(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}"


def _percent(share: float) -> float:
    return round(100 * float(share), 3)


def rows(recordings: Sequence[Recording], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Give a row for each recording, sensor, length and place; ``all`` are the places together."""
    steps = {one.board: one for one in recordings if one.name.endswith("-step")}
    for one in recordings:
        if one.board not in steps:
            raise SystemExit(f"{one.name}: no step recording of this board ({one.board}-step)")
        for sensor in one.read:
            on = scale(steps[one.board], sensor)
            for length_s in WINDOWS_S:
                starts_s = places(one, sensor, length_s, count, seed)
                found = [run_trial(one, sensor, on, (s, s + length_s)) for s in starts_s]
                for where in ("all", "load", "rest", "edges", "near"):
                    some = [t for t in found if where in ("all", t.place)]
                    if some:
                        head = {"recording": one.name, "sensor": sensor, "window_s": length_s}
                        yield {**head, "place": where, **on._asdict(), **figures(some)}


def report(found: Sequence[dict[str, Any]]) -> str:
    """Write the page."""
    methods = "\n".join(f"- *{name}*: {peer.how}." for name, peer in PEERS.items())
    return "\n".join([INTRODUCTION.format(methods=methods), _summary(found), _table(found)])


def _summary(found: Sequence[dict[str, Any]]) -> str:
    """Write the table that README and methodology show."""
    head = ("windows of 1 s", "n", "95 % of errors within", "half-width, median", "inside")
    columns = (*head, *SHOWN.values())
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in found:
        if row["window_s"] == 1 and row["place"] in PLACES and row["windows"] >= LEAST_WINDOWS:
            cells = (
                f"{row['recording']}, {SENSORS[row['sensor']]}: {PLACES[row['place']]}",
                f"{row['windows']}",
                *(_short(row[name]) for name in ("p95_percent", "median_half_percent")),
                f"{100 * row['coverage']:.0f} %",
                *(_short(row["others_p95_percent"].get(name)) for name in SHOWN),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "## All lengths and places", ""])


def _short(percent: float | None) -> str:
    if percent is None:
        return "-"
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def _table(found: Sequence[dict[str, Any]]) -> str:
    names = ("recording", "sensor", "window", "over", "n", "p95 %", "bias %", "half-width %")
    peers = [f"{name} p95 %" for name in PEERS]
    columns = (*names, "coverage", "silent %", "missed, no `aliasing_risk` %", *peers)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in found:
        cells = (
            row["recording"],
            row["sensor"],
            f"{row['window_s']:g} s",
            row["place"],
            row["windows"],
            row["p95_percent"],
            row["bias_percent"],
            row["median_half_percent"],
            f"{row['coverage']:.3f}",
            f"{100 * row['silent_share']:.1f}",
            f"{100 * row['missed_without_aliasing_risk']:.1f}",
            *(_told(row["others_p95_percent"].get(name)) for name in PEERS),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


PLACES = {"load": "inside the load", "edges": "load begins or ends inside"}
SENSORS = {
    "instant": "power of the moment",
    "average": "means over a second",
    "draw": "`power.draw`",
}
SHOWN = {
    "plain": "plain counter",
    "draw": "`power.draw`",
    "zeus": "Zeus",
    "codecarbon": "CodeCarbon",
}
LEAST_WINDOWS = 40  # for a line of the summary

INTRODUCTION = """# How near joules come to an external meter

Recordings of real boards beside a meter in their power cables, replayed by
`make bench-recorded FOLDERS="..."`; source: the artifact of Yang, Adamek and Armour, *Part-time
Power Measurements* (arXiv 2312.02741). Errors are per cent of the meter, put on the sensor's scale
by a straight line through the plateaus of the board's step recording. Places are random: over
steady *load*, over *rest*, over *edges* of load, and *near* them, where load begins or ends within
the guard before or after the window and is another's to it; *all* is all of them together. Boards
are uncalibrated, and none of these recordings has an energy counter. The clocks of meter and
readings were aligned by the authors to about 50 ms, which at an edge is an error of the recording:
in a window of 1 s, 5 % of the step.

On the same readings:

{methods}

*Silent*: the meter lies outside the interval and no finding warns of it.

## Windows of 1 s
"""


def main() -> None:
    """Replay, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=400, help="windows of each length")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--output", type=Path, default=machine.RESULTS)
    given = parser.parse_args()
    recordings = [load_recording(folder) for folder in given.folders]
    found = list(rows(recordings, given.count, given.seed))
    machine.save(given.output / "energy_recorded.json", {"seed": given.seed, "rows": found})
    text = report(found)
    (given.output / "energy_recorded.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
