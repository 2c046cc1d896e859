"""Which devices do the work of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class DeviceTarget:
    """The devices whose energy is the energy of the experiment.

    Attributes:
        kind: ``gpu`` or ``cpu``.
        gpu_uuids: The GPUs by UUID; empty for work on a CPU, or when they cannot be told.
    """

    kind: Literal["cpu", "gpu"]
    gpu_uuids: tuple[str, ...] = ()
