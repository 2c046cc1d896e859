"""What energy sources that read in a sampling process have in common, on the parent's side."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.tail import aimed_wait_s
from llenergymeasure.core.energy.estimator import (
    Calibration,
    CounterReadings,
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    PowerReadings,
    estimate_energy,
    sum_devices,
)
from llenergymeasure.core.energy.gpus import Grouped, by_channel, with_state
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER, POWER
from llenergymeasure.core.energy.protocol import REST_S, SamplingRates, StepTimes, no_steps
from llenergymeasure.core.energy.sampler import ReaderSpec, Recorded, SamplerProcess, WatchedEnd
from llenergymeasure.domain.energy import (
    BudgetEntry,
    EnergyComponent,
    EnergyRecording,
    PowerMode,
    Reading,
)
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window
from llenergymeasure.domain.warnings import FINDINGS
from llenergymeasure.exceptions import BackendError
from llenergymeasure.units import MJ

if TYPE_CHECKING:
    from llenergymeasure.core.energy.stored import StoredCalibration

PART_GUARD_NS = 2_000_000_000  # of readings on each side of a part: ticks, and a mean over 1 s
# What precedes a window is work, and shows for a while: sensors rise within 21 to 120 ms
# (arXiv 2312.02741), and threads of OpenMP go on spinning for 200 ms (KMP_BLOCKTIME).
SETTLE_S = 0.25
SLOW_GUARD_S = 2.0  # a mean over a second shows a step for as long, and later

_READ = {
    "counter": "energy counter",
    "power": "integrated power readings",
    "average_power": "integrated power readings, each a mean over a second",
}
_SENSOR: dict[str, Literal["counter", "power"]] = {
    "counter": "counter",
    "power": "power",
    "average_power": "power",
}


class SampledSource(ABC):
    """An energy source around one :class:`SamplerProcess`.

    A subclass names itself, makes its sampler, and turns what was recorded into a recording.

    Attributes:
        name: What a configuration calls it.
        settle_s: How long what came before may show in readings, which then do not count, seconds.
        lead_s: How long readings go on after that before a window may begin, seconds.
        tail_s: How long readings go on after it ended, seconds.
    """

    name: str
    settle_s = 0.0
    lead_s = 0.0
    tail_s = 0.0

    def __init__(self, sampler: SamplerProcess) -> None:
        self._sampler = sampler
        self._failure: str | None = None
        self._last: Recorded | None = None
        self._ends: list[WatchedEnd] = []

    @abstractmethod
    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Turn what the sampler recorded into the energy of a window."""

    def start(self) -> None:
        """Start the sampler; return once the first reading is in.

        Raises:
            BackendError: Another source runs, or this one does not answer.
        """
        self._failure = None
        self._sampler.start()

    def open_window(self) -> None:
        """Return when a window may begin; a failure waits for :meth:`close_window`."""
        self._last = None
        try:
            self._sampler.begin()
        except BackendError as error:
            self._failure = self._failure or error.message
            return
        time.sleep(self.settle_s + self.lead_s)

    def close_window(self, window: Window, step_times: StepTimes = no_steps) -> EnergyRecording:
        """Give what was recorded over a window that just ended; never raises, never zero."""
        if self._failure is None:
            time.sleep(self.tail_s)
            try:
                recorded = self._sampler.end()
            except BackendError as error:
                self._failure = error.message
            else:
                # From the first reading on, so that the stored readings tell it again.
                began_ns = recorded.readings[0].after_ns if recorded.readings else 0
                self._last = replace(
                    recorded,
                    step_times_ns=step_times(),
                    rest_from_ns=began_ns + round(self.settle_s * 1e9),
                    ends=tuple(self._ends),
                )
                return self.recording(self._last, window)
        return EnergyRecording(source=self.name, notes=(self._failure,))

    def part(self, window: Window) -> EnergyRecording | None:
        """Give the energy of a part of the window that was closed last, from the same readings.

        ``None`` where that window has no readings.
        """
        if self._last is None:
            return None
        readings = self._last.readings
        first = bisect_left(readings, window.t0_ns - PART_GUARD_NS, key=lambda r: r.after_ns)
        last = bisect_left(readings, window.t1_ns + PART_GUARD_NS, key=lambda r: r.after_ns)
        return self.recording(replace(self._last, readings=readings[first:last]), window)

    def stop(self) -> None:
        """End the sampler; safe to call twice and after a failure."""
        self._sampler.stop()


class Fault(NamedTuple):
    """Why the readings of a device tell no energy.

    Attributes:
        reason: In words.
        flags: Findings by their stable codes.
    """

    reason: str
    flags: tuple[str, ...] = ()


class MeteredSource(SampledSource):
    """A source whose readings are counters or power of the devices that did the work."""

    settle_s = SETTLE_S

    @abstractmethod
    def energy(
        self, device: str, taken: Grouped, recorded: Recorded, window: Window
    ) -> EnergyEstimate | Fault:
        """Give the energy of one device, or why its readings tell none.

        Args:
            device: Its name.
            taken: Readings by channel and device.
            recorded: What the sampler recorded.
            window: Its start and end.
        """

    def calibrated_at(self, device: str) -> str | None:
        """Tell when a device's sensors were calibrated."""
        return None

    def notes(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Say what else a reader of the result should know."""
        yield from ()

    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Give every device's energy; one that cannot be trusted is unknown, with the reason.

        A figure whose interval is too wide alone still counts where the sum is measured: a device
        that idles beside busy ones has a wide interval and little energy.
        """
        taken = by_channel(recorded.readings)
        estimates: dict[str, EnergyEstimate] = {}
        reasons: dict[str, str] = {}
        for name in recorded.summary["offered"]:
            found = self.energy(name, taken, recorded, window)
            if isinstance(found, Fault):
                reasons[name] = found.reason
                found = EnergyEstimate(None, None, "unmeasurable", "none", flags=found.flags)
            estimates[name] = found
        total = sum_devices(list(estimates.values())) if estimates else None
        measured = total is not None and total.kind == "measured"
        notes = [f"{name}: {reason}" for name, reason in reasons.items()]
        for name, estimate in estimates.items():
            notes += () if name in reasons else findings(name, estimate)
        return EnergyRecording(
            source=self.name,
            components=tuple(
                component(
                    name,
                    estimate,
                    self.name,
                    accepted=measured,
                    calibrated_at=self.calibrated_at(name),
                )
                for name, estimate in estimates.items()
            ),
            interval_j=total.interval95_j if total is not None and measured else None,
            readings=recorded.readings,
            cost=recorded.cost,
            notes=(*notes, *self.notes(recorded.summary)),
            flags=tuple(dict.fromkeys(flag for one in estimates.values() for flag in one.flags)),
        )


class GPUSource(MeteredSource):
    """Counters and power of GPUs, read in the sampling process with whichever library.

    Args:
        target: The devices that do the work.
        rates: How often to read.
        sampler: The process that reads; by default one of its own.
        knowledge: What is known of devices beyond their readings, by UUID.

    Attributes:
        reader: What the sampling process runs, as ``"module:Class"``.
    """

    reader: str

    def __init__(
        self,
        target: DeviceTarget,
        rates: SamplingRates,
        sampler: SamplerProcess | None = None,
        knowledge: Mapping[str, Knowledge] | None = None,
    ) -> None:
        super().__init__(sampler or SamplerProcess(reader_spec(self.reader, target, rates)))
        self._uuids, self._knowledge = target.gpu_uuids, dict(knowledge or {})
        self._modes: dict[str, PowerMode] = {}

    def start(self) -> None:
        """Start the sampler, and learn from an empty window what its devices offer.

        Where no counter but power tells a device's energy, readings go on for longer before and
        after a window: it may be a mean over a second, whatever its name, and shows it then.

        Raises:
            BackendError: Another source runs, or the driver or a device does not answer.
        """
        super().start()
        self._sampler.begin()
        offered = self._sampler.end().summary["offered"].values()
        if any(COUNTER not in one and {POWER, AVERAGE_POWER} & {*one} for one in offered):
            self.lead_s = self.tail_s = SLOW_GUARD_S

    def uncalibrated(self) -> Sequence[str]:
        """Name the GPUs whose sensors nothing is known of."""
        return [uuid for uuid in self._uuids if uuid not in self._knowledge]

    def learn(self, calibration: StoredCalibration) -> None:
        """Use what was learned about a GPU from the next window on."""
        self._knowledge[calibration.uuid] = calibration.knowledge

    def calibrated_at(self, device: str) -> str | None:
        """Tell when bursts calibrated a GPU's sensors."""
        return self._knowledge.get(device, Knowledge()).calibrated_at

    def before_end(self, lasts_s: float | None, share: float) -> None:
        """Begin to read before work whose end is to be looked at, and wait for its place."""
        try:
            self._sampler.begin()
        except BackendError as error:
            self._failure = self._failure or error.message
            return
        if lasts_s is not None and self._ends:
            time.sleep(self._wait_s(lasts_s, share))

    def after_end(self, at_ns: int) -> Sequence[Reading]:
        """Read on while the device rests; a failure waits for :meth:`close_window`."""
        if self._failure is not None:
            return ()
        time.sleep(max(REST_S + (at_ns - time.monotonic_ns()) / 1e9, 0.0))
        try:
            self._ends.append(WatchedEnd(at_ns, self._sampler.end().readings))
        except BackendError as error:
            self._failure = error.message
            return ()
        return self._ends[-1].readings

    def _wait_s(self, lasts_s: float, share: float) -> float:
        """Tell how long to wait so that work ends so long before a tick; 0 without a counter."""
        last, now_ns = self._ends[-1], time.monotonic_ns()
        for (channel, device), rows in by_channel(last.readings).items():
            if channel == COUNTER and (counter := counter_readings(rows, MJ)) is not None:
                known = self._knowledge.get(device, Knowledge()).counter or Calibration()
                ends_s = lasts_s + (now_ns - last.at_ns) / 1e9
                return aimed_wait_s(counter, last.at_ns, known, ends_s, share)
        return 0.0

    @abstractmethod
    def fault(self, readings: DeviceReadings, summary: Mapping[str, Any], uuid: str) -> str | None:
        """Say why readings of a GPU tell no energy; ``None`` where they might."""

    def silent(self, uuid: str, taken: Grouped, recorded: Recorded, window: Window) -> set[str]:
        """Name the sensors of a GPU whose readings are not to be used."""
        return set()

    def energy(
        self, device: str, taken: Grouped, recorded: Recorded, window: Window
    ) -> EnergyEstimate | Fault:
        """Give the energy of one GPU, with what is known of it and of the load's steps."""
        silent = self.silent(device, taken, recorded, window)
        readings = gpu_readings(device, _with_ends(taken, recorded.ends, device), silent)
        if reason := self.fault(readings, recorded.summary, device):
            return Fault(reason)
        known = self._knowledge.get(device, Knowledge())
        known = replace(
            known,
            step_times_ns=recorded.step_times_ns,
            rest_from_ns=recorded.rest_from_ns,
            ends_ns=[end.at_ns for end in recorded.ends],
        )
        # Load may go on beyond the end of a part: what power readings are is told by the whole.
        mode = None if recorded is self._last else self._modes.get(device, "untold")
        found = estimate_energy(readings, window, replace(known, power_mode=mode))
        if mode is None and found.power_mode is not None:
            self._modes[device] = found.power_mode
        return found

    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Give every GPU's energy and state; one that went away in the window is unknown."""
        # NVML's reader tells the state as its own summary; others have it beside theirs.
        state = recorded.summary.get("state", recorded.summary)
        return with_state(super().recording(recorded, window), state, window)


def reader_spec(reader: str, target: DeviceTarget, rates: SamplingRates) -> ReaderSpec:
    """Say what the sampling process is to read of GPUs."""
    arguments = {
        "uuids": list(target.gpu_uuids),
        "counter_poll_s": rates.counter_poll_ms / 1e3,
        "power_poll_s": rates.power_poll_ms / 1e3,
    }
    return ReaderSpec(reader, arguments)


def gpu_readings(uuid: str, taken: Grouped, without: Container[str] = ()) -> DeviceReadings:
    """Gather what was read of one GPU.

    Args:
        uuid: The GPU.
        taken: Readings by channel and device.
        without: Channels to leave out.
    """

    def of(channel: str) -> Sequence[Reading]:
        return () if channel in without else taken.get((channel, uuid), ())

    return DeviceReadings(
        counter=counter_readings(of(COUNTER), MJ),
        power=power_readings(of(POWER)),
        average_power=power_readings(of(AVERAGE_POWER)),
    )


def _with_ends(taken: Grouped, ends: Sequence[WatchedEnd], uuid: str) -> Grouped:
    """Put what a GPU's counter said around earlier ends before what it said around a window."""
    whose, rows = (COUNTER, uuid), taken.get((COUNTER, uuid), ())
    earlier = [row for end in ends for row in by_channel(end.readings).get(whose, ())]
    return {**taken, whose: [*earlier, *rows]} if earlier and rows else taken


def counter_readings(rows: Sequence[Reading], unit_j: float) -> CounterReadings | None:
    """Gather what one counter said, or ``None`` where it said nothing."""
    if not rows:
        return None
    before_ns, after_ns, value = _columns(rows)
    # A count below 2**53 is whole in a double, so rounding only changes the type.
    return CounterReadings(before_ns, after_ns, np.rint(value).astype(np.int64), unit_j)


def power_readings(rows: Sequence[Reading]) -> PowerReadings | None:
    """Gather what one power sensor said in watts, or ``None`` where it said nothing."""
    return PowerReadings(*_columns(rows)) if rows else None


def _columns(rows: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        np.array([row.before_ns for row in rows], dtype=np.int64),
        np.array([row.after_ns for row in rows], dtype=np.int64),
        np.array([row.value for row in rows], dtype=np.float64),
    )


def component(
    name: str,
    estimate: EnergyEstimate,
    source: str,
    *,
    accepted: bool = False,
    calibrated_at: str | None = None,
) -> EnergyComponent:
    """Label one device's figure; without one that can be stood by, it is unknown.

    Args:
        name: The device.
        estimate: Its energy.
        source: Name of the source.
        accepted: Take the figure however wide its own interval is.
        calibrated_at: When its sensors were calibrated.
    """
    known = estimate.energy_j is not None and (accepted or estimate.kind == "measured")
    tick_s, jitter_s = estimate.tick_s, estimate.jitter_s
    return EnergyComponent(
        name=name,
        energy_j=estimate.energy_j if known else None,
        kind="measured" if known else "unmeasurable",
        method=f"{source}: {_READ.get(estimate.source, 'nothing')}",
        in_scope=True,
        sensor=_SENSOR.get(estimate.source),
        interval95_j=estimate.interval95_j if known else None,
        tick_ms=None if tick_s is None else tick_s * 1e3,
        jitter_ms=None if jitter_s is None else jitter_s * 1e3,
        start_edge=estimate.start,
        end_edge=estimate.end,
        counter_over_power=estimate.counter_over_power,
        power_mode=estimate.power_mode,
        calibrated_at=calibrated_at,
        budget=tuple(BudgetEntry(name=x.name, standard_j=x.standard_j) for x in estimate.budget),
    )


def findings(name: str, estimate: EnergyEstimate) -> Iterator[str]:
    """Say in words what was found about one device's figure."""
    for flag in estimate.flags:
        yield f"{name}: {FINDINGS[flag].shows if flag in FINDINGS else flag}"
    if estimate.energy_j is None or estimate.interval95_j is None:
        if "counter_reset" not in estimate.flags:
            yield f"{name}: what was read of it tells no energy"
    elif estimate.kind == "unmeasurable":
        share, shortest_s = estimate.interval95_j / estimate.energy_j, estimate.shortest_window_s
        would_do = "" if shortest_s is None else f"; a window of {shortest_s:.2g} s would do"
        yield (
            f"{name}: {estimate.energy_j:.3g} J with an interval of {share:.0%} is no "
            f"measurement{would_do}"
        )
