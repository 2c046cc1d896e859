"""From readings of a counter or of power to a recording: the same for every such source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from llenergymeasure.core.energy.estimation.readings import CounterReadings, PowerReadings
from llenergymeasure.core.energy.estimator import EnergyEstimate, sum_devices
from llenergymeasure.core.energy.sampler import Recorded
from llenergymeasure.domain.energy import BudgetEntry, EnergyComponent, EnergyRecording, Reading
from llenergymeasure.domain.warnings import FINDINGS

_READ = {
    "counter": "energy counter",
    "power": "integrated power readings",
    "average_power": "integrated power readings, each a mean over a second",
}


def counter_readings(
    readings: Iterable[Reading], channel: str, device: str, unit_j: float
) -> CounterReadings | None:
    """Gather what one counter said, or ``None`` where it said nothing."""
    before_ns, after_ns, value = _columns(readings, channel, device)
    if not len(value):
        return None
    # A count below 2**53 is whole in a double, so rounding only changes the type.
    return CounterReadings(before_ns, after_ns, np.rint(value).astype(np.int64), unit_j)


def power_readings(readings: Iterable[Reading], channel: str, device: str) -> PowerReadings | None:
    """Gather what one power sensor said in watts, or ``None`` where it said nothing."""
    before_ns, after_ns, value = _columns(readings, channel, device)
    return PowerReadings(before_ns, after_ns, value) if len(value) else None


def record_devices(
    source: str,
    recorded: Recorded,
    estimates: Mapping[str, EnergyEstimate],
    *,
    reasons: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> EnergyRecording:
    """Make a recording of the devices that did the work, all of them in scope.

    A figure whose interval is too wide alone still counts where the sum is measured: a device
    that idles beside busy ones has a wide interval and little energy.

    Args:
        source: Name of the source.
        recorded: What its sampler recorded.
        estimates: Energy of each device by its name.
        reasons: Why a device has no figure, where the source knows better than its readings.
        notes: What else a reader of the result should know.
    """
    total = sum_devices(list(estimates.values())) if estimates else None
    measured = total is not None and total.kind == "measured"
    components = tuple(
        component(name, estimate, source, accepted=measured) for name, estimate in estimates.items()
    )
    said = reasons or {}
    found = [f"{name}: {reason}" for name, reason in said.items()]
    for name, estimate in estimates.items():
        found += () if name in said else findings(name, estimate)
    return EnergyRecording(
        source=source,
        components=components,
        interval_j=total.interval95_j if total is not None and measured else None,
        readings=recorded.readings,
        cost=recorded.cost,
        notes=(*found, *notes),
        flags=tuple(dict.fromkeys(flag for one in estimates.values() for flag in one.flags)),
    )


def component(
    name: str, estimate: EnergyEstimate, source: str, *, accepted: bool = False
) -> EnergyComponent:
    """Label one device's figure; without one that can be stood by, it is unknown.

    Args:
        name: The device.
        estimate: Its energy.
        source: Name of the source.
        accepted: Take the figure however wide its own interval is.
    """
    known = estimate.energy_j is not None and (accepted or estimate.kind == "measured")
    return EnergyComponent(
        name=name,
        energy_j=estimate.energy_j if known else None,
        kind="measured" if known else "unmeasurable",
        method=f"{source}: {_READ.get(estimate.source, 'nothing')}",
        in_scope=True,
        interval95_j=estimate.interval95_j if known else None,
        tick_ms=_ms(estimate.tick_s),
        jitter_ms=_ms(estimate.jitter_s),
        start_edge=estimate.start,
        end_edge=estimate.end,
        counter_over_power=estimate.counter_over_power,
        budget=tuple(BudgetEntry(name=x.name, standard_j=x.standard_j) for x in estimate.budget),
    )


def findings(name: str, estimate: EnergyEstimate) -> Iterator[str]:
    """Say in words what was found about one device's figure."""
    for flag in estimate.flags:
        yield f"{name}: {FINDINGS[flag].shows if flag in FINDINGS else flag}"
    if estimate.energy_j is None:
        if "counter_reset" not in estimate.flags:
            yield f"{name}: what was read of it tells no energy"
    elif estimate.kind == "unmeasurable":
        yield f"{name}: {_too_wide(estimate)}"


def _columns(readings: Iterable[Reading], channel: str, device: str) -> tuple[np.ndarray, ...]:
    rows = [r for r in readings if r.channel == channel and r.device == device]
    return (
        np.array([row.before_ns for row in rows], dtype=np.int64),
        np.array([row.after_ns for row in rows], dtype=np.int64),
        np.array([row.value for row in rows], dtype=np.float64),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _too_wide(estimate: EnergyEstimate) -> str:
    assert estimate.energy_j is not None
    assert estimate.interval95_j is not None
    share = estimate.interval95_j / estimate.energy_j
    said = f"{estimate.energy_j:.3g} J with an interval of {share:.0%} is no measurement"
    if estimate.shortest_window_s is None:
        return said
    return f"{said}; a window of {estimate.shortest_window_s:.2g} s would do"
