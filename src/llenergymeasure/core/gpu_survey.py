"""List the GPUs that NVML sees, and the driver; a machine without any is no error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.units import MIB

T = TypeVar("T")


class GPUSurvey(NamedTuple):
    """What NVML says about a machine.

    Attributes:
        gpus: Every GPU it sees.
        note: Why there is none, or why some are missing.
        driver_version: Version of the NVIDIA driver.
        cuda_version: Newest CUDA version the driver supports.
    """

    gpus: tuple[GPUInfo, ...] = ()
    note: str | None = None
    driver_version: str | None = None
    cuda_version: str | None = None


def survey_gpus(nvml: Any = None) -> GPUSurvey:
    """Ask NVML for every GPU; where it does not answer, the note says why.

    Args:
        nvml: A module with the functions of ``pynvml``; by default that one.
    """
    try:
        with opened_nvml(nvml) as library:
            count, found, missing = library.nvmlDeviceGetCount(), [], []
            for index in range(count):
                try:
                    found.append(_gpu(library, index))
                except library.NVMLError as error:
                    missing.append(f"GPU {index}: {error}")
            driver = _ask(library, library.nvmlSystemGetDriverVersion)
            return GPUSurvey(
                gpus=tuple(found),
                note="; ".join(missing) or (None if count else "NVML sees no GPU"),
                driver_version=None if driver is None else text_of(driver),
                cuda_version=_cuda(_ask(library, library.nvmlSystemGetCudaDriverVersion_v2)),
            )
    except NVMLUnavailableError as error:
        return GPUSurvey(note=str(error))


class NVMLUnavailableError(LookupError):
    """NVML is not there, or refuses what it is asked; the cause is its own error."""


@contextlib.contextmanager
def opened_nvml(nvml: Any = None) -> Iterator[Any]:
    """Give NVML for the block.

    Args:
        nvml: A module with the functions of ``pynvml``; by default that one.

    Raises:
        NVMLUnavailableError: It is not available, or refuses what it is asked.
    """
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
        try:
            yield nvml
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        raise NVMLUnavailableError(f"NVML is not available: {error}") from error


def _gpu(nvml: Any, index: int) -> GPUInfo:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(function: Callable[..., T], *arguments: Any) -> T | None:
        return _ask(nvml, function, handle, *arguments)

    return GPUInfo(
        index=index,
        uuid=text_of(nvml.nvmlDeviceGetUUID(handle)),
        name=text_of(nvml.nvmlDeviceGetName(handle)),
        memory_mb=_scaled(getattr(ask(nvml.nvmlDeviceGetMemoryInfo), "total", None), MIB),
        power_limit_w=_scaled(ask(nvml.nvmlDeviceGetEnforcedPowerLimit), 1000),
        power_limit_default_w=_scaled(ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit), 1000),
        persistence_mode=_flag(ask(nvml.nvmlDeviceGetPersistenceMode)),
        ecc_mode=_flag(_first(ask(nvml.nvmlDeviceGetEccMode))),
        mig_mode=_flag(_first(ask(nvml.nvmlDeviceGetMigMode))),
        clock_sm_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        clock_sm_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        clock_memory_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
    )


def _ask(nvml: Any, function: Callable[..., T], *arguments: Any) -> T | None:
    """Call NVML; a quantity that this board or driver does not offer is ``None``."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


def _scaled(value: float | None, divisor: int) -> float | None:
    return None if value is None else value / divisor


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _first(pair: Any) -> Any:
    return None if pair is None else pair[0]  # current mode, then the one after a reboot


def text_of(value: str | bytes) -> str:
    """Read a name as NVML gives it; bytes, in older versions of ``pynvml``."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _cuda(number: int | None) -> str | None:
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"
