"""How far a result can be trusted: one function from recorded data to a verdict.

A rule is a function from evidence to findings, asked where there is some. To add a finding, yield
it in the rule that it belongs to, and describe its code in :mod:`llenergymeasure.domain.warnings`;
that table has the order of findings. A finding about devices names every device that it holds of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceState, DeviceTarget
from llenergymeasure.domain.results import (
    BaselineResult,
    CPULoad,
    CPUThrottling,
    PassComparison,
    ThroughputResult,
    TrustReason,
    TrustVerdict,
)
from llenergymeasure.domain.warnings import FINDINGS

SHORT_WINDOW_S = 10.0
FEW_BATCHES = 10
OTHER_SHARE = 0.05
THROTTLED_SHARE = 0.01  # of the window, and of the periods: time held back is summed over CPUs
DRIFT_SHARE = 0.01  # of power or clock, between halves that did the same work
START_TOLERANCE_C = 3.0
LIMIT_TOLERANCE_W = 0.5  # limits are set in whole watts and read back in milliwatts
STALLED_SHARE = 0.05  # of the window: more than that is no longer the speed of the work
SLEPT_S = 0.5  # two clocks are read one after the other, by a thread that may wait in between

EVENTS = {
    "hardware_thermal_slowdown": ("hardware_thermal", 1),
    "power_brake": ("power_brake", 1),
    "hardware_slowdown": ("hardware_slowdown", 2),  # a single sample is no more than a blip
    "software_thermal_slowdown": ("software_thermal", 1),
}
"""Finding, and the clock event that shows it in so many samples at least."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is reached from.

    Attributes:
        throughput: The work that was done in the window.
        batches: Batches of one pass.
        weights: Where the weights came from.
        energy_asked: Whether a source of energy was to be read: neither with
            ``energy_backend: none`` nor where ``auto`` found none.
        energy: What the source recorded over the window.
        target: The devices that did the work.
        no_source: Why ``auto`` found no source; ``None`` where it found one or was not asked.
        reference_c: Temperature at which each device should start, by UUID, where there is one.
        comparison: How the two halves of the window compare, where they did the same work.
        baseline: Idle power.
        cpu_load: Who kept the CPUs busy, where the work was theirs and it is known.
        cpu_throttling: What a quota on CPU time held back, where there is one.
        prefix_cache_hits: Prompts of the window that the engine says it found in its prefix cache,
            at least in part.
        locks_lost: What became of the locks on its devices that were taken away meanwhile.
    """

    throughput: ThroughputResult
    batches: int
    weights: Literal["pretrained", "random", "unknown", "none"]
    energy_asked: bool
    energy: EnergyRecording
    target: DeviceTarget
    no_source: str | None = None
    reference_c: Mapping[str, float] = field(default_factory=dict)
    comparison: PassComparison | None = None
    baseline: BaselineResult | None = None
    cpu_load: CPULoad | None = None
    cpu_throttling: CPUThrottling | None = None
    prefix_cache_hits: int = 0
    locks_lost: tuple[str, ...] = ()


class Found(NamedTuple):
    """A code, and what was found in this result."""

    code: str
    detail: str


def assess(evidence: Evidence) -> TrustVerdict:
    """Reach a verdict: the worst of the reasons.

    Every finding bears on the energy figures, so theirs is the same verdict; where no source
    was to be read it is ``off``, and the overall verdict is about the times alone. That ``auto``
    found no source is said all the same.
    """
    order = list(FINDINGS)
    in_order = sorted(found(evidence), key=lambda one: order.index(one.code))
    return TrustVerdict.of(
        (TrustReason.of(code, detail) for code, detail in in_order),
        energy_asked=evidence.energy_asked,
    )


def found(evidence: Evidence) -> Iterator[Found]:
    """Ask every rule that there is evidence for."""
    yield from _of_the_work(evidence)
    yield from _where("device_lock_lost", evidence.locks_lost)
    if evidence.throughput.stalled_s or evidence.throughput.suspended_s:
        yield from _stalls(evidence.throughput)
    yield from _of_the_energy(evidence)
    if evidence.energy.device_state or evidence.target.kind == "gpu":
        yield from _of_the_devices(evidence)
    if evidence.comparison is not None:
        yield from _of_the_halves(evidence.comparison)
    if evidence.baseline is not None and evidence.baseline.skipped is None:
        yield from _of_the_baseline(evidence.baseline)


def _of_the_work(evidence: Evidence) -> Iterator[Found]:
    """Find what bears on every figure: requests, weights, the window, and the CPUs' company."""
    work = evidence.throughput
    completed, failed = work.requests_completed, work.requests_failed
    if not completed:
        yield Found("nothing_completed", f"none of {failed} requests ended well")
    if failed:
        yield Found("failed_requests", f"{failed} of {completed + failed} requests failed")
    load = evidence.cpu_load
    if load is not None and load.other_share > OTHER_SHARE:
        yield Found(
            "cpu_shared",
            f"other work had {100 * load.other_share:.0f} % of the CPU time of the machine, the "
            f"experiment {100 * load.own_share:.0f} %",
        )
    held = evidence.cpu_throttling
    if held is not None and (
        held.throttled_s > THROTTLED_SHARE * work.window_s
        and held.throttled_periods > THROTTLED_SHARE * held.periods
    ):
        yield Found(
            "cpu_throttled",
            f"{held.group} had used its quota up in {held.throttled_periods:,} of "
            f"{held.periods:,} periods, and was held back for {held.throttled_s:.3g} s in all",
        )
    if work.window_s < SHORT_WINDOW_S:
        yield Found("window_short", f"window of {work.window_s:.3g} s, under {SHORT_WINDOW_S:g} s")
    if evidence.weights == "random":
        yield Found("random_weights", "the weights are random")
    if cut := work.prompts_truncated:
        prompts = "prompt was" if cut == 1 else "prompts were"
        yield Found("prompts_truncated", f"{cut:,} {prompts} cut")
    if evidence.prefix_cache_hits:
        yield Found("prefix_cache_hits", f"{evidence.prefix_cache_hits:,} prompts were cached")
    if evidence.batches < FEW_BATCHES and work.passes < 2:
        noun = "batch" if evidence.batches == 1 else "batches"
        yield Found(
            "drift_not_assessable",
            f"{evidence.batches} {noun} and one pass; it takes {FEW_BATCHES} batches or two passes",
        )


def _stalls(work: ThroughputResult) -> Iterator[Found]:
    """Find that the work stood still: as its samples tell, or with all of the machine."""
    slept_s, stalled_s = work.suspended_s or 0.0, work.stalled_s or 0.0
    share = stalled_s / (work.window_s or 1.0)
    said = []
    if slept_s > SLEPT_S:
        said.append(f"the machine slept for {slept_s:.3g} s during the window")
    if stalled_s:
        of = f"{stalled_s:.3g} s of {work.window_s:.3g} s ({100 * share:.2g} %)"
        said.append(f"nothing came of the work for {of}")
    is_long = slept_s > SLEPT_S or share > STALLED_SHARE
    yield from _where("stalled" if is_long else "stalled_briefly", said)


def _of_the_energy(evidence: Evidence) -> Iterator[Found]:
    """Find that energy is not, or not all, what a meter read, and pass on what readings show."""
    if evidence.energy_asked and evidence.energy.kind == "unmeasurable":
        notes = "; ".join(evidence.energy.notes)
        yield Found("energy_unmeasurable", notes or "the energy source gave no figure")
    if evidence.no_source is not None:
        yield Found("no_energy_source", evidence.no_source)
    if evidence.energy_asked and evidence.energy.kind == "modelled":
        yield Found("modelled_energy", "energy of this window is modelled, at least in part")
    for flag in dict.fromkeys(evidence.energy.flags):
        if flag in FINDINGS and FINDINGS[flag].shows:
            yield Found(flag, FINDINGS[flag].shows)


def _of_the_devices(evidence: Evidence) -> Iterator[Found]:
    """Find what the devices themselves, their driver and their other users did to the window."""
    devices = evidence.energy.device_state
    for code, (event, least) in EVENTS.items():
        yield from _where(code, _seen(event, devices, least))
    # Into the limit they came with; one below it is a finding of its own.
    lowered = [
        one
        for one in devices
        if one.power_limit_w is not None
        and one.power_limit_default_w is not None
        and one.power_limit_w < one.power_limit_default_w - LIMIT_TOLERANCE_W
    ]
    uncapped = [one for one in devices if one not in lowered]
    yield from _where("power_limit_reached", _seen("power_cap", uncapped))
    yield from _where(
        "power_limit_lowered",
        (
            f"{one.device} is limited to {one.power_limit_w:g} W, by default "
            f"{one.power_limit_default_w:g} W"
            for one in lowered
        ),
    )
    yield from _where(
        "start_temperature",
        (
            f"{one.device} started at {one.start_c:g} °C, its reference is {wanted_c:g} °C"
            for one in devices
            if one.start_c is not None
            and (wanted_c := evidence.reference_c.get(one.device)) is not None
            and abs(one.start_c - wanted_c) > START_TOLERANCE_C
        ),
    )
    if off := [one.device for one in devices if one.persistence_mode is False]:
        yield Found("persistence_off", f"persistence mode is off on {', '.join(off)}")
    yield from _company(evidence)


def _company(evidence: Evidence) -> Iterator[Found]:
    """Find other processes that computed on the devices, or that nobody could say."""
    devices = evidence.energy.device_state
    yield from _where(
        "foreign_process",
        (
            f"{one.device}: process {', '.join(map(str, one.foreign_pids))}"
            for one in devices
            if one.foreign_pids
        ),
    )
    seen = {one.device for one in devices if one.foreign_pids is not None}
    at_work = evidence.target.gpu_uuids or tuple(one.device for one in devices)
    unseen = [uuid for uuid in at_work if uuid not in seen]
    if evidence.target.kind == "gpu" and not at_work:
        unseen = ["the GPU"]
    if unseen:
        yield Found("processes_unknown", f"processes of {', '.join(unseen)} cannot be seen")


def _where(code: str, said: Iterable[str]) -> Iterator[Found]:
    if text := "; ".join(said):
        yield Found(code, text)


def _seen(event: str, devices: Iterable[DeviceState], least: int = 1) -> Iterator[str]:
    for one in devices:
        count = one.clock_events.get(event, 0)
        if count >= least:
            yield f"{one.device}: in {count} of {max(one.state_samples, count)} samples"


def _of_the_halves(halves: PassComparison) -> Iterator[Found]:
    """Find that halves which did the same work differ in energy, or by 1 % in power or clock."""
    if halves.closes is False:
        yield Found(
            "closure_failed",
            f"{halves.first_j:.4g} J, then {halves.second_j:.4g} J for the same "
            f"{halves.passes_each} passes; {halves.allowed_j:.2g} J apart is allowed",
        )
    change, known_to = halves.power_change, halves.power_change_interval95 or 0.0
    if change is not None and abs(change) > max(DRIFT_SHARE, known_to):
        yield Found("power_drift", f"power changed by {change:+.1%}")
    if abs(halves.clock_change or 0.0) > DRIFT_SHARE:
        yield Found("clock_drift", f"the SM clock changed by {halves.clock_change:+.1%}")


def _of_the_baseline(baseline: BaselineResult) -> Iterator[Found]:
    """Find idle power that was on its way up or down while it was measured."""
    if baseline.device_idle_steady is False:
        yield Found("baseline_unsteady", "idle power drifted before the model was loaded")
    elif baseline.loaded_idle_steady is False:
        yield Found("baseline_unsteady", "idle power drifted with the model resident")
