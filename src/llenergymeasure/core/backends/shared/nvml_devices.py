"""The GPUs that an engine runs on, as NVML knows them; no CUDA context is made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llenergymeasure.core.visible_gpus import counted_uuids
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
    with _nvml() as nvml:
        indices = range(nvml.nvmlDeviceGetCount())
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in indices]
        shown = {_text(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
        wanted = counted_uuids(list(shown), os.environ)
        return tuple(_device(nvml, uuid, shown[uuid]) for uuid in wanted)


def memory_use(uuids: Sequence[str]) -> MemoryUse | None:
    """Read the memory of GPUs; ``None`` where NVML does not tell, or there are none."""
    try:
        with _nvml() as nvml:
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


def capability_problems(
    arithmetic: str, devices: Sequence[Device], remedy: str
) -> Iterator[Problem]:
    """Refuse a precision that a GPU does not compute in.

    Args:
        arithmetic: The precision.
        devices: The GPUs that will work.
        remedy: What to use in its place.
    """
    needed, generation = _CAPABILITY.get(arithmetic, ((0, 0), ""))
    for device in devices:
        if device.capability is not None and device.capability < needed:
            yield Problem(
                f"{arithmetic} needs compute capability {needed[0]}.{needed[1]} ({generation}) or "
                f"newer; {device.name} has {device.capability[0]}.{device.capability[1]}",
                "precision",
                remedy,
                kind="hardware",
            )
            return


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """Give NVML for the block; whatever it refuses is a ``LookupError``."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise LookupError(f"NVML is not available: {error}") from error


def _device(nvml: Any, uuid: str, handle: Any) -> Device:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability: tuple[int, int] | None = (int(major), int(minor))
    except nvml.NVMLError:
        capability = None
    return Device(uuid, _text(nvml.nvmlDeviceGetName(handle)), capability)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
