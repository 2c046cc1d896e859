"""``llem config``: this machine, its backends, energy sources and settings, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from llenergymeasure._version import __version__
from llenergymeasure.cli.calibration import calibrate_gpus, calibration_lines
from llenergymeasure.config.registry import (
    BACKENDS,
    ENERGY_SOURCES,
    backend_names,
    installed_package,
    load_object,
    missing,
    plugin_backends,
)
from llenergymeasure.config.user_config import (
    EffectiveSettings,
    data_path,
    default_path,
    load_settings,
)
from llenergymeasure.core.energy.calibration_store import FILE, known_sensors
from llenergymeasure.core.energy.protocol import EnergySourceType, SamplingRates
from llenergymeasure.core.environment import capture
from llenergymeasure.domain.environment import EnvironmentSnapshot
from llenergymeasure.domain.target import DeviceTarget

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def config(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also list every installed package.")
    ] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="First calibrate the energy sensors of every GPU (about 80 s each, with load).",
        ),
    ] = False,
) -> None:
    """Show this machine, its backends, energy sources and settings, and what to do next."""
    settings = load_settings()
    machine = capture(llenergymeasure_version=__version__)
    if calibrate:
        advanced = settings.config.advanced
        rates = SamplingRates(advanced.counter_poll_ms, advanced.power_poll_ms)
        for line in calibrate_gpus(machine, data_path(), rates):
            typer.echo(f"calibration: {line}", err=True)
    sections = {
        "machine": _machine(machine),
        "backends": _backends(),
        "energy sources": _sources(machine),
        f"energy sensors ({data_path() / FILE})": _sensors(machine),
        "runners": _runners(settings),
        f"settings ({default_path()})": _settings(settings),
        "next": _next_steps(),
    }
    if verbose:
        sections["packages"] = _packages(machine)
    blocks = (
        f"{title}\n" + "\n".join(f"  {row}" for row in rows) for title, rows in sections.items()
    )
    typer.echo("\n\n".join(blocks))


def _machine(machine: EnvironmentSnapshot) -> Iterator[str]:
    yield f"{machine.os}, Python {machine.python_version}, llenergymeasure {__version__}"
    cpus = f"{machine.cpu_count_usable} of {machine.cpu_count} CPUs"
    yield f"{machine.cpu_model or 'unknown CPU'}, {cpus}"
    if machine.ram_mb is not None:
        yield f"{machine.ram_mb / 1024:.1f} GiB of memory"
    for gpu in machine.gpus:
        memory = "" if gpu.memory_mb is None else f", {gpu.memory_mb / 1024:.0f} GiB"
        yield f"GPU {gpu.index}: {gpu.name}{memory}, {gpu.uuid}"
    if not machine.gpus:
        yield f"no GPU ({machine.gpu_note or 'NVML lists none'})"


def _backends() -> Iterator[str]:
    for name, entry in {**BACKENDS, **plugin_backends()}.items():
        problem = missing(entry, "backend")
        if problem is not None:
            yield f"{name:11} no   {problem.what}"
            yield f"{'':17}{problem.remedy}"
        else:
            found = installed_package(entry)
            yield f"{name:11} yes  {f'{found.name} {found.version}' if found else 'built in'}"


def _sources(machine: EnvironmentSnapshot) -> Iterator[str]:
    targets = [DeviceTarget("cpu")]
    if machine.gpus:
        targets.append(DeviceTarget("gpu", tuple(gpu.uuid for gpu in machine.gpus)))
    for name, entry in ENERGY_SOURCES.items():
        problem = missing(entry, "energy_backend")
        if problem is not None:
            yield f"{name:11} no   {problem.what}"
            yield f"{'':17}{problem.remedy}"
            continue
        source: EnergySourceType = load_object(entry.implementation)
        for target in targets:
            covered = source.coverage(target)
            answer = "yes" if covered.kind else "no "
            kind = f"{covered.kind}, " if covered.kind else ""
            yield f"{name:11} {answer}  {target.kind}: {kind}{covered.scope}"
            if covered.remedy:
                yield f"{'':17}{covered.remedy}"


def _sensors(machine: EnvironmentSnapshot) -> Iterator[str]:
    """Say of every GPU what is known of its sensors, and how to find out more."""
    known = known_sensors(data_path(), machine.driver_version)
    for gpu in machine.gpus:
        if gpu.uuid in known.knowledge:
            yield f"{gpu.uuid}  calibrated"
            told = known.knowledge[gpu.uuid]
            yield from (f"{'':17}{line}" for line in calibration_lines(told.counter, told.power))
        else:
            note = known.notes.get(gpu.uuid, "tick, lag and look of its sensors are not known")
            yield f"{gpu.uuid}  not calibrated: {note}"
            yield f"{'':17}llem config --calibrate"
    if not machine.gpus:
        yield "no GPU, so none to calibrate"


def _runners(settings: EffectiveSettings) -> Iterator[str]:
    for name in backend_names():
        origin = settings.origins.get(f"runners.{name}", "default")
        yield f"{name:38} {settings.config.runner(name):24} {origin}"


def _settings(settings: EffectiveSettings) -> Iterator[str]:
    for name, value, origin in settings.rows():
        if name.startswith("runners."):
            continue
        shown = "null" if value is None else str(value)
        yield f"{name:38} {shown:24} {origin}"


def _next_steps() -> Iterator[str]:
    for problem in (
        missing(BACKENDS["pytorch"], "backend"),
        missing(ENERGY_SOURCES["codecarbon"], "energy_backend"),
    ):
        if problem is not None:
            yield f"{problem.remedy:42}  {problem.what}"
    yield "llem run --model random:tiny-llama -n 20    a first measurement, nothing to download"
    yield "llem run experiment.yaml --dry-run          the plan of an experiment"


def _packages(machine: EnvironmentSnapshot) -> Iterator[str]:
    for name, version in sorted(machine.packages.items()):
        yield f"{name:38} {version}"
