"""Idle power of devices as it was measured before, for as long as it may still hold.

Kept by device, driver and source; of a CPU by its model, the kernel and the boot of the machine,
which a home folder may share with others. What was kept is only a claim: a short measurement has
to confirm it, else the full one is done again.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, ValidationError

from llenergymeasure.core.energy import json_file
from llenergymeasure.core.environment import boot_id, cpu_model
from llenergymeasure.domain.base import Record
from llenergymeasure.domain.energy import Idle
from llenergymeasure.domain.target import DeviceTarget

FILE = "baselines.json"
LIMIT_S = 24 * 3600.0  # a day: rooms and fans change, and a spot check sees steps, not causes
SPOT_S = 5.0
SPOT_SHARE = 0.02  # of idle power: by how much a spot check may differ beyond the intervals

LOG = logging.getLogger(__name__)


class DeviceIdentity(NamedTuple):
    """What idle power belongs to."""

    uuids: tuple[str, ...]
    driver_version: str
    source: str

    @classmethod
    def of(cls, target: DeviceTarget, driver_version: str | None, source: str) -> Self | None:
        """Tell whose idle power it is; ``None`` where the devices or their driver are not known."""
        if target.kind == "cpu":
            return cls((cpu_model() or "CPU", boot_id()), platform.release(), source)
        if driver_version is None or not target.gpu_uuids:
            return None
        return cls(target.gpu_uuids, driver_version, source)

    @property
    def key(self) -> str:
        """All of it as one word."""
        return "|".join((*sorted(self.uuids), self.driver_version, self.source))


class StoredIdle(Record):
    """Idle power as the file keeps it."""

    power_w: float = Field(gt=0, description="Mean, W.")
    interval95_w: float = Field(ge=0, description="Half-width of its 95 % interval, W.")
    duration_s: float = Field(gt=0, description="How long it was measured, s.")
    measured_at_s: float = Field(description="When, seconds since 1970.")


@dataclass(frozen=True, slots=True)
class BaselineCache:
    """Idle power of one set of devices.

    Attributes:
        directory: The user's data directory.
        identity: Whose idle power.
        now_s: The wall clock, seconds since 1970; it only dates what is kept.
    """

    directory: Path
    identity: DeviceIdentity
    now_s: Callable[[], float] = time.time

    def find(self, duration_s: float) -> StoredIdle | None:
        """Give what was measured within a day, for at least as long; ``None`` without."""
        kept = json_file.read(self._path).get(self.identity.key)
        try:
            stored = StoredIdle.model_validate(kept)
        except ValidationError:
            return None
        fresh = 0 <= self.age_s(stored) <= LIMIT_S
        return stored if fresh and stored.duration_s >= duration_s else None

    def age_s(self, stored: StoredIdle) -> float:
        """Tell how long ago something was measured."""
        return self.now_s() - stored.measured_at_s

    def keep(self, idle: Idle, duration_s: float) -> None:
        """Keep idle power that was steady; a disk that refuses costs nothing but time later."""
        if not idle.steady or idle.interval95_w is None or idle.power_w <= 0:
            return
        stored = StoredIdle(
            power_w=idle.power_w,
            interval95_w=idle.interval95_w,
            duration_s=duration_s,
            measured_at_s=self.now_s(),
        )
        content = {**json_file.read(self._path), self.identity.key: stored.model_dump()}
        try:
            json_file.write(self._path, content)
        except OSError as error:
            LOG.warning("idle power is not kept for later: %s", error)

    @property
    def _path(self) -> Path:
        return self.directory / FILE


def confirmed(stored: StoredIdle, spot: Idle) -> bool:
    """Tell whether a short measurement agrees, within both intervals and 2 %."""
    if spot.interval95_w is None or not spot.steady:
        return False
    allowed_w = hypot(stored.interval95_w, spot.interval95_w) + SPOT_SHARE * stored.power_w
    return abs(spot.power_w - stored.power_w) <= allowed_w
