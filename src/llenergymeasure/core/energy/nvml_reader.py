"""NVML inside the sampling process: energy and power of GPUs, and the state they are in.

What NVML says (nvml.h): the energy counter is there on Volta and newer; field 186 is instantaneous
power and field 185 its mean over a second; ``nvmlDeviceGetPowerUsage`` is such a mean on Ampere
and newer, except on GA100, and instantaneous before. Its indices are not CUDA's, so devices are
found by UUID. Where the driver is not persistent, counters start again once its last client is
gone: this process stays a client from its start to its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, NamedTuple

from llenergymeasure.core.energy.nvml_processes import ProcessWatch
from llenergymeasure.core.energy.sampling_child import Row
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.units import MW_PER_W

COUNTER = "gpu_energy_mj"
POWER = "gpu_power_w"
AVERAGE_POWER = "gpu_average_power_w"
TEMPERATURE = "gpu_temperature_c"
SM_CLOCK = "gpu_sm_clock_mhz"
MEMORY_CLOCK = "gpu_memory_clock_mhz"
CLOCK_EVENTS = "gpu_clock_event_bits"
POWER_LIMIT = "gpu_power_limit_w"
DEFAULT_POWER_LIMIT = "gpu_power_limit_default_w"
PERSISTENCE = "gpu_persistence_mode"
PROCESSES = "gpu_process_count"

SLOW_POLL_S = 0.25  # within the guard on either side of a window at least once
GA100 = (8, 0)  # compute capability of the one Ampere chip that averages nothing

Read = Callable[[], float]


class Quantity(NamedTuple):
    """One thing that is read of one device.

    Attributes:
        channel: What it is, with its unit.
        uuid: Whose it is.
        read: Reads it in that unit.
    """

    channel: str
    uuid: str
    read: Read


class NVMLReader:
    """Reads counters at every poll, power and clocks at some, heat, limits and processes at few.

    Args:
        uuids: The GPUs to read; none named means those that CUDA would see.
        counter_poll_s: Time between polls of the counters.
        power_poll_s: Time between polls of power, rounded to a multiple of the other.
        owner_pid: The experiment's process; by default this one's parent.
        host_pids: Whether process ids here are the host's; by default found out.
        nvml: A module with the functions of ``pynvml``; by default that one.
        energy: Whether to read counters and power; otherwise only the state of the devices is
            read, for a source that has energy from elsewhere.

    Raises:
        NVMLError: The driver or a device does not answer.
        LookupError: No GPU is named, and it can't be told which one CUDA would see.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments out of a specification
        self,
        uuids: Sequence[str],
        counter_poll_s: float,
        power_poll_s: float,
        *,
        owner_pid: int | None = None,
        host_pids: bool | None = None,
        nvml: Any = None,
        energy: bool = True,
    ) -> None:
        self._nvml = _pynvml() if nvml is None else nvml
        self._nvml.nvmlInit()
        handles = find_handles(self._nvml, uuids)
        self._watch = ProcessWatch(self._nvml, owner_pid or os.getppid(), host_pids)
        self._refused: dict[str, dict[str, str]] = {uuid: {} for uuid in handles}
        self._failing: dict[Quantity, str] = {}
        offers = [DeviceOffer(self._nvml, uuid, handle) for uuid, handle in handles.items()]
        metered = offers if energy else []
        counters = self._kept(one for offer in metered for one in offer.counter())
        power = self._kept(one for offer in metered for one in offer.power())
        power += self._kept(
            one for offer in metered for one in offer.stand_in(self._refused[offer.uuid])
        )
        state = self._kept(one for offer in offers for one in offer.state())
        slow = self._kept(one for offer in offers for one in offer.slow(self._watch))
        quick, spare = _by_need(power)
        self.period_s = counter_poll_s if counters else power_poll_s
        self._plan = (
            (1, counters),
            (self._every(power_poll_s), (*quick, *state)),
            (self._every(SLOW_POLL_S), (*spare, *slow)),
        )
        self._polls = 0

    def begin(self) -> None:
        """Begin a window; everything is due at its first poll."""
        self._failing.clear()
        self._watch.clear()
        self._polls = 0

    def poll(self) -> Iterator[Row]:
        """Read what is due, counters first; what fails is asked again when it is due again."""
        number, self._polls = self._polls, self._polls + 1
        for every, quantities in self._plan:
            if number % every:
                continue
            for one in quantities:
                try:
                    value = one.read()
                except self._nvml.NVMLError as error:
                    self._failing[one] = str(error)
                    continue
                if self._failing:
                    self._failing.pop(one, None)
                yield Row(one.channel, one.uuid, value)

    def end(self) -> dict[str, Any]:
        """End the window; give what each device offers and refuses, and what failed last."""
        failing: dict[str, dict[str, str]] = {uuid: {} for uuid in self._refused}
        for one, reason in self._failing.items():
            failing[one.uuid][one.channel] = reason
        offered: dict[str, list[str]] = {uuid: [] for uuid in self._refused}
        for _, quantities in self._plan:
            for one in quantities:
                offered[one.uuid].append(one.channel)
        return {
            "offered": offered,
            "refused": self._refused,
            "failing": failing,
            "processes": self._watch.seen,
            "host_pids": self._watch.host_pids,
        }

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()

    def _every(self, seconds: float) -> int:
        return max(1, round(seconds / self.period_s))

    def _kept(self, offered: Iterator[Quantity]) -> tuple[Quantity, ...]:
        """Try each quantity once; one that the device does not have is not asked for again."""
        kept = []
        for one in offered:
            reason = refusal(self._nvml, one.read)
            if reason is None:
                kept.append(one)
                self._refused[one.uuid].pop(one.channel, None)
            else:
                self._refused[one.uuid][one.channel] = reason
        return tuple(kept)


class DeviceOffer:
    """What can be asked of one device."""

    def __init__(self, nvml: Any, uuid: str, handle: Any) -> None:
        self.uuid = uuid
        self._nvml, self._handle = nvml, handle

    def counter(self) -> Iterator[Quantity]:
        """Give the energy counter."""
        yield self._one(COUNTER, self._nvml.nvmlDeviceGetTotalEnergyConsumption)

    def power(self) -> Iterator[Quantity]:
        """Give power of the moment, and its mean over a second."""
        yield self._field(POWER, self._nvml.NVML_FI_DEV_POWER_INSTANT)
        yield self._field(AVERAGE_POWER, self._nvml.NVML_FI_DEV_POWER_AVERAGE)

    def stand_in(self, refused: Container[str]) -> Iterator[Quantity]:
        """Give the older function for power, where it tells what is not told otherwise.

        Args:
            refused: The channels that the device refuses.
        """
        channel = AVERAGE_POWER if usage_is_a_mean(self._nvml, self._handle) else POWER
        if POWER in refused and channel in refused:
            yield self._watts(channel, self._nvml.nvmlDeviceGetPowerUsage)

    def state(self) -> Iterator[Quantity]:
        """Give what follows the load: the clock, and what holds it down."""
        nvml = self._nvml
        yield self._one(SM_CLOCK, nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)
        yield self._one(CLOCK_EVENTS, self._event_reasons())

    def slow(self, watch: ProcessWatch) -> Iterator[Quantity]:
        """Give what changes slowly or hardly ever: heat, limits, and who computes on the device."""
        nvml, uuid, handle = self._nvml, self.uuid, self._handle
        yield self._one(TEMPERATURE, nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)
        yield self._one(MEMORY_CLOCK, nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM)
        yield self._watts(POWER_LIMIT, nvml.nvmlDeviceGetEnforcedPowerLimit)
        yield self._watts(DEFAULT_POWER_LIMIT, nvml.nvmlDeviceGetPowerManagementDefaultLimit)
        yield self._one(PERSISTENCE, nvml.nvmlDeviceGetPersistenceMode)
        yield Quantity(PROCESSES, uuid, lambda: watch.count(uuid, handle))

    def _one(self, channel: str, function: Callable[..., float], *arguments: Any) -> Quantity:
        handle = self._handle
        return Quantity(channel, self.uuid, lambda: function(handle, *arguments))

    def _watts(self, channel: str, function: Callable[[Any], int]) -> Quantity:
        handle = self._handle
        return Quantity(channel, self.uuid, lambda: function(handle) / MW_PER_W)

    def _field(self, channel: str, number: int) -> Quantity:
        nvml, handle = self._nvml, self._handle

        def read() -> float:
            value = nvml.nvmlDeviceGetFieldValues(handle, [number])[0]
            if value.nvmlReturn:
                raise nvml.NVMLError(value.nvmlReturn)
            return float(value.value.uiVal / MW_PER_W)

        return Quantity(channel, self.uuid, read)

    def _event_reasons(self) -> Callable[[Any], int]:
        """Give the function under the name that this driver has for it."""
        nvml = self._nvml
        named: Callable[[Any], int] = nvml.nvmlDeviceGetCurrentClocksEventReasons
        older: Callable[[Any], int] = nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        return older if refusal(nvml, lambda: named(self._handle)) else named


def _by_need(power: Sequence[Quantity]) -> tuple[list[Quantity], list[Quantity]]:
    """Tell power readings that energy may rest on from means that are read beside better ones."""
    prompt = {one.uuid for one in power if one.channel == POWER}
    spare = [one for one in power if one.channel == AVERAGE_POWER and one.uuid in prompt]
    return [one for one in power if one not in spare], spare


def find_handles(nvml: Any, uuids: Sequence[str]) -> dict[str, Any]:
    """Give NVML's handles of devices by UUID; of those that CUDA would see, where none is named.

    Raises:
        NVMLError: There is no such device, or it does not answer.
        LookupError: It can't be told which one CUDA would see.
    """
    wanted = uuids or visible_uuids(shown_uuids(nvml), os.environ)
    return {uuid: nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in wanted}


def shown_uuids(nvml: Any) -> list[str]:
    """List the devices that NVML shows, in its order."""
    indices = range(nvml.nvmlDeviceGetCount())
    return [str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(i))) for i in indices]


def refusal(nvml: Any, read: Callable[[], object]) -> str | None:
    """Say why a device will never tell something; ``None`` when it does, or might later."""
    try:
        read()
    except nvml.NVMLError as error:
        lasting = {
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        }
        return str(error) if error.value in lasting else None
    return None


def usage_is_a_mean(nvml: Any, handle: Any) -> bool:
    """Tell whether ``nvmlDeviceGetPowerUsage`` is a mean over a second; in doubt it is."""
    try:
        if nvml.nvmlDeviceGetArchitecture(handle) < nvml.NVML_DEVICE_ARCH_AMPERE:
            return False
        return tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)) != GA100
    except nvml.NVMLError:
        return True


def _pynvml() -> Any:
    import pynvml

    return pynvml
