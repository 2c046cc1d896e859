"""``llem config --calibrate``: calibrate the sensors of every GPU, one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from llenergymeasure.core.energy.calibration import (
    WHERE,
    Device,
    LoadGenerator,
    Script,
    TorchLoad,
    calibrate,
    make_script,
)
from llenergymeasure.core.energy.estimation.sensor import Calibration
from llenergymeasure.core.energy.nvml import NVMLSource
from llenergymeasure.core.energy.protocol import EnergyBackend, SamplingRates
from llenergymeasure.core.energy.stored import keep
from llenergymeasure.domain.environment import DeviceTarget, EnvironmentSnapshot
from llenergymeasure.exceptions import PreFlightError, Problem
from llenergymeasure.orchestration import device_lock

MakeLoad = Callable[[str], LoadGenerator]
MakeSource = Callable[[DeviceTarget, SamplingRates], EnergyBackend]


def calibrate_gpus(  # noqa: PLR0913 - what it works with is given by name
    machine: EnvironmentSnapshot,
    directory: Path,
    rates: SamplingRates,
    tell: Callable[[str], None],
    *,
    make_load: MakeLoad = TorchLoad,
    make_source: MakeSource = NVMLSource,
    script: Script | None = None,
) -> None:
    """Calibrate every GPU and keep what was learned.

    Holds the lock of a device meanwhile, so that no experiment runs there; waits for one that does.

    Args:
        machine: What is here.
        directory: The user's data directory.
        rates: How often to read.
        tell: Takes lines to show meanwhile.
        make_load: Makes what drives a GPU, by UUID.
        make_source: Makes what reads it.
        script: The bursts; by default drawn for each GPU.

    Raises:
        PreFlightError: There is no GPU, or its driver is not known.
        BackendError: A GPU cannot be driven or read, or another process uses it.
        ExperimentError: The lock files cannot be used.
        OSError: What was learned cannot be kept.
    """
    if not machine.gpus or machine.driver_version is None:
        why = machine.gpu_note or "NVML lists none"
        what = f"there is no GPU whose sensors could be calibrated ({why})"
        raise PreFlightError([Problem(what, WHERE, "check nvidia-smi -L; RAPL needs none")])
    for gpu in machine.gpus:
        target = DeviceTarget("gpu", (gpu.uuid,))
        device = Device(gpu.uuid, machine.driver_version)
        played = script or make_script(random.Random())
        with device_lock.held(target, tell):
            tell(f"{gpu.name}, {gpu.uuid}: takes {played.seconds:.0f} s; leave it alone meanwhile")
            source = make_source(target, rates)
            with closing(make_load(gpu.uuid)) as load:
                learned = calibrate(device, source, load, played)
        stored = learned.stored
        for line in (*learned.notes, *calibration_lines(stored.counter, stored.power)):
            tell(line)
        tell(f"kept in {keep(directory, stored)}")


def calibration_lines(counter: Calibration | None, power: Calibration | None) -> Iterator[str]:
    """Say in words what is known of a device's sensors."""
    for name, sensor in (("counter", counter), ("power", power)):
        if sensor is not None:
            yield f"{name}: {', '.join(_told(sensor))}"


def _told(sensor: Calibration) -> Iterator[str]:
    if sensor.tick_s is not None:
        yield f"tick {sensor.tick_s * 1e3:.3g} ms"
    yield f"lag {sensor.lag_s * 1e3:.0f} ms"
    if sensor.fully_integrating:
        yield "counts every moment"
    elif sensor.look_share is not None:
        yield f"looks at {100 * sensor.look_share:.0f} % of each tick"
    else:
        yield "may look at a part of each tick"
