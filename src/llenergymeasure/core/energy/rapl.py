"""RAPL as an energy source: the processor's own counters of its packages and their memory."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from llenergymeasure.config.energy_sources import other_sources
from llenergymeasure.core.energy.estimation.sensor import Calibration, CounterReadings, unwrap
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
from llenergymeasure.core.energy.gpus import Grouped
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.rapl_reader import (
    CHANNEL,
    MOST_W,
    Domain,
    find_domains,
    sockets,
)
from llenergymeasure.core.energy.sampled_source import Fault, MeteredSource, counter_readings
from llenergymeasure.core.energy.sampler import ReaderSpec, Recorded, SamplerProcess
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

READER = "llenergymeasure.core.energy.rapl_reader:RaplReader"
POWERCAP = Path("/sys/class/powercap")
UJ = 1e-6
LEAST_GUARD_S = 0.1
GUARD_POLLS = 5
TICK_S = 1e-3  # "updated every ~1ms" (Intel SDM vol. 3B, RAPL; AMD: arXiv 2108.00808)
OUTRUN_SHARE = 0.6  # of polls that find another value: the counter ticks faster than we poll
SLACK_S = 0.2  # energy may show this much later than it was drawn

# Every tick counts all energy since the one before it; its time is good to about a tick.
CALIBRATION = Calibration(fully_integrating=True, edge_time_s=TICK_S)

UNUSABLE = ("counter_unusable",)
WHY_ROOT = (
    "only root may read them on most kernels since 5.10, because fine power readings leak secrets "
    "(PLATYPUS, CVE-2020-8694 and CVE-2020-8695)"
)
NO_CPU = "RAPL counts the CPU and its memory, and covers no device that did the work: a GPU did"

Readable = Callable[[str], bool]


class RaplSource(MeteredSource):
    """RAPL's counters, read in the sampling process.

    Args:
        target: The devices that do the work.
        rates: How often to read.
        sampler: The process that reads; by default one of its own.
        root: The directory of powercap.
    """

    name = "rapl"

    def __init__(
        self,
        target: DeviceTarget,
        rates: SamplingRates,
        sampler: SamplerProcess | None = None,
        root: Path = POWERCAP,
    ) -> None:
        poll_s = rates.counter_poll_ms / 1e3
        arguments = {"root": str(root), "poll_s": poll_s}
        super().__init__(sampler or SamplerProcess(ReaderSpec(READER, arguments)))
        self.lead_s = self.tail_s = max(LEAST_GUARD_S, GUARD_POLLS * poll_s)

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        """Say what RAPL would tell of these devices on this machine."""
        if target.kind == "cpu":
            return cpu_coverage(POWERCAP)
        return Coverage(None, NO_CPU, other_sources(target.kind))

    def energy(
        self, device: str, taken: Grouped, recorded: Recorded, window: Window
    ) -> EnergyEstimate | Fault:
        """Give a counter's energy, or why it cannot be trusted."""
        range_uj = recorded.summary["range_uj"][device]
        counter = counter_readings(taken.get((CHANNEL, device), ()), UJ)
        failure = recorded.summary["failing"][device].get(CHANNEL)
        fault = counter_fault(counter, range_uj)
        if failure:
            fault = Fault(f"cannot be read: {failure}", UNUSABLE)
        if fault is not None:
            return fault._replace(reason=f"its counter {fault.reason}")
        assert counter is not None  # one that was never read has a fault
        return domain_energy(counter, range_uj, window, recorded.rest_from_ns)


def cpu_coverage(root: Path, readable: Readable | None = None) -> Coverage:
    """Say whether RAPL's counters are there and may be read, and what they cover.

    Args:
        root: The directory of powercap.
        readable: Tells whether a file may be read.
    """
    try:
        domains = find_domains(root)
    except (OSError, ValueError) as error:
        return Coverage(None, f"RAPL's counters cannot be looked at: {error}", f"check {root}")
    if not domains:
        return Coverage(
            None,
            f"no RAPL counters under {root}: virtual machines have none, and containers hide them",
            "run on the machine itself with the kernel module intel_rapl_msr (sudo modprobe "
            "intel_rapl_msr), or set energy_backend: auto",
        )
    may_read = readable or (lambda path: os.access(path, os.R_OK))
    closed = [domain.counter for domain in domains if not may_read(domain.counter)]
    if not closed:
        return Coverage("measured", scope(domains))
    return Coverage(
        None,
        f"RAPL's counters may not be read ({', '.join(closed)}): {WHY_ROOT}",
        f"sudo chmod a+r {shlex.quote(str(root))}/intel-rapl:*/energy_uj",
    )


def scope(domains: Sequence[Domain]) -> str:
    """Say in words what the counters cover."""
    packages = sum(domain.is_package for domain in domains)
    memories, count = len(domains) - packages, sockets(tuple(domains))
    where = f"{count} socket{'' if count == 1 else 's'}"
    if not memories:
        return f"CPU package only, {where}; no counter of DRAM here, so memory is not in it"
    if memories < packages:
        return f"CPU package, {where}, and DRAM of {memories} of {packages} packages"
    return f"CPU package and DRAM, {where}"


def domain_energy(
    taken: CounterReadings, range_uj: int, window: Window, rest_from_ns: int = 0
) -> EnergyEstimate:
    """Give the energy of a window from a counter that may have wrapped.

    Args:
        taken: Readings of the counter.
        range_uj: By how much a wrap falls.
        window: Its start and end.
        rest_from_ns: See :class:`~.estimation.sensor.Knowledge`.

    Raises:
        ValueError: A reading lies outside the counter's range.
    """
    value = unwrap(taken.value, range_uj)
    counter = CounterReadings(taken.before_ns, taken.after_ns, value, UJ)
    changed = np.diff(value) > 0
    fast = len(changed) > 0 and float(changed.mean()) > OUTRUN_SHARE
    known = replace(CALIBRATION, tick_s=TICK_S if fast else None)
    knowledge = Knowledge(counter=known, rest_from_ns=rest_from_ns)
    return estimate_energy(DeviceReadings(counter=counter), window, knowledge)


def counter_fault(taken: CounterReadings | None, range_uj: int) -> Fault | None:
    """Say why readings of a counter tell no energy, or ``None`` where they do.

    A fall is a wrap only if what it then counts is no more than a package can draw; a gap in
    which the counter could have wrapped unseen leaves the number of wraps open.
    """
    if taken is None:
        return Fault("was never read", UNUSABLE)
    value = taken.value
    if value.min() < 0 or value.max() > range_uj:
        return Fault(f"left its range of 0 to {range_uj} µJ", UNUSABLE)
    if value.min() == value.max():
        return Fault(f"did not move in {len(value)} reads", UNUSABLE)
    gaps_s = (taken.after_ns[1:] - taken.before_ns[:-1]) / 1e9
    if gaps_s.max() * MOST_W > range_uj * UJ:
        why = f"was not read for {gaps_s.max():.3g} s, in which it may have wrapped unseen"
        return Fault(why, UNUSABLE)
    rises_j = np.diff(unwrap(value, range_uj)) * UJ
    wrong = np.flatnonzero(rises_j > MOST_W * (gaps_s + SLACK_S))
    if not len(wrong):
        return None
    at = int(wrong[0])
    before_uj, after_uj = int(value[at]), int(value[at + 1])
    said = f"from {before_uj} to {after_uj} µJ within {gaps_s[at] * 1e3:.3g} ms"
    fell = Fault(f"fell back {said}, which is no wrap", ("counter_reset",))
    leapt = Fault(f"leapt {said}, more than a package can draw", UNUSABLE)
    return fell if after_uj < before_uj else leapt
