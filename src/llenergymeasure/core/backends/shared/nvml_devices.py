"""The GPUs that an engine runs on, as NVML knows them; no CUDA context is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import compute_dtype
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.backends.shared.problems import room_problems
from llenergymeasure.core.gpu_survey import opened_nvml, text_of
from llenergymeasure.core.visible_gpus import counted_uuids
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import Problem
from llenergymeasure.units import MIB

# Tensor cores of a generation: https://docs.nvidia.com/cuda/cuda-c-programming-guide/, "Compute
# Capabilities"; https://nvidia.github.io/TensorRT-LLM/reference/precision.html, "Hardware Support
# Matrix".
_CAPABILITY = {"fp8": ((8, 9), "Ada"), "bf16": ((8, 0), "Ampere")}


class Device(NamedTuple):
    """One GPU.

    Attributes:
        uuid: Its UUID.
        name: Product name.
        capability: CUDA compute capability, such as (8, 9); ``None`` where NVML does not tell.
    """

    uuid: str
    name: str
    capability: tuple[int, int] | None


ListDevices = Callable[[], tuple[Device, ...]]


class MemoryUse(NamedTuple):
    """Memory of several GPUs.

    Attributes:
        used_mb: Used on all of them together, MiB, by whomever.
        capacity_mb: What the smallest has, MiB.
    """

    used_mb: float
    capacity_mb: float


def visible_devices() -> tuple[Device, ...]:
    """List the GPUs that an engine counts, in its order (see :mod:`core.visible_gpus`).

    Raises:
        LookupError: There is none, or it cannot be told which ones.
    """
    with opened_nvml() as nvml:
        indices = range(nvml.nvmlDeviceGetCount())
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in indices]
        shown = {text_of(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
        wanted = counted_uuids(list(shown), os.environ)
        return tuple(_device(nvml, uuid, shown[uuid]) for uuid in wanted)


def memory_use(uuids: Sequence[str]) -> MemoryUse | None:
    """Read the memory of GPUs; ``None`` where NVML does not tell, or there are none."""
    try:
        with opened_nvml() as nvml:
            handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
            readings = [nvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
    except LookupError:
        return None
    if not readings:
        return None
    used = sum(int(reading.used) for reading in readings)
    return MemoryUse(used / MIB, min(int(reading.total) for reading in readings) / MIB)


class NvmlMemory:
    """Memory that an engine takes on its GPUs, as NVML shows it.

    Args:
        gpu_uuids: The GPUs.
        before: What was in use before it was loaded.
        read: Reads what is in use.
    """

    def __init__(
        self,
        gpu_uuids: tuple[str, ...],
        before: MemoryUse | None,
        read: Callable[[Sequence[str]], MemoryUse | None] = memory_use,
    ) -> None:
        self._gpu_uuids, self._before, self._read = gpu_uuids, before, read
        self._model_mb = self._taken_mb()
        self._peak_mb = self._model_mb

    def look(self) -> None:
        """Read once more."""
        known = [mb for mb in (self._peak_mb, self._taken_mb()) if mb is not None]
        self._peak_mb = max(known, default=None)

    def reading(self) -> MemoryReading:
        """Give the peak so far; the capacity is that of one GPU, the smallest."""
        if self._before is None or self._model_mb is None:
            return MemoryReading("none")
        return MemoryReading("device", self._peak_mb, self._model_mb, self._before.capacity_mb)

    def _taken_mb(self) -> float | None:
        now = self._read(self._gpu_uuids)
        if now is None or self._before is None:
            return None
        taken_mb = now.used_mb - self._before.used_mb
        return taken_mb if taken_mb > 0 else None  # others gave back more than we took


def gpu_target(config: ExperimentConfig) -> DeviceTarget:
    """Name the GPUs that will do the work, where they can be told: the first that it counts."""
    try:
        used = visible_devices()[: backend_entry(config.backend).shards(config.section)]
    except LookupError:
        used = ()
    return DeviceTarget("gpu", tuple(device.uuid for device in used))


def gpu_problems(
    config: ExperimentConfig,
    list_all: ListDevices,
    nothing: tuple[str, str],
    instead: Mapping[str, str],
) -> Iterator[Problem]:
    """Find what the GPUs cannot do.

    Args:
        config: What to measure.
        list_all: Lists those that can be seen.
        nothing: What to say where there is none, and what helps.
        instead: What to use where one does not compute in ``fp8``, or in ``bf16``.
    """
    facts = backend_entry(config.backend)
    wanted = facts.shards(config.section)
    try:
        used = list_all()[:wanted]
    except LookupError as error:
        what, remedy = nothing
        yield Problem(f"{what}: {error}", "backend", remedy, kind="hardware")
        return
    if len(used) < wanted:
        yield Problem(
            f"{wanted} GPUs are asked for ({' x '.join(facts.shard_fields)}), {len(used)} can be "
            "seen",
            f"{config.backend}.{facts.shard_fields[0]}",
            "lower one of the two, or check CUDA_VISIBLE_DEVICES",
            kind="hardware",
        )
    elif (memory := memory_use([device.uuid for device in used])) is not None:
        yield from room_problems(config, memory.capacity_mb, used[0].name, 1 / wanted)
    in_bf16 = compute_dtype(config.precision) == "bfloat16" and config.precision != "fp8"
    arithmetic = "bf16" if in_bf16 else config.precision
    needed, generation = _CAPABILITY.get(arithmetic, ((0, 0), ""))
    older = [each for each in used if each.capability and each.capability < needed]
    for device in older[:1]:
        major, minor = device.capability or needed
        yield Problem(
            f"{arithmetic} needs compute capability {needed[0]}.{needed[1]} ({generation}) or "
            f"newer; {device.name} has {major}.{minor}",
            "precision",
            instead[arithmetic],
            kind="hardware",
        )


def _device(nvml: Any, uuid: str, handle: Any) -> Device:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability: tuple[int, int] | None = (int(major), int(minor))
    except nvml.NVMLError:
        capability = None
    return Device(uuid, text_of(nvml.nvmlDeviceGetName(handle)), capability)
