"""Set up simulated devices for programs that load the real NVML bindings.

A :class:`SimulatedNode` writes the configuration, load logs and list of faults of ``simdevice.c``
into a directory, and names the environment in which a program sees those devices and no others.
Times are of ``time.monotonic()``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tests.support.simulated_device import loads
from tests.support.simulated_device.build import library_dir
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.profiles import A100, PASCAL, DeviceProfile
from tests.support.simulated_device.twin import START_MJ, VirtualDevice

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, UNKNOWN = 3, 4, 9, 15, 999
SW_POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x4, 0x8, 0x20, 0x40, 0x80
COUNTER_FUNCTION = "nvmlDeviceGetTotalEnergyConsumption"
PROCESSES_FUNCTION = "nvmlDeviceGetComputeRunningProcesses"

Keys: TypeAlias = Mapping[str, float | str | Path]

_NOT_IN_C = ("limit_w", "grace_hopper", "name")
_SYSTEM: Mapping[str, float | str] = {
    "driver_version": "570.86.15",
    "nvml_version": "12.570.86.15",
    "cuda_version": 12080,
}


@dataclass(frozen=True, slots=True)
class Board:
    """One device of a node.

    Attributes:
        profile: The device and its sensor.
        uuid: Its UUID; by default one made of its number.
        seed: Chooses jitter and noise.
        load_log: Its load log; by default one of its own in the node's directory.
        settings: More keys of ``simdevice.c``, such as ``persistence_mode``, ``limit_w``,
            ``mig_mode``, ``mig_slices``, ``read_s`` (how long a read takes) or ``pci_bus_id``.
    """

    profile: DeviceProfile = A100
    uuid: str = ""
    seed: int = 0
    load_log: Path | None = None
    settings: Mapping[str, float | str] = field(default_factory=dict)


class SimulatedNode:
    """Simulated devices in a directory.

    Args:
        directory: Where their files go.
        boards: The devices, in the order of their NVML index; none is a driver without a device.
        library: The directory of the library; built when not given.
    """

    def __init__(
        self, directory: Path, boards: Sequence[Board] = (Board(),), library: Path | None = None
    ) -> None:
        self.epoch_s = time.monotonic()
        self.boards = tuple(boards)
        self._library, self._directory = library or library_dir(), directory
        self._config, self._faults = directory / "devices.conf", directory / "faults"
        self._faults.touch()
        self._config.write_text(self._configuration(), encoding="ascii")
        _write_command(directory / "bin" / "nvidia-smi")

    @property
    def environment(self) -> dict[str, str]:
        """What to add to a program's environment."""
        return {
            "LD_LIBRARY_PATH": _before("LD_LIBRARY_PATH", self._library),
            "PATH": _before("PATH", self._directory / "bin"),
            "SIMULATED_NVML": str(self._config),
        }

    @property
    def library(self) -> Path:
        """Where the library lies."""
        return self._library

    def uuid(self, device: int = 0) -> str:
        """Name a device as NVML does."""
        return self.boards[device].uuid or f"GPU-00000000-0000-0000-0000-{device:012d}"

    def load_log(self, device: int = 0) -> Path:
        """Where to write a device's load, a line of monotonic seconds and watts for each change."""
        return self.boards[device].load_log or self._directory / f"load-{device}.log"

    def set_load(self, watts: float, device: int = 0, at_s: float | None = None) -> float:
        """Note that a device draws ``watts`` from now on, or from another time; gives that time."""
        at_s = time.monotonic() if at_s is None else at_s
        with self.load_log(device).open("a", encoding="ascii") as log:
            log.write(f"{at_s!r} {float(watts)!r}\n")
        return at_s

    def play(self, load: Load, device: int = 0) -> None:
        """Write the rest of a load of constant pieces at once, most of it ahead of its time.

        What lies ahead cannot come late for a reader. Pieces from before the log's last line count
        from that line on.

        Raises:
            ValueError: A piece has a slope; see :func:`~.loads.stepped`.
        """
        now_s = time.monotonic()
        first = int(load.piece_at(now_s))
        rest = replace(
            load,
            start_s=np.maximum(load.start_s[first:], now_s),
            level_w=load.level_w[first:],
            slope_w_per_s=load.slope_w_per_s[first:],
        )
        with self.load_log(device).open("a", encoding="ascii") as log:
            log.write(loads.to_log(rest))

    def load(self, device: int = 0) -> Load:
        """Read back what a device draws."""
        path = self.load_log(device)
        text = path.read_text(encoding="ascii") if path.exists() else ""
        return loads.from_log(text, self.boards[device].profile.idle_w, self.epoch_s)

    def twin(self, device: int = 0) -> VirtualDevice:
        """Make the virtual device that publishes what this one does, faults apart."""
        board = self.boards[device]
        return VirtualDevice(board.profile, self.load(device), board.seed, self.epoch_s)

    def true_energy_j(self, t0_s: float, t1_s: float, device: int = 0) -> float:
        """Give the exact energy of a device between two times."""
        return self.load(device).energy_j(t0_s, t1_s)

    def fault(
        self, kind: str, *, device: int | None = None, from_s: float = 0.0, until_s: float = inf
    ) -> None:
        """Add a line to the list of faults, at once or ahead of its time.

        Args:
            kind: Kind and arguments, as ``simdevice.c`` lists them.
            device: The device; all of them by default.
            from_s: When it starts.
            until_s: When it ends.
        """
        whom = "*" if device is None else str(device)
        with self._faults.open("a", encoding="ascii") as faults:
            faults.write(f"{whom} {from_s!r} {until_s!r} {kind}\n")

    def fail(
        self,
        function: str,
        code: int,
        *,
        device: int | None = None,
        from_s: float = 0.0,
        until_s: float = inf,
    ) -> None:
        """Let an NVML function, ``field:N`` or ``*`` return an error."""
        self.fault(f"fail {function} {code}", device=device, from_s=from_s, until_s=until_s)

    def lose(self, device: int = 0, at_s: float | None = None) -> None:
        """Let a device fall off the bus, now or at a time."""
        at_s = time.monotonic() if at_s is None else at_s
        self.fail("*", GPU_IS_LOST, device=device, from_s=at_s)

    def reset_counter(self, device: int = 0, at_s: float | None = None) -> None:
        """Start a counter again from 0, now or at a time."""
        self.fault("reset", device=device, from_s=time.monotonic() if at_s is None else at_s)

    def stall(self, for_s: float, device: int = 0, at_s: float | None = None) -> None:
        """Let reads begun from now on, or from a time on, return only ``for_s`` later."""
        at_s = time.monotonic() if at_s is None else at_s
        self.fault("stall", device=device, from_s=at_s, until_s=at_s + for_s)

    def add_process(
        self, pid: int, device: int = 0, *, mib: int = 1000, from_s: float = 0.0
    ) -> None:
        """Let a process compute on a device."""
        self.fault(f"process {pid} {mib}", device=device, from_s=from_s)

    def throttle(
        self, bits: int, device: int = 0, *, from_s: float = 0.0, until_s: float = inf
    ) -> None:
        """Set clock-event reasons for a while."""
        self.fault(f"events {bits:#x}", device=device, from_s=from_s, until_s=until_s)

    def _configuration(self) -> str:
        system: Keys = {**_SYSTEM, "faults": self._faults, "clients": self._directory / "clients"}
        lines = _lines(system)
        for index in range(len(self.boards)):
            lines += [f"device {index}", *_lines(self._keys(index))]
        return "\n".join([*lines, ""])

    def _keys(self, device: int) -> Keys:
        board, profile = self.boards[device], self.boards[device].profile
        sensor = {key: value for key, value in asdict(profile).items() if key not in _NOT_IN_C}
        return {
            **sensor,
            "name": profile.name,
            "uuid": self.uuid(device),
            "serial": f"{1_320_000_000 + device}",
            "pci_bus_id": f"00000000:{16 * (device + 1):02X}:00.0",
            "minor_number": device,
            "c2c": profile.grace_hopper,
            "load_log": self.load_log(device),
            "epoch_s": self.epoch_s,
            "start_mj": START_MJ,
            "seed": board.seed,
            **_limits(profile),
            **_STATE,
            "ecc_mode": profile.architecture > PASCAL,
            **board.settings,
        }


def _limits(profile: DeviceProfile) -> dict[str, float]:
    limit_w = profile.limit_w
    return {
        "limit_w": limit_w,
        "default_limit_w": limit_w,
        "min_limit_w": limit_w / 4.0,
        "max_limit_w": limit_w,
    }


_STATE: dict[str, float] = {
    "compute_capability": 8.0,
    "memory_mib": 81_920,
    "memory_used_mib": 500,
    "temperature_c": 30.0,
    "temperature_per_w": 0.08,
    "sm_clock_mhz": 1410,
    "sm_idle_mhz": 210,
    "memory_clock_mhz": 1593,
    "persistence_mode": 1,
}


def _before(variable: str, directory: Path) -> str:
    """Put a directory first on a search path."""
    others = os.environ.get(variable)
    return f"{directory}:{others}" if others else str(directory)


def _write_command(path: Path) -> None:
    """Leave a command that answers and does nothing: CodeCarbon asks no NVML without it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\necho 'NVIDIA System Management Interface (simulated)'\n")
    path.chmod(0o755)


def _lines(keys: Keys) -> list[str]:
    """Write keys as the library reads them, truth values as 0 and 1.

    Raises:
        ValueError: A text does not fit into the library's own.
    """
    texts = {
        key: str(value) if isinstance(value, str | Path) else repr(float(value))
        for key, value in keys.items()
    }
    for key, text in texts.items():
        if len(text) > 255 or "\n" in text:
            raise ValueError(f"{key} is too long for the simulated NVML: {text!r}")
    return [f"{key} {text}" for key, text in texts.items()]
