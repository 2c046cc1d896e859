"""NVML inside the sampling process: energy and power of GPUs, and the state they are in.

What NVML says (nvml.h): the energy counter is there on Volta and newer; field 186 is instantaneous
power and field 185 its mean over a second; ``nvmlDeviceGetPowerUsage`` is such a mean on Ampere
and newer, except on GA100, and instantaneous before. Its indices are not CUDA's, so devices are
found by UUID. Where the driver is not persistent, counters start again once its last client is
gone: this process stays a client from its start to its end. It tells process ids of the host: in a
container they may be meaningless, or hidden. What is known is said here, and what it means is
decided elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from llenergymeasure.core.energy.cadence import Cadence, Tiers, gpu_cadence, turns_in
from llenergymeasure.core.energy.sampled import Quantity, Read, SampledReader
from llenergymeasure.core.energy.sampling_child import Reader, Row, make_reader
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

GA100 = (8, 0)  # compute capability of the one Ampere chip that averages nothing
# PROC_PID_INIT_INO of the Linux sources (include/linux/proc_ns.h): the host's own namespace.
HOST_NAMESPACE = "pid:[4026531836]"

Kin = Literal["own", "other", "unseen"]


class NVMLReader(SampledReader):
    """Reads counters and power at every poll, clocks at some, heat, limits and processes at few.

    Args:
        uuids: The GPUs to read; none named means those that CUDA would see.
        counter_poll_s: Time between polls of counters and power.
        power_poll_s: Time between polls of the state, rounded to a multiple of the other.
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
        self._nvml = load_pynvml() if nvml is None else nvml
        self._nvml.nvmlInit()
        handles = find_handles(self._nvml, uuids)
        super().__init__(handles, (self._nvml.NVMLError,))
        self._watch = ProcessWatch(self._nvml, owner_pid or os.getppid(), host_pids)
        offers = [DeviceOffer(self._nvml, uuid, handle) for uuid, handle in handles.items()]
        metered = offers if energy else []
        counters = self.kept(one for offer in metered for one in offer.counter())
        power = self.kept(one for offer in metered for one in offer.power())
        power += self.kept(
            one for offer in metered for one in offer.stand_in(self.refused[offer.uuid])
        )
        state = self.kept(one for offer in offers for one in offer.state())
        slow = self.kept(one for offer in offers for one in offer.slow(self._watch))
        # Means that are read beside better power readings are not what energy rests on.
        prompt = {one.device for one in power if one.channel == POWER}
        spare = [one for one in power if one.channel == AVERAGE_POWER and one.device in prompt]
        quick = [one for one in power if one not in spare]
        self.quantities = [*counters, *quick, *state, *spare, *slow]
        tiers = Tiers(len(counters), len(quick), len(state), len(spare) + len(slow))
        self.cadence = gpu_cadence(tiers, counter_poll_s, power_poll_s)

    def refusal(self, read: Read) -> str | None:
        """Say why a device will never tell something; ``None`` when it does, or might later."""
        return refusal(self._nvml, read)

    def begin(self) -> None:
        """Begin a window; nobody has been seen on a device yet."""
        super().begin()
        self._watch.clear()

    def end(self) -> dict[str, Any]:
        """End the window; give also who was seen on each device."""
        seen = {"processes": self._watch.seen, "host_pids": self._watch.host_pids}
        return {**super().end(), **seen}

    def close(self) -> None:
        """Let go of the driver."""
        self._nvml.nvmlShutdown()


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


class StateBeside:
    """Another reader, and NVML beside it in the same sampling process.

    Args:
        reader: The other one, as ``"module:Class"``.
        arguments: Its keyword arguments.
        state: Those of :class:`NVMLReader`.
    """

    def __init__(self, reader: str, arguments: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self._state: Reader = NVMLReader(**state)
        self._other = make_reader(reader, dict(arguments))
        period_s = self._state.cadence.period_s
        self.cadence = Cadence(period_s, (turns_in(self._other.cadence.period_s, period_s), 1))

    def begin(self) -> None:
        """Begin a window."""
        self._state.begin()
        self._other.begin()
        self.cadence.begin(time.monotonic_ns())

    def poll(self) -> Iterator[Row]:
        """Read the state, and the other where that is due."""
        for due in self.cadence.turn():
            yield from (self._other, self._state)[due].poll()

    def end(self) -> dict[str, Any]:
        """End the window; give what the other made of it, and the state."""
        return {**self._other.end(), "state": self._state.end()}

    def close(self) -> None:
        """Let go of both."""
        self._other.close()
        self._state.close()


class ProcessWatch:
    """Keeps every process that was seen on a device, and whether it belongs to the experiment.

    Args:
        nvml: A module with the functions of ``pynvml``.
        owner_pid: The experiment's process.
        host_pids: Whether process ids here are the host's; by default found out.
        proc: Where the kernel shows processes.
    """

    def __init__(
        self,
        nvml: Any,
        owner_pid: int,
        host_pids: bool | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._nvml, self._owner, self._proc = nvml, owner_pid, proc
        self.host_pids = pids_are_of_the_host(proc) if host_pids is None else host_pids
        self.seen: dict[str, list[tuple[int, Kin]]] = {}
        self._known: set[tuple[str, int]] = set()

    def clear(self) -> None:
        """Forget who was seen."""
        self.seen = {}
        self._known.clear()

    def count(self, uuid: str, handle: Any) -> int:
        """Look at a device once; give how many compute on it.

        Raises:
            NVMLError: It does not tell.
        """
        pids = [process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        seen = self.seen.setdefault(uuid, [])
        for pid in pids:
            if (uuid, pid) not in self._known:
                self._known.add((uuid, pid))
                seen.append((pid, kin(pid, self._owner, self._proc)))
        return len(pids)


def kin(pid: int, owner: int, proc: Path = Path("/proc")) -> Kin:
    """Say whether a process is the owner or comes from it.

    Returns:
        ``own``, ``other``, or ``unseen`` where there is no such process here.
    """
    if not (proc / str(pid)).exists():
        return "unseen"
    while pid > 1:
        if pid == owner:
            return "own"
        pid = _parent(pid, proc)
    return "other"


def pids_are_of_the_host(proc: Path = Path("/proc")) -> bool:
    """Tell whether this process counts processes as the host does."""
    try:
        return str((proc / "self" / "ns" / "pid").readlink()) == HOST_NAMESPACE
    except OSError:
        return False


def _parent(pid: int, proc: Path) -> int:
    """Give a process's parent, or 0 when it is gone."""
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])  # the name before it may hold anything


def load_pynvml() -> Any:
    """Import NVML's library, which no other module of the sampling process needs."""
    import pynvml

    return pynvml
