"""What ``llem config`` shows: machine, backends, energy sources, settings, and what is next."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from llenergymeasure._version import __version__
from llenergymeasure.cli.calibration import calibrate_gpus, calibration_lines
from llenergymeasure.cli.failure import say, tell
from llenergymeasure.config.energy_sources import AUTO, FIELD, energy_sources
from llenergymeasure.config.experiment_fields import DEFAULT_BACKEND
from llenergymeasure.config.plugins import load_object, missing
from llenergymeasure.config.registry import BACKENDS, backend_names
from llenergymeasure.config.user_config import (
    EffectiveSettings,
    data_path,
    default_path,
    load_settings,
)
from llenergymeasure.core.energy import get_active_energy_backend
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.selection import source_type
from llenergymeasure.core.energy.stored import CALIBRATIONS, known_sensors
from llenergymeasure.core.environment import capture
from llenergymeasure.domain.environment import DeviceTarget, EnvironmentSnapshot
from llenergymeasure.exceptions import Problem
from llenergymeasure.orchestration import inventory
from llenergymeasure.orchestration.inventory import BackendState
from llenergymeasure.report import text
from llenergymeasure.report.format import WIDTH

if TYPE_CHECKING:
    from llenergymeasure.study.runners.protocol import Runner

_SETTING, _NAME = 38, 16
# Runners are imported once another place is asked, so that a machine without one is shown quickly.
_MAKE_RUNNER = "llenergymeasure.study.runners.pool:make_runner"
_HERE = ("local", f"python:{sys.executable}")


class Section(NamedTuple):
    """Part of what is shown.

    Attributes:
        title: What it is about; a place in brackets gets a line of its own if it is long.
        rows: Its lines, found when they are asked for.
    """

    title: str
    rows: Iterable[str]


def show(*, verbose: bool = False, calibrate: bool = False) -> None:
    """Print what is here.

    Args:
        verbose: Whether to list every installed package as well.
        calibrate: Whether to calibrate the energy sensors of every GPU first.

    Raises:
        PreFlightError: There is no GPU to calibrate.
        BackendError: A GPU cannot be driven or read, or another process uses it.
    """
    settings = load_settings()
    machine = capture()
    if calibrate:
        advanced = settings.config.advanced
        rates = SamplingRates(advanced.counter_poll_ms, advanced.power_poll_ms)
        calibrate_gpus(machine, data_path(), rates, _tell)
    sections = _sections(settings, machine, verbose=verbose)
    for number, section in enumerate(sections):
        title = section.title
        if len(title) > WIDTH:
            title = title.replace(" (", f"\n{text.MARGIN}(", 1)
        say(f"\n{title}" if number else title)
        for row in section.rows:
            say(f"{text.MARGIN}{row}")


def _tell(line: str) -> None:
    tell(f"calibration: {line}")


def _sections(
    settings: EffectiveSettings, machine: EnvironmentSnapshot, *, verbose: bool
) -> Iterator[Section]:
    """Yield what is shown; rows are found while they are shown, and slow places come last."""
    yield Section("machine", _machine(machine))
    yield Section("energy sources", _sources(settings, machine))
    yield Section(f"energy sensors ({data_path() / CALIBRATIONS})", _sensors(machine))
    yield Section(f"settings ({default_path()})", _settings(settings))
    if verbose:
        yield Section("packages", _packages(machine))
    yield Section("runners", runner_rows(settings))
    here = f"backends of this interpreter ({sys.executable})"
    yield Section(here, _found_here())
    places: dict[str, list[str]] = {}
    for name in backend_names():
        if (runner := settings.config.runner(name)) not in _HERE:
            places.setdefault(runner, []).append(name)
    for place, backends in places.items():
        yield Section(f"backends of {place}", rows_of(place, backends))
    yield Section("next", _next_steps(settings))


def _machine(machine: EnvironmentSnapshot) -> Iterator[str]:
    yield machine.os
    yield f"Python {machine.python_version}, llenergymeasure {__version__}"
    cpus = f"{machine.cpu_count_usable} of {machine.cpu_count} CPUs"
    if machine.cpu_quota is not None:
        cpus += f", a quota of {machine.cpu_quota:g} of them"
    yield f"{machine.cpu_model or 'unknown CPU'}, {cpus}"
    if machine.ram_mb is not None:
        yield f"{machine.ram_mb / 1024:.1f} GiB of memory"
    if machine.memory_limit_mb is not None:
        by = f"by {machine.memory_limit_by}"
        yield from text.beside(f"{machine.memory_limit_mb / 1024:.1f} GiB of it allowed", by)
    for gpu in machine.gpus:
        memory = "" if gpu.memory_mb is None else f", {gpu.memory_mb / 1024:.0f} GiB"
        yield from text.beside(f"GPU {gpu.index}:", f"{gpu.name}{memory}", gpu.uuid)
    if not machine.gpus:
        yield from text.beside("no GPU", machine.gpu_note or "NVML lists none")


def _sources(settings: EffectiveSettings, machine: EnvironmentSnapshot) -> Iterator[str]:
    targets = [DeviceTarget("cpu")]
    if machine.gpus:
        targets.append(DeviceTarget("gpu", tuple(gpu.uuid for gpu in machine.gpus)))
    for name, entry in energy_sources().items():
        source = source_type(entry)
        if isinstance(source, Problem):
            yield from text.beside(f"{name:11} no ", source.what, source.remedy)
            continue
        # One without a place in the order of auto says itself what it reads.
        read = [target for target in targets if target.kind in (entry.auto or (target.kind,))]
        for target in read:
            covered = source.coverage(target)
            answer = "yes" if covered.kind else "no "
            kind = f"{covered.kind}, " if covered.kind else ""
            remedy = [covered.remedy] if covered.remedy else []
            what = f"{target.kind}: {kind}{covered.scope}"
            yield from text.beside(f"{name:11} {answer}", what, *remedy)
        if not read:
            yield from text.beside(f"{name:11} no ", "it reads GPUs, and no GPU is seen")
    advanced = settings.config.advanced
    rates = SamplingRates(advanced.counter_poll_ms, advanced.power_poll_ms)
    for target in targets:
        chosen = get_active_energy_backend(AUTO, target, rates)
        yield from text.beside(f"{AUTO:11}  ->", f"{target.kind}: {chosen.name}")


def _sensors(machine: EnvironmentSnapshot) -> Iterator[str]:
    """Say of every GPU what is known of its sensors, and how to find out more."""
    known = known_sensors(data_path(), machine.driver_version)
    for gpu in machine.gpus:
        if gpu.uuid in known.knowledge:
            told = known.knowledge[gpu.uuid]
            lines = calibration_lines(told.counter, told.power)
            yield from text.beside(gpu.uuid, "calibrated", *lines)
        else:
            note = known.notes.get(gpu.uuid, "tick, lag and look of its sensors are not known")
            yield from text.beside(gpu.uuid, f"not calibrated: {note}", "llem config --calibrate")
    if not machine.gpus:
        yield "no GPU, so none to calibrate"


def _settings(settings: EffectiveSettings) -> Iterator[str]:
    for name, value, origin in settings.rows():
        if not name.startswith("runners."):
            shown = "null" if value is None else str(value)
            yield from text.setting(name, shown, named(origin), _SETTING)


def _found_here() -> Iterator[str]:
    for state in inventory.take().backends:
        yield from _row(state)


def _next_steps(settings: EffectiveSettings) -> Iterator[str]:
    steps = [
        ("llem run --model random:tiny-llama -n 20", "a first measurement, nothing to download"),
        ("llem run experiment.yaml --dry-run", "the plan of an experiment"),
    ]
    # Where nothing can be measured, a model of the hardware still tells something.
    modelled = [facts for facts in energy_sources().values() if facts.kind == "modelled"]
    absent = [missing(facts, FIELD) for facts in modelled]
    if settings.config.runner(DEFAULT_BACKEND) == "local":
        absent.insert(0, missing(BACKENDS[DEFAULT_BACKEND], "backend"))
    installs = [(problem.remedy, problem.what) for problem in absent if problem is not None]
    for command, purpose in installs + steps:
        yield command
        yield from text.beside("", purpose)


def _packages(machine: EnvironmentSnapshot) -> Iterator[str]:
    for name, version in sorted(machine.packages.items()):
        yield f"{name:{_SETTING}} {version}"


def named(origin: str) -> str:
    """Name where a setting came from; the user's own file, which is named above, by its name."""
    return default_path().name if origin == str(default_path()) else origin


def runner_rows(settings: EffectiveSettings) -> Iterator[str]:
    """Say of every backend where it runs, and who says so."""
    for name in backend_names():
        origin = settings.origins.get(f"runners.{name}", "default")
        yield from text.setting(name, settings.config.runner(name), named(origin), _NAME)


def rows_of(place: str, backends: Sequence[str]) -> Iterator[str]:
    """Say what another place has of the backends that run there, and what else it has.

    Args:
        place: A runner, which is asked.
        backends: The backends that run there.
    """
    runner: Runner = load_object(_MAKE_RUNNER)(place, backends[0])
    with closing(runner):
        found = runner.inventory()
    first, *others = backends
    if isinstance(found, Problem):
        yield from _absent(first, found)
        for name in others:
            yield from text.beside(_head(name, "no"), f"as {first}")
        return
    states = {state.name: state for state in found.backends}
    for name in backends:
        if name in states:
            yield from _row(states[name])
        else:
            what = f"no package there adds a backend '{name}'"
            yield from _absent(name, Problem(what, place, "install the one that adds it here"))
    for state in found.backends:
        if state.name not in backends and state.package and state.problem is None:
            yield from _row(state)


def _row(state: BackendState) -> Iterator[str]:
    place = [f"in {state.folder}"] if state.folder else []
    if state.problem is not None:
        return _absent(state.name, state.problem, *place)
    packages = ((state.package, state.version), *state.also)
    versions = ", ".join(f"{name} {version}" for name, version in packages)
    return text.beside(_head(state.name, "yes"), versions if state.package else "built in", *place)


def _absent(name: str, problem: Problem, *place: str) -> Iterator[str]:
    """Say why a backend is not there, and what mends it: a line of pip whole, so as to copy it."""
    yield from text.beside(_head(name, "no"), problem.what, *place)
    is_a_line = problem.remedy.startswith("pip ") or " -m pip " in problem.remedy
    yield from text.command(problem.remedy) if is_a_line else text.beside("", problem.remedy)


def _head(name: str, answer: str) -> str:
    return f"{name:11} {answer:3}"
