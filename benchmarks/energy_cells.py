"""The cells of ``energy_accuracy.py``: which device, under which load, for how long."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from energy_protocol import USUAL, Body, Late, Scene, Tail
from energy_random import WORST_FOUND, drawn, scene_of
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.profiles import DeviceProfile

WINDOWS_S = (0.5, 1.0, 5.0)
# Rise times of arXiv 2312.02741 (V100 40 to 86 ms, H100 75 to 120 ms), from 10 to 90 % of a step:
# 2.2 time constants of a first-order response. Here their middle.
V100_RISE_S, H100_RISE_S = 0.063 / 2.2, 0.0975 / 2.2
TAILS = {
    "exp 33 ms 150 W": Tail(150.0, 0.1),
    "line 100 ms 150 W": Tail(150.0, 0.1, "line"),
    "box 40 ms 85 W": Tail(85.0, 0.04, "box"),
    "line 30 ms 200 W": Tail(200.0, 0.03, "line"),
    "box 60 ms 120 W, 20 ms later": Tail(120.0, 0.06, "box", 0.02),
}
MORE_PROFILES = {
    "v100 rising": profiles.vary(profiles.V100, rise_s=V100_RISE_S),
    "h100 rising": profiles.vary(profiles.H100, rise_s=H100_RISE_S),
    "tick 50": profiles.vary(profiles.A100, counter_period_s=0.05, power_period_s=0.05),
    "tick 67": profiles.vary(profiles.A10, counter_period_s=0.067, power_period_s=0.067),
    "tick 83 rise 30": profiles.vary(
        profiles.H100, counter_period_s=0.083, power_period_s=0.083, rise_s=0.03, limit_w=560.0
    ),
    "tick 120 lag 30": profiles.vary(
        profiles.GH200, counter_period_s=0.12, power_period_s=0.12, lag_s=0.03
    ),
    "power 100/100": profiles.vary(profiles.RTX_3090, counter_supported=False),
    "power 110/100": profiles.vary(profiles.RTX_4090, counter_supported=False),
    "power 20/10": profiles.PASCAL_P100,
    "half time": profiles.vary(profiles.A100, part_time=0.5),
}
BEATS = (0.9, 0.94, 0.97, 0.99, 1.0, 1.01, 1.03, 1.06, 1.1)
FRACTIONS = (0.25, 1 / 3, 0.5, 2.0, 3.0)


@dataclass(frozen=True, eq=False)
class Cell:
    """One device, load and window.

    Attributes:
        group: What the cell is there to show.
        profile: Name of the device's profile.
        wave: Name of the load.
        nominal_s: Window, before it is lengthened by a random -T/2 to T/2.
        changes: Numbers of the profile that differ.
        body: What the device adds to its load.
        met: What it added in calibration; by default the same.
        calibrated: Whether a fitted calibration is used.
        late: Late turns of the sampler.
        devices: How many alike work together.
        foreign: Others' load beside the window, from and to (from its start where negative, else
            from its end), and watts.
        genome: A drawn scene, in place of profile and wave.
    """

    group: str
    profile: str
    wave: str
    nominal_s: float
    changes: Mapping[str, Any] = field(default_factory=dict)
    body: Body = Body()  # noqa: RUF009 - a tuple of numbers
    met: Body | None = None
    calibrated: bool = True
    late: Late = USUAL
    devices: int = 1
    foreign: tuple[float, float, float] | None = None
    genome: tuple[float, ...] = ()

    @property
    def seed(self) -> int:
        """A number that every cell has for itself."""
        # Not hash(): that differs from run to run.
        return zlib.crc32(repr(sorted(asdict(self).items())).encode())

    @property
    def name(self) -> str:
        """What it is called in a table."""
        if self.genome:
            return f"{self.profile} | {scene_of(self.genome, np.random.default_rng(0)).words}"
        added = [f"{key} {value:g}" for key, value in self.changes.items()]
        if self.body.ramp_s:
            kept = " kept awake too" if self.body.smoothed else ""
            added.append(f"ramp {1e3 * self.body.ramp_s:.0f} ms{kept}")
        added += [name for name, tail in TAILS.items() if tail == self.body.tail]
        added += [f"others {self.foreign}"] if self.foreign else []
        added += [f"{self.late.share:.0%} late"] if self.late is not USUAL else []
        return f"{', '.join((self.profile, *added))} | {self.wave}"

    def scene(self, rng: np.random.Generator) -> Scene:
        """Draw one window of it."""
        if self.genome:
            return scene_of(self.genome, rng).scene
        profile = self.device
        period_s = profile.counter_period_s if profile.counter_supported else profile.power_period_s
        length_s = self.nominal_s + float(rng.uniform(-0.5, 0.5)) * period_s
        load, steps_s = make_load(self.wave, length_s, float(rng.random()))
        if self.foreign is not None:
            from_s, to_s, watts = self.foreign
            origin_s = 0.0 if from_s < 0 else length_s
            load = load + loads.step(origin_s + from_s, origin_s + to_s, watts, 0.0)
        return Scene(profile, load, length_s, steps_s, self.body, late=self.late)

    @property
    def device(self) -> DeviceProfile:
        """The profile with its changes; ticks early or late by up to 3 ms where not said."""
        known = {**profiles.PROFILES, **MORE_PROFILES}[self.profile]
        return profiles.vary(known, **{"tick_jitter_s": 0.003, **self.changes})

    @property
    def learnt_on(self) -> tuple[DeviceProfile, Body, Late]:
        """What a calibration is made of."""
        if self.genome:
            told = scene_of(self.genome, np.random.default_rng(0))
            return told.scene.profile, told.met, told.scene.late
        return self.device, self.body if self.met is None else self.met, self.late


def square_at(length_s: float, period_s: float, phase: float) -> Load:
    """Alternate 400 and 150 W inside, starting anywhere in the period; 75 W outside."""
    knots = np.arange(-phase * period_s, length_s, period_s / 2)
    levels = np.where(np.arange(len(knots)) % 2 == 0, 400.0, 150.0)
    inside = int(np.searchsorted(knots, 0.0, side="right")) - 1
    return loads.steps(
        np.concatenate(([-10.0, 0.0], knots[inside + 1 :], [length_s])),
        np.concatenate(([75.0], levels[inside:], [75.0])),
    )


def make_load(wave: str, length_s: float, phase: float) -> tuple[Load, np.ndarray]:
    """Give a load for a 400 W device with a window from 0, and when its steps begin."""
    if wave.startswith("square"):
        period_s = float(wave.removeprefix("square")) / 1000
        load = square_at(length_s, period_s, phase)
        return load, np.arange(-phase * period_s, length_s, period_s)
    made = {
        "step": lambda: loads.step(0.0, length_s),
        "ramp": lambda: loads.ramp(0.0, length_s),
        "train": lambda: loads.request_train(0.0, length_s),
        "loud_flat": lambda: loads.step(0.0, length_s, outside_w=395.0),
        "loud_train": lambda: loads.request_train(0.0, length_s, outside_w=380.0),
    }[wave]()
    starts = made.start_s[1:-1] if "train" in wave else np.empty(0)
    return made, starts[::2]


@functools.cache
def cells() -> tuple[Cell, ...]:
    """List every cell, but for those that are drawn."""
    parts = (_quiet, _sensors, _ramps_and_tails, _loud_and_late, _power, _beating, _others)
    return tuple(cell for part in parts for cell in part())


def _quiet() -> Iterator[Cell]:
    devices = ("a100", "h100", "v100", "rtx4090")
    for at in product(devices, ("step", "train", "square23"), WINDOWS_S):
        yield Cell("quiet", *at)
    for at in product(("gh200", "tick 50", "tick 67"), ("ramp",), WINDOWS_S):
        yield Cell("quiet", *at)


def _sensors() -> Iterator[Cell]:
    for at in product(("a100", "v100"), ("step", "train"), WINDOWS_S):
        yield Cell("lag 50 ms", *at, {"lag_s": 0.05})
        yield Cell("rise 40 ms", *at, {"rise_s": 0.04})
        yield Cell("rise 80 ms", *at, {"rise_s": 0.08})
    devices = ("v100 rising", "h100 rising", "tick 83 rise 30", "tick 120 lag 30")
    for at in product(devices, ("train",), WINDOWS_S):
        yield Cell("sensors as published", *at)


def _ramps_and_tails() -> Iterator[Cell]:
    for at in product(("a100", "v100"), ("step",), WINDOWS_S):
        for ramp_s in (0.02, 0.04, 0.06):
            yield Cell("ramps", *at, body=Body(ramp_s))
        for name in ("exp 33 ms 150 W", "line 100 ms 150 W"):
            yield Cell("ramps and tails met", *at, body=Body(0.03, TAILS[name]))
        for tail in (None, TAILS["exp 33 ms 150 W"], TAILS["line 100 ms 150 W"]):
            body = Body(0.03, tail, smoothed=True)
            yield Cell("ramps of a device kept awake", *at, body=body)
    for tail in TAILS.values():
        for at in product(("a100", "v100"), ("step",), WINDOWS_S):
            yield Cell("tails met", *at, body=Body(tail=tail))
            yield Cell("tails never met", *at, body=Body(tail=tail), met=Body())
    for at in product(("rtx4090",), ("square10",), WINDOWS_S):
        yield Cell("tails never met", *at, body=Body(tail=TAILS["exp 33 ms 150 W"]), met=Body())


def _loud_and_late() -> Iterator[Cell]:
    for at in product(("a100", "v100"), ("loud_flat", "loud_train"), WINDOWS_S):
        yield Cell("loud edges", *at)
        yield Cell("loud edges", *at, {"rise_s": 0.04})
    for at in product(("a100", "v100"), ("step", "train"), WINDOWS_S):
        yield Cell("late polls 10 %", *at, late=Late(0.1))


def _power() -> Iterator[Cell]:
    for at in product(("power 100/100", "power 110/100", "power 20/10"), ("step", "train"), (1.0,)):
        yield Cell("power only", *at)
        yield Cell("power only", *at, late=Late(0.1))
        yield Cell("power only, uncalibrated", *at, calibrated=False)
    for at in product(("power 100/100", "power 20/10"), ("step",), (0.5, 5.0)):
        yield Cell("power only", *at)
    for at in product(("a10",), ("step", "train"), (1.0, 5.0)):
        yield Cell("uncalibrated", *at, calibrated=False)
    for at in product(("a100", "v100"), ("step", "train"), WINDOWS_S):
        yield Cell("uncalibrated", *at, calibrated=False)


def _beating() -> Iterator[Cell]:
    for share in (*BEATS, *FRACTIONS):
        wave = f"square{100 * share:.4g}"
        for device in ("a100", "a100-part-time", "half time") if share in BEATS else ("half time",):
            yield Cell("beating loads", device, wave, 1.0)
    for share in (0.97, 1.0, 1.03):
        yield Cell("beating loads", "power 100/100", f"square{100 * share:.4g}", 1.0)
    for share in (0.97, 1.03, 0.5):
        yield Cell("beating loads", "a100-part-time", f"square{100 * share:.4g}", 5.0)
    for at in product(("a100-part-time", "half time"), ("step", "train", "square23"), (1.0, 5.0)):
        yield Cell("part time", *at)


def _others() -> Iterator[Cell]:
    for at in product(("a100", "h100"), ("step", "train"), (1.0, 5.0)):
        yield Cell("four devices", *at, devices=4)
    for device in ("a100", "v100"):
        yield Cell("busy before", device, "step", 1.0, foreign=(-0.08, 0.0, 120.0))
        yield Cell("busy before", device, "step", 1.0, foreign=(-0.04, -0.01, 200.0))
        yield Cell("busy before", device, "step", 1.0, foreign=(-0.3, -0.05, 100.0))
        yield Cell("busy after", device, "step", 1.0, foreign=(0.2, 2.0, 120.0))
        yield Cell("busy after", device, "step", 1.0, foreign=(0.0, 0.05, 150.0))
    for number, genome in enumerate(WORST_FOUND):
        yield Cell("found by the search", f"find {number + 1}", "drawn", 1.0, genome=genome)


def drawn_cells(count: int, seed: int) -> list[Cell]:
    """Draw scenes that nobody chose."""
    usual = Cell("drawn", "", "drawn", 1.0)
    return [
        replace(usual, profile=f"{seed}/{number}", genome=genome)
        for number, genome in enumerate(drawn(count, seed))
    ]
