"""Zeus's device layer inside the sampling process: raw readings, no arithmetic of Zeus.

What was learnt from Zeus 0.13 to 0.16 (``zeus/device/gpu``):

- It takes ``CUDA_VISIBLE_DEVICES`` for numbers of NVML, fails on UUIDs there, and tells no UUID
  itself. So it is shown every device here, and devices are told apart by what the vendor's
  library says about the handle that Zeus holds.
- With ``ZEUSD_SOCK_PATH`` or ``ZEUSD_HOST_PORT`` set it wants to reach its daemon, which only
  changing settings needs.
- On AMD it compares the counter with power for half a second and gives the counter up when both
  are far apart. Of a two-die MI250 only the first die has readings, and they hold both dies.
- On Grace Hopper, power is that of the whole module.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from llenergymeasure.core.energy.cadence import Tiers, gpu_cadence
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER, POWER, NVMLReader
from llenergymeasure.core.energy.sampled import Quantity, SampledReader, said
from llenergymeasure.core.energy.sampling_child import Reader, Row
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.units import MW_PER_W

_HIDING = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_FOREIGN = (*_HIDING, "ZEUSD_SOCK_PATH", "ZEUSD_HOST_PORT")


class Device(NamedTuple):
    """One GPU as Zeus holds it.

    Attributes:
        name: Its UUID.
        also: Other names that a framework may have for it.
        gpu: Zeus's object, a ``zeus.device.gpu.common.GPU``.
        holds: What its readings hold where that is more than the device.
    """

    name: str
    also: tuple[str, ...]
    gpu: Any
    holds: str | None = None

    def is_called(self, name: str) -> bool:
        """Whether a name means this device, however it is written."""
        return _bare(name) in {_bare(one) for one in (self.name, *self.also)}


class Layer(NamedTuple):
    """Zeus's device layer.

    Attributes:
        vendor: ``nvidia`` or ``amd``.
        devices: Every GPU it sees.
        errors: What its calls raise where a device does not answer.
    """

    vendor: str
    devices: tuple[Device, ...]
    errors: tuple[type[Exception], ...]


class ZeusReader(SampledReader):
    """Reads counter and power at every poll.

    Zeus tells no clocks, processes or limits: on NVIDIA devices, NVML tells these beside it.

    Args:
        uuids: The GPUs to read; none named means those that the environment leaves visible.
        counter_poll_s: Time between polls of counter and power.
        power_poll_s: Time between polls of the state, rounded to a multiple of the other.
        layer: Zeus's device layer; by default the real one.
        state: Reads the state of the devices; by default NVML where Zeus uses it too.

    Raises:
        LookupError: Zeus sees no such GPU, none of them answers, or it can't be told which one
            works.
    """

    def __init__(
        self,
        uuids: Sequence[str],
        counter_poll_s: float,
        power_poll_s: float,
        layer: Layer | None = None,
        state: Reader | None = None,
    ) -> None:
        environ = dict(os.environ)  # before Zeus is kept from it
        found = open_layer() if layer is None else layer
        self._devices = chosen(found, uuids, environ)
        names = [device.name for device in self._devices]
        super().__init__(names, found.errors)
        offered = [one for device in self._devices for one in self._offered(device)]
        counters = [one for one in offered if one.channel == COUNTER]
        powers = [one for one in offered if one.channel != COUNTER]
        self.quantities = [*counters, *powers]
        tiers = Tiers(len(counters), len(powers), states=1)  # the state, behind the quantities
        self.cadence = gpu_cadence(tiers, counter_poll_s, power_poll_s)
        self._state = state
        if layer is None and found.vendor == "nvidia":
            self._state = NVMLReader(names, power_poll_s, power_poll_s, energy=False)
        if not self.quantities:
            raise LookupError(f"no GPU tells energy or power: {self.refused}")

    def begin(self) -> None:
        """Begin a window."""
        super().begin()
        if self._state is not None:
            self._state.begin()

    def poll(self) -> Iterator[Row]:
        """Read what is due, and then the state with power."""
        due = self.cadence.turn()
        state = len(self.quantities)
        yield from self.read([index for index in due if index != state])
        if self._state is not None and state in due:
            yield from self._state.poll()

    def end(self) -> dict[str, Any]:
        """End the window; give also the state, and what readings hold beyond their device."""
        return {
            **super().end(),
            "state": None if self._state is None else self._state.end(),
            "shared": {one.name: one.holds for one in self._devices if one.holds},
        }

    def _offered(self, device: Device) -> Iterator[Quantity]:
        """Try what a device offers: its counter, and power, of the moment before of a second."""
        gpu = device.gpu
        counters = self.kept([Quantity(COUNTER, device.name, gpu.get_total_energy_consumption)])
        if counters and not gpu.supports_get_total_energy_consumption():
            self.refused[device.name][COUNTER] = "Zeus does not trust it"
        else:
            yield from counters
        powers = {POWER: gpu.get_instant_power_usage, AVERAGE_POWER: gpu.get_average_power_usage}
        for channel, read_mw in powers.items():
            watts = partial(_watts, read_mw)
            if power := self.kept([Quantity(channel, device.name, watts)]):
                yield from power
                return


def _watts(read_mw: Callable[[], int]) -> float:
    return read_mw() / MW_PER_W


def open_layer() -> Layer:
    """Let Zeus find every device of the machine."""
    for variable in _FOREIGN:
        os.environ.pop(variable, None)
    from zeus.device.exception import ZeusBaseGPUError
    from zeus.device.gpu import get_gpus

    found = get_gpus()
    vendor = "nvidia" if type(found).__name__.startswith("NVIDIA") else "amd"
    device = _nvidia if vendor == "nvidia" else _amd
    # amdsmi says "N/A" where it has no number, which Zeus takes for one.
    errors = (ZeusBaseGPUError, ValueError)
    return Layer(vendor, tuple(device(gpu) for gpu in found.gpus), errors)


def chosen(layer: Layer, uuids: Sequence[str], environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Pick devices by UUID; of none named, those that the environment leaves visible.

    Raises:
        LookupError: Zeus sees no GPU, or not every one of these, or it can't be told which.
    """
    if not layer.devices:
        raise LookupError("Zeus sees no GPU")
    if not uuids:
        uuids = _visible(layer, environ)
    found = {uuid: device for uuid in uuids for device in layer.devices if device.is_called(uuid)}
    if len(found) == len(uuids):
        return tuple(device._replace(name=uuid) for uuid, device in found.items())
    # AMD's libraries name a device in ways of their own; when all of them work, names don't matter.
    if layer.vendor == "amd" and len(uuids) == len(layer.devices):
        return layer.devices
    unseen = ", ".join(uuid for uuid in uuids if uuid not in found)
    seen = ", ".join(device.name for device in layer.devices)
    raise LookupError(f"Zeus sees no such GPU: {unseen}; it sees {seen}")


def _visible(layer: Layer, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Name the devices that are at work where nobody names them."""
    names = [device.name for device in layer.devices]
    if layer.vendor == "nvidia":
        return visible_uuids(names, environ)
    if hidden := hidden_by(environ):
        raise LookupError(f"{hidden} counts GPUs in HIP's order, which Zeus does not know")
    return tuple(names)


def hidden_by(environ: Mapping[str, str]) -> str | None:
    """Name the variable that hides AMD's GPUs from a program, if any."""
    return next((one for one in _HIDING if environ.get(one)), None)


def print_devices() -> None:
    """Print the UUIDs that Zeus sees, or why it sees none, as JSON."""
    try:
        layer = open_layer()
        print(json.dumps({"devices": [[one.name, *one.also] for one in layer.devices]}))  # noqa: T201 - the answer to the process that asked
    except Exception as error:  # noqa: BLE001 - whatever Zeus raises is the answer
        print(json.dumps({"error": said(error)}))  # noqa: T201


def _nvidia(gpu: Any) -> Device:
    import pynvml

    hopper = getattr(gpu, "_is_grace_hopper", False)
    holds = "the whole Grace Hopper module, CPU included" if hopper else None
    return Device(str(pynvml.nvmlDeviceGetUUID(gpu.handle)), (), gpu, holds)


def _amd(gpu: Any) -> Device:
    """Name an AMD GPU by its UUID, and by the serial that HIP and ROCm's PyTorch know it by.

    HIP's UUID is that serial as text, which PyTorch prints byte by byte.
    """
    import amdsmi

    uuid = str(amdsmi.amdsmi_get_gpu_device_uuid(gpu.handle))
    hip = str(amdsmi.amdsmi_get_gpu_enumeration_info(gpu.handle)["hip_uuid"])
    serial = str(amdsmi.amdsmi_get_gpu_asic_info(gpu.handle)["asic_serial"])
    known = {_bare(hip), _bare(serial.lower().removeprefix("0x"))} - {"", "na"}
    spelt = {text.encode().hex() for text in known}
    holds = "both dies of the MI250" if "MI250" in str(gpu.get_name()) else None
    return Device(uuid, tuple(sorted(known | spelt)), gpu, holds)


def _bare(name: str) -> str:
    return name.lower().removeprefix("gpu-").replace("-", "")
