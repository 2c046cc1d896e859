"""The choice of the one energy source of an experiment, and the reason for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from llenergymeasure.config.energy_sources import (
    AUTO,
    FIELD,
    EnergySourceFacts,
    auto_order,
    energy_sources,
)
from llenergymeasure.config.plugins import load_object, missing
from llenergymeasure.core.energy.estimator import Knowledge
from llenergymeasure.core.energy.protocol import (
    Coverage,
    EnergyBackend,
    EnergySourceType,
    SamplingRates,
)
from llenergymeasure.core.energy.stored import KnownSensors
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import PreFlightError, Problem


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
    name: str,
    target: DeviceTarget,
    rates: SamplingRates,
    sources: Mapping[str, EnergySourceFacts] | None = None,
    known: Callable[[], KnownSensors] = KnownSensors,
) -> Selection:
    """Choose the one source that reads energy for an experiment.

    ``auto`` takes the first of its order that can tell something of the devices; a source asked
    for by name is taken or refused, never replaced.

    Args:
        name: ``auto``, or the name of a source.
        target: The devices that do the work.
        rates: How often to read.
        sources: The table of sources; by default all there are.
        known: Gives calibrations of sensors; asked for sources that can use them.

    Raises:
        PreFlightError: The source asked for cannot be used here.
    """
    sources = energy_sources() if sources is None else sources
    if name != AUTO:
        problems = energy_problems(name, target, sources)
        if problems:
            raise PreFlightError(problems)
        return _select(target, rates, sources[name], f"{name} was asked for", known)
    passed_over = []
    for candidate in auto_order(target.kind, sources):
        problem = _problem(sources[candidate], target)
        if problem is None:
            break
        passed_over.append(problem.what)
    reason = "; ".join([*passed_over, f"{candidate} is used"])
    return _select(target, rates, sources[candidate], f"{AUTO}: {reason}", known)


def energy_problems(
    name: str, target: DeviceTarget, sources: Mapping[str, EnergySourceFacts] | None = None
) -> list[Problem]:
    """List why a source cannot be used for these devices; ``auto`` always finds one."""
    if name == AUTO:
        return []
    facts = (energy_sources() if sources is None else sources).get(name)
    if facts is None:
        what = f"there is no energy source '{name}' here"
        return [Problem(what, FIELD, f"install the package that adds it, or set {FIELD}: {AUTO}")]
    problem = _problem(facts, target)
    return [] if problem is None else [problem]


def source_type(facts: EnergySourceFacts) -> EnergySourceType | Problem:
    """Import a source, or say why it cannot be used of whatever devices."""
    problem = missing(facts, FIELD)
    if problem is not None:
        return problem
    try:
        source: EnergySourceType = load_object(facts.implementation)
    except (ImportError, AttributeError) as error:  # of another package, which may be broken
        remedy = f"mend or remove the package that adds it, or set {FIELD}: {AUTO}"
        return Problem(f"'{facts.name}' cannot be imported: {error}", FIELD, remedy)
    return source


def _problem(facts: EnergySourceFacts, target: DeviceTarget) -> Problem | None:
    source = source_type(facts)
    if isinstance(source, Problem):
        return source
    coverage = source.coverage(target)
    if coverage.kind is not None:
        return None
    return Problem(coverage.scope, FIELD, coverage.remedy or f"set {FIELD}: {AUTO}")


def _select(
    target: DeviceTarget,
    rates: SamplingRates,
    facts: EnergySourceFacts,
    why: str,
    known: Callable[[], KnownSensors],
) -> Selection:
    make = load_object(facts.implementation)
    plain: EnergySourceType = make
    coverage = plain.coverage(target)
    reason = f"{why}: {coverage.kind}, {coverage.scope}"
    sensors = known() if facts.calibrated else KnownSensors()
    if not (sensors.knowledge or sensors.notes):
        return Selection(plain(target, rates), facts.name, reason, coverage)
    notes = [sensors.notes[uuid] for uuid in target.gpu_uuids if uuid in sensors.notes]
    calibrated: CalibratedSourceType = make
    source = calibrated(target, rates, knowledge=sensors.knowledge)
    return Selection(source, facts.name, "; ".join([reason, *notes]), coverage)
