"""Calibrations of sensors in the user's data directory, by device and driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from llenergymeasure.core.energy import json_file
from llenergymeasure.core.energy.estimation.sensor import Calibration
from llenergymeasure.core.energy.estimator import Knowledge
from llenergymeasure.domain.base import Record

FILE = "calibrations.json"


class StoredCalibration(Record):
    """What was learned about the sensors of one device."""

    uuid: str = Field(description="The device.")
    driver_version: str = Field(description="Driver it was learned with.")
    calibrated_at: str = Field(description="Wall-clock time, ISO 8601 with offset.")
    counter: Calibration | None = Field(None, description="Its energy counter.")
    power: Calibration | None = Field(None, description="Its power sensor.")


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
    path = directory / FILE
    content = json_file.read(path)
    json_file.write(path, {**content, calibration.uuid: calibration.model_dump(mode="json")})
    return path


def known_sensors(directory: Path | None, driver_version: str | None) -> KnownSensors:
    """Give what is known of sensors with this driver; a damaged entry is noted, not used.

    Args:
        directory: The user's data directory, or ``None`` to know nothing.
        driver_version: The driver that runs now; calibrations of any other do not hold.
    """
    knowledge: dict[str, Knowledge] = {}
    notes: dict[str, str] = {}
    for uuid, content in ({} if directory is None else json_file.read(directory / FILE)).items():
        try:
            stored = StoredCalibration.model_validate(content, strict=False)
        except ValidationError:
            notes[uuid] = f"the calibration of {uuid} is damaged and not used"
            continue
        if stored.driver_version == driver_version:
            knowledge[uuid] = Knowledge(counter=stored.counter, power=stored.power)
        else:
            notes[uuid] = (
                f"the calibration of {uuid} is of driver {stored.driver_version} and not used: "
                f"driver {driver_version} runs"
            )
    return KnownSensors(knowledge, notes)
