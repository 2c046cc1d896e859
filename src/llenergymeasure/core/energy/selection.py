"""The choice of the one energy source of an experiment, and the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from llenergymeasure.config.models import EnergyBackendName
from llenergymeasure.config.plugins import PluginEntry, load_object, missing
from llenergymeasure.config.registry import ENERGY_SOURCES
from llenergymeasure.core.energy.estimator import Knowledge
from llenergymeasure.core.energy.protocol import (
    Coverage,
    EnergyBackend,
    EnergySourceType,
    SamplingRates,
)
from llenergymeasure.core.energy.stored import KnownSensors
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.exceptions import PreFlightError, Problem

FIELD = "energy_backend"

# Measured before modelled; Zeus before NVML, because both must never read at once.
AUTO_ORDER: dict[str, tuple[str, ...]] = {
    "gpu": ("zeus", "nvml", "codecarbon", "none"),
    "cpu": ("rapl", "codecarbon", "none"),
}

# Their sources read a device's own sensors, which a calibration speaks of.
CALIBRATED = frozenset({"nvml", "zeus"})
NOTHING_KNOWN = KnownSensors()


class CalibratedSourceType(EnergySourceType, Protocol):
    """A source that can be told what is known of its devices' sensors."""

    def __call__(
        self,
        target: DeviceTarget,
        rates: SamplingRates,
        *,
        knowledge: Mapping[str, Knowledge] | None = None,
    ) -> EnergyBackend:
        """Make the source for these devices, with what is known of them by UUID."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """The energy source of an experiment.

    Attributes:
        source: The source, not yet started.
        name: What a configuration calls it.
        reason: Why this one, in a sentence.
        coverage: What its total covers.
    """

    source: EnergyBackend
    name: str
    reason: str
    coverage: Coverage


def get_active_energy_backend(
    name: EnergyBackendName,
    target: DeviceTarget,
    rates: SamplingRates,
    sources: Mapping[str, PluginEntry] = ENERGY_SOURCES,
    known: KnownSensors = NOTHING_KNOWN,
) -> Selection:
    """Choose the one source that reads energy for an experiment.

    ``auto`` takes the first of :data:`AUTO_ORDER` that can tell something of the devices; a source
    asked for by name is taken or refused, never replaced.

    Args:
        name: ``auto``, or the name of a source.
        target: The devices that do the work.
        rates: How often to read.
        sources: The table of sources.
        known: Calibrations of sensors, for the sources that can use them.

    Raises:
        PreFlightError: The source asked for cannot be used here.
    """
    if name != "auto":
        problems = energy_problems(name, target, sources)
        if problems:
            raise PreFlightError(problems)
        return _select(target, rates, sources[name], f"{name} was asked for", known)
    passed_over = []
    for candidate in AUTO_ORDER[target.kind]:
        problem = _problem(candidate, target, sources)
        if problem is None:
            break
        passed_over.append(problem.what)
    reason = "; ".join([*passed_over, f"{candidate} is used"])
    return _select(target, rates, sources[candidate], f"auto: {reason}", known)


def energy_problems(
    name: EnergyBackendName,
    target: DeviceTarget,
    sources: Mapping[str, PluginEntry] = ENERGY_SOURCES,
) -> list[Problem]:
    """List why a source cannot be used for these devices; ``auto`` always finds one."""
    problem = None if name == "auto" else _problem(name, target, sources)
    return [] if problem is None else [problem]


def _problem(name: str, target: DeviceTarget, sources: Mapping[str, PluginEntry]) -> Problem | None:
    problem = missing(sources[name], FIELD)
    if problem is not None:
        return problem
    coverage = _type(sources[name]).coverage(target)
    if coverage.kind is not None:
        return None
    return Problem(coverage.scope, FIELD, coverage.remedy or f"set {FIELD}: auto")


def _type(entry: PluginEntry) -> EnergySourceType:
    source: EnergySourceType = load_object(entry.implementation)
    return source


def _select(
    target: DeviceTarget,
    rates: SamplingRates,
    entry: PluginEntry,
    why: str,
    known: KnownSensors,
) -> Selection:
    coverage = _type(entry).coverage(target)
    reason = f"{why}: {coverage.kind}, {coverage.scope}"
    if entry.name not in CALIBRATED or not (known.knowledge or known.notes):
        return Selection(_type(entry)(target, rates), entry.name, reason, coverage)
    notes = [known.notes[uuid] for uuid in target.gpu_uuids if uuid in known.notes]
    source = _calibrated_type(entry)(target, rates, knowledge=known.knowledge)
    return Selection(source, entry.name, "; ".join([reason, *notes]), coverage)


def _calibrated_type(entry: PluginEntry) -> CalibratedSourceType:
    source: CalibratedSourceType = load_object(entry.implementation)
    return source
