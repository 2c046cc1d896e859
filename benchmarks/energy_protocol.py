"""One measured window on a simulated device, as the product takes it, on a virtual clock.

What happens is the product's own: the sampler's reading plan (:mod:`~.core.energy.cadence`) at its
default rates, the last warm-up batches, held up by what was read of the ends before them, the NVML
source's wait after them, and its guards. What a device and its sensor do is
:mod:`tests.support.simulated_device`'s.

    scene = Scene(profiles.A100, loads.step(0.0, 1.0), 1.0)
    known = calibrated(scene.profile, scene.body, rng)
    played = play(scene, rng, known)
    estimate = estimate_energy(played.readings, played.window, played.knowing(known))
    error = estimate.energy_j / played.truth_j - 1
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from llenergymeasure.core.energy.cadence import Cadence, Tiers, gpu_cadence
from llenergymeasure.core.energy.estimation.tail import aimed_wait_s
from llenergymeasure.core.energy.estimator import (
    Calibration,
    CounterReadings,
    DeviceReadings,
    Knowledge,
    PowerReadings,
)
from llenergymeasure.core.energy.nvml import GUARD_S
from llenergymeasure.core.energy.protocol import REST_S, SamplingRates
from llenergymeasure.core.energy.sampled_source import SETTLE_S, SLOW_GUARD_S
from llenergymeasure.domain.samples import Window
from llenergymeasure.orchestration.warmup import ENDS
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import FloatArray, Load
from tests.support.simulated_device.profiles import DeviceProfile
from tests.support.simulated_device.twin import Quantity, VirtualDevice

ORIGIN_NS = 10**15  # of the virtual clock, so that no time is negative
RATES = SamplingRates()
READ_S = 50e-6  # how long a read takes, more or less
WAKE_S = 1e-4  # a wake-up is at most this late when nothing holds it up
HANDOVER_S = 0.01  # between the guards and the work itself, at most
# Warm-up batches: from 20 to 200 tokens of 20 ms each. They are aimed by how long the one before
# took, so what equal batches differ by (as a share, one standard deviation) is what ends miss.
LEAST_BATCH_S, MOST_BATCH_S = 0.4, 4.0
LEAST_SPREAD, MOST_SPREAD = 0.01, 0.02
FULL_W = 400.0  # of a device that loads are written for; they are scaled to a device's limit


class Late(NamedTuple):
    """Turns of the sampler that come late, and everything of them with it.

    Attributes:
        share: How many of them.
        least_s: By how much at least, seconds.
        most_s: By how much at most.
    """

    share: float = 0.02
    least_s: float = 0.01
    most_s: float = 0.05


class Tail(NamedTuple):
    """Power after the work, on a device of 400 W.

    Attributes:
        watts: With what it starts.
        over_s: How long it lasts; ``exp`` falls like exp(-3 t / over_s).
        shape: How it falls.
        delay_s: How long after the work it starts.
    """

    watts: float
    over_s: float
    shape: Literal["exp", "line", "box"] = "exp"
    delay_s: float = 0.0

    def after(self, at_s: float) -> Load:
        """Give its load after work that ended at a time."""
        start_s = at_s + self.delay_s
        if self.shape == "box":
            return loads.steps(
                [start_s - 10.0, start_s, start_s + self.over_s], [0.0, self.watts, 0.0]
            )
        return loads.tail(start_s, self.watts, self.over_s, curved=self.shape == "exp")


class Body(NamedTuple):
    """What a device does that its load does not say.

    Attributes:
        ramp_s: How long a device that rested takes to full power.
        tail: What it draws after the work.
        noise: Standard deviation of its power, as a share, drawn anew every 10 ms.
        smoothed: Whether it takes as long when it was kept awake, as with NVML's power smoothing.
    """

    ramp_s: float = 0.0
    tail: Tail | None = None
    noise: float = 0.07
    smoothed: bool = False


USUAL, PLAIN, NOTHING = Late(), Body(), Knowledge()
Span = tuple[float, float]
Batches = tuple[Span, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A window to be measured.

    Attributes:
        profile: The device and its sensor; its ticks are put anywhere.
        load: Its power, on a device of 400 W; the window is from 0 to ``length_s``.
        length_s: Length of the window.
        steps_s: When steps of the load begin.
        body: What the device adds.
        warmup_w: Power of the warm-up; by default the window's mean.
        in_situ: Whether the ends of the last warm-up batches are looked at, with rest behind each.
        batches_s: When these begin and end, where another device has told.
        settle_s: How long the product waits after the warm-up before the guard.
        late: Late turns of the sampler.
        without: Sensors of the device that are not there.
    """

    profile: DeviceProfile
    load: Load
    length_s: float
    steps_s: Sequence[float] | FloatArray = ()
    body: Body = PLAIN
    warmup_w: float | None = None
    in_situ: bool = True
    batches_s: Batches = ()
    settle_s: float = SETTLE_S
    late: Late = USUAL
    without: tuple[Quantity, ...] = ()


class Played(NamedTuple):
    """What the product would know of a window, and what it would not.

    Attributes:
        readings: Readings of the device.
        window: Start and end.
        step_times_ns: When steps of the load began.
        rest_from_ns: From when on the warm-up is taken not to show.
        batches_s: When the last warm-up batches began and ended.
        truth_j: The true energy, by the sensor's scale.
        device: The device.
    """

    readings: DeviceReadings
    window: Window
    step_times_ns: Any
    rest_from_ns: int
    batches_s: Batches
    truth_j: float
    device: VirtualDevice

    def knowing(self, known: Knowledge) -> Knowledge:
        """Add what the product knows of the window itself."""
        return replace(
            known,
            step_times_ns=self.step_times_ns,
            rest_from_ns=self.rest_from_ns,
            ends_ns=ns([end_s for _, end_s in self.batches_s]),
        )


def ns(seconds: Any) -> Any:
    """Give nanoseconds of the virtual clock."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * 1e9).astype(np.int64) + ORIGIN_NS


def play(scene: Scene, rng: np.random.Generator, known: Knowledge = NOTHING) -> Played:
    """Measure a window.

    Args:
        scene: What is measured.
        rng: Draws what differs from one window to the next.
        known: What is known of the device's sensors, by which warm-up batches are aimed.
    """
    device_seed = int(rng.integers(2**40))
    profile = profiles.with_random_phase(scene.profile, rng)
    guard_s = guard(profile, scene.without)
    opened_s = -scene.settle_s - guard_s - float(rng.uniform(0.0, HANDOVER_S))
    closed_s = scene.length_s + float(rng.uniform(0.0, HANDOVER_S)) + guard_s
    batches_s = scene.batches_s
    if scene.in_situ and not batches_s:
        aimed = _WarmUp(scene, profile, device_seed, known, rng)
        profile, batches_s = aimed.until(opened_s)
    shown_s = batches_s or ((opened_s - LEAST_BATCH_S, opened_s),)
    load = _whole(scene, shown_s).scaled(profile.limit_w / FULL_W)
    noisy = loads.noisy(load, scene.body.noise, shown_s[0][0] - 0.4, closed_s, rng)
    device = VirtualDevice(profile, noisy, device_seed)
    spans_s = [(start_s, end_s + REST_S) for start_s, end_s in batches_s]
    return Played(
        _recorded(device, [*spans_s, (opened_s, closed_s)], rng, scene),
        Window(ORIGIN_NS, int(ns(scene.length_s))),
        ns(scene.steps_s),
        int(ns(opened_s + scene.settle_s)),
        batches_s,
        device.true_energy_j(0.0, scene.length_s),
        device,
    )


def play_all(
    scene: Scene, devices: int, rng: np.random.Generator, known: Knowledge
) -> list[Played]:
    """Measure a window on devices that work together: the first one's counter aims for all."""
    first = play(scene, rng, known)
    alike = replace(scene, batches_s=first.batches_s)
    return [first, *(play(alike, rng, known) for _ in range(devices - 1))]


def _recorded(
    device: VirtualDevice, spans_s: Sequence[Span], rng: np.random.Generator, scene: Scene
) -> DeviceReadings:
    """Read around every end and the window; of the ends only the counter is kept."""
    counters: list[CounterReadings] = []
    free_s = -np.inf  # the read before may have been late
    for from_s, to_s in spans_s:
        readings = record(device, (max(from_s, free_s), to_s), rng, scene.late, scene.without)
        if readings.counter is not None:
            counters.append(readings.counter)
            free_s = (int(readings.counter.after_ns[-1]) - ORIGIN_NS) / 1e9
    if not counters:
        return readings
    before_ns, after_ns, value = (
        np.concatenate(columns)
        for columns in zip(*((c.before_ns, c.after_ns, c.value) for c in counters), strict=True)
    )
    return replace(readings, counter=CounterReadings(before_ns, after_ns, value))


class _WarmUp:
    """The last warm-up batches, as :mod:`~.orchestration.warmup` and the source time them."""

    def __init__(
        self,
        scene: Scene,
        profile: DeviceProfile,
        seed: int,
        known: Knowledge,
        rng: np.random.Generator,
    ) -> None:
        self._scene, self._profile, self._seed, self._rng = scene, profile, seed, rng
        self._known = known.counter or Calibration()

    def until(self, opened_s: float) -> tuple[DeviceProfile, Batches]:
        """Let the last rest end when the window's readings begin.

        Returns:
            The device, with the ticks that go with that, and when batches begin and end.
        """
        usual_s = np.exp(self._rng.uniform(np.log(LEAST_BATCH_S), np.log(MOST_BATCH_S)))
        spread = self._rng.uniform(LEAST_SPREAD, MOST_SPREAD)
        lasts_s = (usual_s * (1 + spread * self._rng.standard_normal(len(ENDS)))).tolist()
        now_s = opened_s - sum(lasts_s) - len(ENDS) * (REST_S + self._profile.counter_period_s)
        done: Batches = ()
        for share, batch_s in zip(ENDS, lasts_s, strict=True):
            now_s += self._wait_s(done, share)
            done += ((now_s, now_s + batch_s),)
            now_s += batch_s + REST_S
        late_s = opened_s - now_s
        profile = replace(
            self._profile,
            counter_phase_s=self._profile.counter_phase_s + late_s,
            power_phase_s=self._profile.power_phase_s + late_s,
        )
        return profile, tuple((start_s + late_s, end_s + late_s) for start_s, end_s in done)

    def _wait_s(self, done: Batches, share: float) -> float:
        """Tell how long the next batch is held up, by what was read around the last one."""
        scene = self._scene
        if not done or "counter" not in sensors(self._profile, scene.without):
            return 0.0
        start_s, end_s = done[-1]
        load = _whole(scene, done).scaled(self._profile.limit_w / FULL_W)
        device = VirtualDevice(self._profile, load, self._seed)
        read = record(device, (start_s, end_s + REST_S), self._rng, scene.late, scene.without)
        assert read.counter is not None
        ends_s = end_s - start_s + REST_S
        return aimed_wait_s(read.counter, int(ns(end_s)), self._known, ends_s, share)


def guard(profile: DeviceProfile, without: Sequence[Quantity] = ()) -> float:
    """Give how long the NVML source reads before and after a window, seconds."""
    return GUARD_S if "counter" in sensors(profile, without) else SLOW_GUARD_S


def sensors(profile: DeviceProfile, without: Sequence[Quantity] = ()) -> tuple[Quantity, ...]:
    """List what the NVML reader would use of a device, in its order of reading."""
    offers: dict[Quantity, bool] = {
        "counter": profile.counter_supported,
        "instant": profile.instant_supported,
        "usage": not profile.instant_supported and not profile.average_supported,
        "average": profile.average_supported,
    }
    return tuple(one for one, there in offers.items() if there and one not in without)


def _whole(scene: Scene, batches_s: Batches) -> Load:
    """Give the window's load with the ramp before it, the tail behind it, and the warm-up."""
    body, load = scene.body, scene.load
    outside_w = float(load.level_w[0])
    warmup_w = scene.warmup_w
    if warmup_w is None:
        warmup_w = load.energy_j(0.0, scene.length_s) / scene.length_s
    if body.ramp_s:
        load = ramped(load, 0.0, min(body.ramp_s, scene.length_s), outside_w)
    for start_s, end_s in batches_s:
        load = load + loads.step(start_s, end_s, warmup_w - outside_w, 0.0)
    if body.tail is not None:
        for end_s in (*(end_s for _, end_s in batches_s), scene.length_s):
            load = load + body.tail.after(end_s)
    return load


def ramped(load: Load, at_s: float, over_s: float, outside_w: float) -> Load:
    """Let a load come up in small steps from its level outside to full over a time."""
    cut = load.cut_at(np.linspace(at_s, at_s + over_s, 21))
    middle_s = cut.start_s + np.append(np.diff(cut.start_s), 0.0) / 2
    inside = (cut.start_s >= at_s) & (cut.start_s < at_s + over_s - 1e-9)
    share = np.where(inside, (middle_s - at_s) / over_s, 1.0)
    level_w = outside_w + (cut.level_w - outside_w) * share
    return Load(cut.start_s, level_w, cut.slope_w_per_s * share)


def record(
    device: VirtualDevice,
    span_s: tuple[float, float],
    rng: np.random.Generator,
    late: Late = USUAL,
    without: Sequence[Quantity] = (),
) -> DeviceReadings:
    """Let the product's sampler read a device from one time to another."""
    names = sensors(device.profile, without)
    counters = int("counter" in names)
    quick = min(len(names) - counters, 1)
    tiers = Tiers(counters, quick, slow=len(names) - counters - quick)
    cadence = gpu_cadence(tiers, RATES.counter_poll_ms / 1e3, RATES.power_poll_ms / 1e3)
    ticks_s = [_ticks_s(device, name, span_s) for name in names]
    hitches = _hitches(int((span_s[1] - span_s[0]) / cadence.period_s) + 3, late, rng)
    taken = _turns(cadence, ticks_s, span_s, hitches)
    counter: CounterReadings | None = None
    powers: dict[Quantity, PowerReadings] = {}
    for name, times in zip(names, taken, strict=True):
        before_s, after_s = np.array(times).T
        value = device.shown(name, before_s + (after_s - before_s) * rng.random(len(times)))
        if name == "counter":
            counter = CounterReadings(ns(before_s), ns(after_s), value)
        else:
            powers[name] = PowerReadings(ns(before_s), ns(after_s), value / 1000.0)
    return DeviceReadings(
        counter, powers.get("instant"), powers.get("average", powers.get("usage"))
    )


def _ticks_s(device: VirtualDevice, name: Quantity, span_s: tuple[float, float]) -> list[float]:
    """List when a quantity changes."""
    of = device.counter_ticks_s if name == "counter" else device.power_ticks_s
    return [float(at_s) for at_s in of(*span_s)]


class _Hitch(NamedTuple):
    """What holds up one turn: its wake-up, each of its reads, and seldom something long."""

    wake_s: float
    read_s: float
    delay_s: float
    place: float  # below a half the delay is before the reads, else in that one of them


def _hitches(count: int, late: Late, rng: np.random.Generator) -> Iterator[_Hitch]:
    delay_s = rng.uniform(late.least_s, late.most_s, count) * (rng.random(count) < late.share)
    wake_s, read_s = rng.uniform(0.0, WAKE_S, count), READ_S * rng.uniform(0.5, 1.5, count)
    columns = (wake_s, read_s, delay_s, rng.random(count))
    return map(_Hitch._make, zip(*(column.tolist() for column in columns), strict=True))


def _turns(
    cadence: Cadence,
    ticks_s: Sequence[list[float]],
    span_s: tuple[float, float],
    hitches: Iterator[_Hitch],
) -> list[list[tuple[float, float]]]:
    """Play the reading plan; give when each quantity was read, before and after."""
    taken: list[list[tuple[float, float]]] = [[] for _ in ticks_s]
    now_s, end_s = span_s
    cadence.begin(round(now_s * 1e9))
    for wake_s, read_s, delay_s, place in hitches:
        due = cadence.turn()
        stalled = int((2 * place - 1) * len(due))
        now_s += wake_s + (delay_s if place < 0.5 else 0.0)
        for position, index in enumerate(due):
            before_s = now_s
            now_s += read_s + (delay_s if place >= 0.5 and position == stalled else 0.0)
            taken[index].append((before_s, now_s))
            cadence.saw(index, bisect(ticks_s[index], before_s), round(now_s * 1e9))
        if now_s >= end_s:
            break
        now_s = min(max(now_s, cadence.next_ns(round(now_s * 1e9)) / 1e9), end_s)
    return taken
