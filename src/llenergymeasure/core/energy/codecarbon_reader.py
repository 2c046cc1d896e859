"""CodeCarbon inside the sampling process: one of its tasks a stretch of a window.

What was learnt from CodeCarbon 3.3 (``codecarbon/emissions_tracker.py``, ``core/gpu_device.py``):

- ``stop`` and its own scheduler can measure the same stretch twice (a window of just the
  scheduler's period then has double the energy), and ``stop`` leaves out up to 50 ms. Tasks have
  neither fault, so the scheduler is never started.
- Counters are unwrapped once a measurement, so a long window is measured in short stretches.
- A part that can't be read adds 0 and a line in the log. Such a zero is unknown here.
- A counter that fails or starts again is replaced by power readings, and the log says so. What it
  did not count is unknown here.
"""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from llenergymeasure.core.energy.cadence import Cadence
from llenergymeasure.core.energy.sampling_child import Row
from llenergymeasure.units import JOULES_PER_KWH

STRETCH_S = 5.0
LONGEST_TRUE_ZERO_S = 0.25  # a counter may not tick within a shorter stretch
WENT_BACKWARDS = "went backwards"
UNREAD = (
    "Failed to read",
    "Failed to retrieve power",
    "reported as 0",
    "reports 0 W",
    WENT_BACKWARDS,
)
NO_SUCH_HOME = "/nonexistent"
MACHINE = "machine"


@dataclass
class Part:
    """One part of the machine over one window.

    Attributes:
        name: cpu, ram, or a GPU by UUID.
        gpu: Whether it is a GPU.
        kind: measured or modelled.
        method: How CodeCarbon gets the figure.
        energy_j: Joules so far; ``None`` once a stretch of the window is unknown.
        index: By which CodeCarbon's messages call it, where it is a GPU.
        reset: Whether its counter started again.
        power_w: Its power, where CodeCarbon takes that for constant.
    """

    name: str
    gpu: bool
    kind: str
    method: str
    energy_j: float | None = 0.0
    index: int | None = None
    reset: bool = False
    power_w: float | None = None

    def hear(self, message: str) -> None:
        """Take note of a message: what CodeCarbon did not read is unknown, whatever it adds."""
        if self.index is None or re.search(rf"\bGPU {self.index}\b", message) is None:
            return
        self.reset = self.reset or WENT_BACKWARDS in message
        if any(sign in message for sign in UNREAD):
            self.energy_j = None

    def add(self, energy_j: float | None, seconds: float) -> None:
        """Add a stretch; nothing at all over a long one means that it could not be read."""
        unread = not energy_j and seconds > LONGEST_TRUE_ZERO_S
        if energy_j is None or unread or self.energy_j is None:
            self.energy_j = None
        else:
            self.energy_j += energy_j


class CodeCarbonReader:
    """Drives CodeCarbon's offline tracker: no network, no file, nobody's configuration file."""

    def __init__(self) -> None:
        self.cadence = Cadence(STRETCH_S)
        _isolate()
        self._tracker = _make_tracker()
        self._log = _Log()
        self._parts: list[Part] = []
        self._grams = self._seconds = 0.0
        self._stretch_from_s: float | None = None
        self._count = 0
        # Loads tables and probes the machine now, rather than within a window.
        self.begin()
        self._end_stretch()

    def begin(self) -> None:
        """Begin a window."""
        self._parts = _parts(self._tracker)
        self._grams = self._seconds = 0.0
        self._log.messages.clear()
        self.cadence.begin(time.monotonic_ns())
        self._start_stretch()

    def poll(self) -> Iterator[Row]:
        """Measure the stretch that ends now, and give its mean power."""
        began_s = self._stretch_from_s
        if began_s is None or time.monotonic() - began_s < STRETCH_S / 2:
            return
        before_j = {part.name: part.energy_j for part in self._parts}
        seconds = self._end_stretch()
        self._start_stretch()
        for part in self._parts:
            earlier_j = before_j[part.name]
            if part.energy_j is not None and earlier_j is not None:
                watts = (part.energy_j - earlier_j) / seconds
                channel = "gpu_power_w" if part.gpu else f"{part.name}_power_w"
                yield Row(channel, part.name if part.gpu else MACHINE, watts)

    def end(self) -> dict[str, Any]:
        """End the window; give every part, the time they are of, grams and complaints."""
        self._end_stretch()
        for part in self._parts:
            part.energy_j = part.energy_j or None
        return {
            "parts": [asdict(part) for part in self._parts],
            "seconds": self._seconds,
            "grams": self._grams or None,
            "messages": self._log.messages[:],
        }

    def close(self) -> None:
        """Do nothing: CodeCarbon holds nothing that outlives the process."""

    def _start_stretch(self) -> None:
        self._count += 1
        self._stretch_from_s = time.monotonic()  # within this call CodeCarbon's own clock starts
        self._tracker.start_task(f"stretch-{self._count}")

    def _end_stretch(self) -> float:
        assert self._stretch_from_s is not None
        data = self._tracker.stop_task()
        seconds = time.monotonic() - self._stretch_from_s
        self._stretch_from_s = None
        self._seconds += seconds
        energy_j = {
            "cpu": data.cpu_energy * JOULES_PER_KWH,
            "ram": data.ram_energy * JOULES_PER_KWH,
            # Each GPU's, which CodeCarbon itself only sums.
            **{
                uuid: device.energy_delta.kWh * JOULES_PER_KWH
                for hardware in self._tracker._hardware
                for uuid, device in _gpus(hardware)
            },
        }
        for part in self._parts:
            part.add(energy_j.get(part.name), seconds)
            for message in self._log.messages:
                part.hear(message)
        self._grams += data.emissions * 1000
        return seconds


class _Log(logging.Handler):
    """Keeps what CodeCarbon warns of, each message once: its only sign of a swallowed failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        logging.getLogger("codecarbon").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        message = record.getMessage()
        if message not in self.messages:
            self.messages.append(message)


def _isolate() -> None:
    """Keep this process from the user's CodeCarbon settings, and its files from the user.

    CodeCarbon reads ``.codecarbon.config`` in the home and the working directory and takes GPU
    numbers from ``CUDA_VISIBLE_DEVICES``, which it then mistakes for NVML's.
    """
    foreign = [name for name in os.environ if name.lower().startswith("codecarbon_")]
    for name in (*foreign, "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    os.environ["HOME"] = NO_SUCH_HOME
    os.chdir("/")


def _make_tracker() -> Any:
    from codecarbon import OfflineEmissionsTracker

    with warnings.catch_warnings():
        # 3.3 prefers output_methods, which 3.0 does not know.
        warnings.simplefilter("ignore", DeprecationWarning)
        tracker = OfflineEmissionsTracker(
            country_iso_code="USA",
            tracking_mode="machine",
            measure_power_secs=1,
            save_to_file=False,
            allow_multiple_runs=True,
            log_level="warning",
            pue=1.0,
        )
    tracker.get_detected_hardware()
    return tracker


def _parts(tracker: Any) -> list[Part]:
    parts = []
    for hardware in tracker._hardware:
        if not _is_gpu(hardware):
            parts.append(_host_part(hardware))
        for uuid, device in _gpus(hardware):
            method = "energy counter of the device"
            if getattr(device, "_use_power_fallback", False):
                method = "mean of power readings, one a second"
            parts.append(Part(uuid, True, "measured", method, index=device.gpu_index))
    return parts


def _host_part(hardware: Any) -> Part:
    """Name a part of the host and how its figure comes about; in doubt it is a model."""
    kind = type(hardware).__name__
    if kind == "RAM":
        method = "constant power a memory module"
        return Part("ram", False, "modelled", method, power_w=hardware.total_power().W)
    part = str(getattr(hardware, "chip_part", "CPU")).lower()
    if kind == "Raspberry":
        return Part(part, False, "measured", "power sensors of the board")
    if kind == "AppleSiliconChip":
        return Part(part, False, "modelled", "powermetrics, an estimate")
    counters = {
        "intel_rapl": "RAPL package counters",
        "windows_emi": "RAPL through the Windows Energy Meter Interface",
        "intel_power_gadget": "Intel Power Gadget",
    }
    mode = str(getattr(hardware, "_mode", "unknown"))
    if mode in counters:
        return Part(part, False, "measured", counters[mode])
    rated_w = getattr(hardware, "_tdp", None)
    constant = mode == "constant"
    how = "a constant share" if constant else "CPU load"
    method = f"{how} of an assumed rated power of {rated_w} W"
    power_w = hardware.total_power().W if constant else None
    return Part(part, False, "modelled", method, power_w=power_w)


def _is_gpu(hardware: Any) -> bool:
    return type(hardware).__name__ == "GPU"


def _gpus(hardware: Any) -> list[tuple[str, Any]]:
    """Pair every GPU with its UUID; of other hardware there is none."""
    if not _is_gpu(hardware):
        return []
    static = hardware.devices.get_gpu_static_info()
    return [(s["uuid"], d) for s, d in zip(static, hardware.devices.devices, strict=True)]
