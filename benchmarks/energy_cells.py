"""The cells of ``energy_accuracy.py``: which device, under which load, for how long."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.profiles import DeviceProfile

WINDOWS_S = (0.3, 0.5, 1.0, 2.0, 5.0, 20.0)
QUIET_WAVES = ("step", "train", "square10", "square23", "square50", "square100", "ramp")
LOUD_WAVES = ("loud_flat", "loud_train")
COUNTERS = ("a100", "h100", "v100", "rtx4090", "gh200", "a10")
FAST_TAIL = (150.0, 0.1)
OTHER_PROFILES = {
    "tick50": profiles.vary(profiles.A100, counter_period_s=0.05, power_period_s=0.05),
    "tick83-rise30": profiles.vary(
        profiles.H100, counter_period_s=0.083, power_period_s=0.083, rise_s=0.03, limit_w=560.0
    ),
    "tick120-lag30": profiles.vary(
        profiles.GH200, counter_period_s=0.12, power_period_s=0.12, lag_s=0.03
    ),
}


@dataclass(frozen=True, eq=False)
class Cell:
    """One device, load and window.

    Attributes:
        group: What the cell is there to show.
        profile: Name of the device's profile.
        wave: Name of the load.
        nominal_s: Window, before it is lengthened by a random -T/2 to T/2.
        changes: Numbers of the profile that differ.
        tail_w_s: Watts and seconds of a tail after the window, or none.
        tail_known: Whether the calibration was made with that tail.
        calibrated: Whether a fitted calibration is used.
        sensor: What is read: the counter, instantaneous power, means over a second, or both.
        noise: Standard deviation of the load's factor.
    """

    group: str
    profile: str
    wave: str
    nominal_s: float
    changes: dict[str, Any] = field(default_factory=dict)
    tail_w_s: tuple[float, float] | None = None
    tail_known: bool = True
    calibrated: bool = True
    sensor: str = "counter"
    noise: float = 0.07

    @property
    def device(self) -> DeviceProfile:
        """The profile with its changes; ticks early or late by up to 3 ms where not said."""
        known = {**profiles.PROFILES, **OTHER_PROFILES, **HELD_OUT_PROFILES}[self.profile]
        return profiles.vary(known, **{"tick_jitter_s": 0.003, **self.changes})

    @property
    def seed(self) -> int:
        """A number that every cell has for itself."""
        # Not hash(): that differs from run to run.
        return zlib.crc32(repr(sorted(asdict(self).items())).encode())


HELD_OUT_PROFILES = {
    "tick67": profiles.vary(profiles.A10, counter_period_s=0.067, power_period_s=0.067),
    "tick100-rise20": profiles.vary(profiles.H100, rise_s=0.02, lag_s=0.015, limit_w=650.0),
    "tick25": profiles.vary(profiles.V100, counter_period_s=0.025, power_period_s=0.025),
}


def square_at(length_s: float, period_s: float, phase: float) -> Load:
    """Alternate 400 and 150 W inside, starting anywhere in the period; 75 W outside."""
    knots = np.arange(-phase * period_s, length_s, period_s / 2)
    levels = np.where(np.arange(len(knots)) % 2 == 0, 400.0, 150.0)
    inside = int(np.searchsorted(knots, 0.0, side="right")) - 1
    return loads.steps(
        np.concatenate(([-10.0, 0.0], knots[inside + 1 :], [length_s])),
        np.concatenate(([75.0], levels[inside:], [75.0])),
    )


def other_train(length_s: float, request_s: float, prefill_s: float) -> Load:
    """Requests of other lengths and powers than usual."""
    return loads.request_train(
        0.0, length_s, request_s=request_s, prefill_s=prefill_s, prefill_w=520.0, decode_w=290.0
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
        "brief_train": lambda: other_train(length_s, 0.37, 0.13),
        "other_train": lambda: other_train(length_s, 0.59, 0.05),
    }[wave]()
    starts = made.start_s[1:-1] if "train" in wave else np.empty(0)
    return made, starts[::2]


@functools.cache
def cells() -> tuple[Cell, ...]:
    """List every cell."""
    return (
        *_main(),
        *_variants(),
        *_unseen_tails(),
        *_part_time(),
        *_power(),
        *_others(),
        *_held_out(),
    )


def _main() -> Iterator[Cell]:
    for profile, wave, nominal_s in product(COUNTERS, QUIET_WAVES + LOUD_WAVES, WINDOWS_S):
        yield Cell("loud" if wave in LOUD_WAVES else "quiet", profile, wave, nominal_s)


def _variants() -> Iterator[Cell]:
    usual = product(("a100", "v100"), ("step", "train"), (0.5, 1.0, 5.0))
    for profile, wave, nominal_s in usual:
        at = (profile, wave, nominal_s)
        yield Cell("fast tail", *at, tail_w_s=FAST_TAIL)
        yield Cell("slow tail", *at, tail_w_s=(60.0, 1.0))
        yield Cell("no jitter", *at, {"tick_jitter_s": 0.0})
        yield Cell("5 ms jitter", *at, {"tick_jitter_s": 0.005})
        yield Cell("10 % noise", *at, noise=0.1)
        yield Cell("50 ms lag", *at, {"lag_s": 0.05})
        yield Cell("40 ms rise", *at, {"rise_s": 0.04})
        yield Cell("uncalibrated", *at, calibrated=False)
        yield Cell("uncalibrated, 50 ms lag", *at, {"lag_s": 0.05}, calibrated=False)
        yield Cell("uncalibrated, fast tail", *at, tail_w_s=FAST_TAIL, calibrated=False)
        yield Cell("counter and power", *at, sensor="both")


def _unseen_tails() -> Iterator[Cell]:
    """A tail of 0.1 s after a calibration without one, by the counter alone and beside power.

    The RTX 4090's power looks at more than a tick, so that it tells nothing of one moment.
    """
    usual = ("a100", "step"), ("a100", "train"), ("v100", "step"), ("v100", "train")
    for (profile, wave), nominal_s in product((*usual, ("rtx4090", "square10")), (0.5, 1.0, 5.0)):
        at = (profile, wave, nominal_s)
        alone = Cell("fast tail, unknown", *at, tail_w_s=FAST_TAIL, tail_known=False)
        yield alone
        yield replace(alone, group="fast tail, unknown, and power", sensor="both")


def _part_time() -> Iterator[Cell]:
    waves = ("step", "train", "square23", "square50", "square100", "ramp")
    for profile, wave, nominal_s in product(
        ("a100-part-time", "h100-part-time"), waves, (0.5, 1.0, 5.0, 20.0)
    ):
        yield Cell("part time", profile, wave, nominal_s)
        yield Cell("part time, uncalibrated", profile, wave, nominal_s, calibrated=False)


def _power() -> Iterator[Cell]:
    for wave, nominal_s in product(("step", "train", "loud_flat"), (0.5, 1.0, 5.0, 20.0)):
        for profile in ("p100", "rtx4090", "a100"):
            yield Cell("power only", profile, wave, nominal_s, sensor="instant")
            yield Cell(
                "power only, uncalibrated",
                profile,
                wave,
                nominal_s,
                sensor="instant",
                calibrated=False,
            )
        yield Cell("1 s average only", "a10", wave, nominal_s, sensor="usage", calibrated=False)


def _others() -> Iterator[Cell]:
    for profile, wave, nominal_s in product(
        OTHER_PROFILES, ("step", "brief_train", "square37"), (0.5, 1.0, 5.0)
    ):
        at = (profile, wave, nominal_s)
        yield Cell("other devices", *at, noise=0.08)
        yield Cell("other devices, uncalibrated", *at, noise=0.08, calibrated=False)
        tails = {"known": True, "unknown": False}
        for name, known in tails.items():
            yield Cell(f"other tails, {name}", *at, tail_w_s=(110.0, 0.22), tail_known=known)
        yield Cell("other tails, slow, unknown", *at, tail_w_s=(45.0, 1.7), tail_known=False)


def _held_out() -> Iterator[Cell]:
    """Devices, tails and loads that nothing was tuned on; seeds follow from the cells."""
    for profile, wave, nominal_s in product(
        HELD_OUT_PROFILES, ("ramp", "other_train", "square61"), (0.5, 1.0, 5.0)
    ):
        at = (profile, wave, nominal_s)
        yield Cell("held out", *at, noise=0.06)
        yield Cell("held out, uncalibrated", *at, noise=0.06, calibrated=False)
        yield Cell("held out, tail known", *at, tail_w_s=(90.0, 0.16))
        yield Cell("held out, tail unknown", *at, tail_w_s=(70.0, 0.31), tail_known=False)
        yield Cell("held out, slow tail unknown", *at, tail_w_s=(35.0, 2.3), tail_known=False)
