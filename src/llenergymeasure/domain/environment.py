"""What an experiment ran on, and what the devices did meanwhile; ``None`` where unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from llenergymeasure.domain import Record


@dataclass(frozen=True, slots=True)
class DeviceTarget:
    """The devices whose energy is the energy of the experiment.

    Attributes:
        kind: ``gpu`` or ``cpu``.
        gpu_uuids: The GPUs by UUID; empty for work on a CPU, or when they cannot be told.
    """

    kind: Literal["cpu", "gpu"]
    gpu_uuids: tuple[str, ...] = ()


class GPUInfo(Record):
    """One GPU."""

    index: int = Field(description="NVML index; it may differ from the CUDA index.")
    uuid: str = Field(description="Stable identifier of the board.")
    name: str = Field(description="Product name.")
    memory_mb: float | None = Field(None, description="Memory, MiB.")
    power_limit_w: float | None = Field(None, description="Enforced power limit, W.")
    power_limit_default_w: float | None = Field(None, description="Default power limit, W.")
    persistence_mode: bool | None = Field(None, description="Whether the driver stays loaded.")
    ecc_mode: bool | None = Field(None, description="Whether error correction is on.")
    mig_mode: bool | None = Field(None, description="Whether the board is split into MIG slices.")
    clock_sm_mhz: int | None = Field(None, description="SM clock at the time, MHz.")
    clock_sm_max_mhz: int | None = Field(None, description="Highest SM clock, MHz.")
    clock_memory_mhz: int | None = Field(None, description="Memory clock at the time, MHz.")


class EnvironmentSnapshot(Record):
    """The machine and the software of one experiment, captured at its start."""

    captured_at: str = Field(description="Wall-clock time, ISO 8601 with offset.")
    python_version: str = Field(description="Version of the interpreter.")
    os: str = Field(description="Operating system and kernel.")
    cpu_model: str | None = Field(None, description="CPU as the kernel names it.")
    cpu_count: int | None = Field(None, description="Logical CPUs of the machine.")
    cpu_count_usable: int | None = Field(None, description="Logical CPUs this process may use.")
    cpu_quota: float | None = Field(
        None, description="CPU time a container or a job may take, in CPUs; null without a quota."
    )
    ram_mb: float | None = Field(None, description="Memory of the machine, MiB.")
    memory_limit_mb: float | None = Field(
        None, description="Memory allowed, where that is less than the machine has, MiB."
    )
    memory_limit_by: str | None = Field(None, description="What sets that limit.")
    gpus: tuple[GPUInfo, ...] = Field((), description="GPUs that NVML sees.")
    gpu_note: str | None = Field(None, description="Why no GPU is listed, where that is known.")
    driver_version: str | None = Field(None, description="NVIDIA driver.")
    cuda_version: str | None = Field(None, description="Newest CUDA version the driver supports.")
    engine_versions: dict[str, str] = Field({}, description="Inference engines installed.")
    llenergymeasure_version: str = Field(description="Version of this package.")
    git_commit: str | None = Field(None, description="Commit of the checkout it runs from.")
    packages: dict[str, str] = Field({}, description="Every installed distribution.")
    container_image: str | None = Field(None, description="Digest of the container image.")
    carbon_intensity_gco2_kwh: float | None = Field(None, description="Carbon intensity in force.")
    carbon_intensity_source: str | None = Field(None, description="Where that figure came from.")
    datacenter_pue: float = Field(1.0, description="Power usage effectiveness in force.")
    datacenter_pue_source: str = Field("default", description="Where that figure came from.")


# NVML's clock-event reasons (nvml.h, nvmlClocksEventReason*); idle and the like are left out.
CLOCK_EVENTS: dict[int, str] = {
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
}


class DeviceState(Record):
    """State of one device over the window; null where it could not be read."""

    device: str = Field(description="The device by UUID.")
    start_c: float | None = Field(None, description="Temperature at t0, degrees Celsius.")
    end_c: float | None = Field(None, description="Temperature at t1, degrees Celsius.")
    clock_sm_mhz: float | None = Field(None, description="Mean SM clock over the window, MHz.")
    state_samples: int = Field(0, description="Samples of clock-event reasons in the window.")
    clock_events: dict[str, int] = Field(
        {},
        description="Samples in the window in which each clock-event reason was set: power_cap, "
        "hardware_slowdown, software_thermal, hardware_thermal, power_brake.",
    )
    power_limit_w: float | None = Field(None, description="Enforced power limit, W.")
    power_limit_default_w: float | None = Field(None, description="Default power limit, W.")
    persistence_mode: bool | None = Field(None, description="Whether the driver stays loaded.")
    foreign_pids: tuple[int, ...] | None = Field(
        None,
        description="Other processes that computed on it in the window; null where processes "
        "cannot be seen.",
    )


def count_events(bits: Iterable[int]) -> dict[str, int]:
    """Count in how many samples of clock-event reasons each of :data:`CLOCK_EVENTS` was set."""
    samples = list(bits)
    counts = {name: sum(bool(seen & bit) for seen in samples) for bit, name in CLOCK_EVENTS.items()}
    return {name: count for name, count in counts.items() if count}
