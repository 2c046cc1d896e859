"""What is kept in the user's data directory from one run to the next.

Calibrations of sensors, by device and driver, and for a day that one failed; and idle power as it
was measured before, for as long as it may still hold: by device, driver and source, of a CPU by its
model, the kernel and the boot of the machine, which a home folder may share with others. Idle power
that was kept is only a claim: a short measurement has to confirm it, else the full one is done.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, ValidationError

from llenergymeasure import plain_files
from llenergymeasure.core.energy.estimation.sensor import Calibration
from llenergymeasure.core.energy.estimator import Knowledge
from llenergymeasure.core.environment import boot_id, cpu_model
from llenergymeasure.domain import Record
from llenergymeasure.domain.energy import Idle
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.results import files

CALIBRATIONS = "calibrations.json"
FAILURES = "failed_calibrations.json"
BASELINES = "baselines.json"
LIMIT_S = 24 * 3600.0  # a day: rooms and fans change, and a spot check sees steps, not causes
RETRY_S = 24 * 3600.0  # a GPU that bursts did not calibrate; what refused it seldom goes sooner
SPOT_S = 5.0
SPOT_SHARE = 0.02  # of idle power: by how much a spot check may differ beyond the intervals
LOG = logging.getLogger(__name__)
_MOST_BYTES = 16 * plain_files.MIB


def _read(path: Path) -> dict[str, Any]:
    """Read an object; a missing or damaged file is empty, and a damaged one is logged."""
    try:
        content = json.loads(plain_files.read(path, _MOST_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        LOG.warning("%s cannot be read and is passed over: %s", path, error)
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write an object beside its place and rename it: a reader sees the old or the whole new file.

    Raises:
        OSError: It cannot be written; a file that was there before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_unfinished(path.parent)
    text = json.dumps(content, indent=2)
    files.replace(path, lambda sink: sink.write(text.encode()))


class StoredCalibration(Record):
    """What was learned about the sensors of one device."""

    uuid: str = Field(description="The device.")
    driver_version: str = Field(description="Driver it was learned with.")
    calibrated_at: str = Field(description="Wall-clock time, ISO 8601 with offset.")
    counter: Calibration | None = Field(None, description="Its energy counter.")
    power: Calibration | None = Field(None, description="Its power sensor.")

    @property
    def knowledge(self) -> Knowledge:
        """What an estimate makes use of."""
        return Knowledge(self.counter, self.power, calibrated_at=self.calibrated_at)


@dataclass(frozen=True, slots=True)
class KnownSensors:
    """What is known of the sensors of this machine's devices.

    Attributes:
        knowledge: What can be used, by UUID.
        notes: Why something that was kept cannot be, by UUID.
    """

    knowledge: Mapping[str, Knowledge] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


def keep(directory: Path, calibration: StoredCalibration) -> Path:
    """Keep a calibration in place of an older one of the same device; give the file.

    Raises:
        OSError: It cannot be written.
    """
    path = directory / CALIBRATIONS
    content = _read(path)
    _write(path, {**content, calibration.uuid: calibration.model_dump(mode="json")})
    return path


def known_sensors(directory: Path | None, driver_version: str | None) -> KnownSensors:
    """Give what is known of sensors with this driver; a damaged entry is noted, not used.

    Args:
        directory: The user's data directory, or ``None`` to know nothing.
        driver_version: The driver that runs now; calibrations of any other do not hold.
    """
    knowledge: dict[str, Knowledge] = {}
    notes: dict[str, str] = {}
    for uuid, content in ({} if directory is None else _read(directory / CALIBRATIONS)).items():
        try:
            stored = StoredCalibration.model_validate(content, strict=False)
        except ValidationError:
            notes[uuid] = f"the calibration of {uuid} is damaged and not used"
            continue
        if _lacks_doubt(content):
            notes[uuid] = (
                f"the calibration of {uuid} is of an older version, whose bursts took clocks that "
                "came up slowly for a late sensor, and not used"
            )
            continue
        if stored.driver_version == driver_version:
            knowledge[uuid] = stored.knowledge
        else:
            notes[uuid] = (
                f"the calibration of {uuid} is of driver {stored.driver_version} and not used: "
                f"driver {driver_version} runs"
            )
    return KnownSensors(knowledge, notes)


def _lacks_doubt(content: dict[str, Any]) -> bool:
    """Tell a calibration that says nothing of how well it knows tails: no default is as honest."""
    sensors = [one for one in map(content.get, ("counter", "power")) if one is not None]
    return any("doubt_s" not in one.get("tail", {}) for one in sensors)


class FailedCalibration(Record):
    """Bursts that did not calibrate a device."""

    uuid: str = Field(description="The device.")
    driver_version: str = Field(description="Driver it was tried with.")
    reason: str = Field(description="Why it failed.")
    failed_at_s: float = Field(description="When, seconds since 1970.")


def keep_failure(directory: Path, failed: FailedCalibration) -> None:
    """Keep that a calibration failed; a disk that refuses costs nothing but another try."""
    content = {**_read(directory / FAILURES), failed.uuid: failed.model_dump()}
    try:
        _write(directory / FAILURES, content)
    except OSError as error:
        LOG.warning("that %s was not calibrated is not kept: %s", failed.uuid, error)


def failed_lately(
    directory: Path, uuid: str, driver_version: str, now_s: float
) -> FailedCalibration | None:
    """Give a calibration that failed with this driver within a day, or ``None``."""
    try:
        failed = FailedCalibration.model_validate(_read(directory / FAILURES).get(uuid))
    except ValidationError:
        return None
    lately = 0 <= now_s - failed.failed_at_s <= RETRY_S
    return failed if lately and failed.driver_version == driver_version else None


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
        kept = _read(self._path).get(self.identity.key)
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
        content = {**_read(self._path), self.identity.key: stored.model_dump()}
        try:
            _write(self._path, content)
        except OSError as error:
            LOG.warning("idle power is not kept for later: %s", error)

    @property
    def _path(self) -> Path:
        return self.directory / BASELINES


def confirmed(stored: StoredIdle, spot: Idle) -> bool:
    """Tell whether a short measurement agrees, within both intervals and 2 %."""
    if spot.interval95_w is None or not spot.steady:
        return False
    allowed_w = hypot(stored.interval95_w, spot.interval95_w) + SPOT_SHARE * stored.power_w
    return abs(spot.power_w - stored.power_w) <= allowed_w
