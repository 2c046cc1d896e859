"""What a worker is asked to do: the experiment, and the facts of this machine it needs."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field

from llenergymeasure._version import __version__
from llenergymeasure.config.energy_sources import EnergyBackendName
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.user_config import EffectiveSettings, data_path
from llenergymeasure.core.environment import IMAGE_VARIABLE
from llenergymeasure.domain import Record
from llenergymeasure.domain.results import StudyPlace
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.results.files import write_record
from llenergymeasure.results.layout import ExperimentDirectory

SITE = {
    "carbon_intensity_gco2_kwh",
    "carbon_intensity_source",
    "datacenter_pue",
    "datacenter_pue_source",
}
"""Fields of an order that say where energy is used; a result records them with its environment."""


class Start(NamedTuple):
    """How a worker was started, as its result records it.

    Attributes:
        method: ``inline``, ``fork``, ``spawn`` or ``docker``.
        reason: Why it is not the method asked for, where it is not.
    """

    method: str = "inline"
    reason: str | None = None


def new_rescue() -> str:
    """Make a name that nobody has used, or can guess."""
    return f"llem-rescued-{secrets.token_hex(8)}"


class WorkOrder(Record):
    """The contents of ``config.json``: everything a worker needs, wherever it runs."""

    llenergymeasure_version: str = Field(__version__, description="Version that wrote the order.")
    config: ExperimentConfig = Field(description="The experiment.")
    energy_backend: EnergyBackendName = Field(
        description="Energy source after the user configuration had its say."
    )
    carbon_intensity_gco2_kwh: float | None = Field(None, description="Carbon intensity.")
    carbon_intensity_source: str | None = Field(None, description="Where it came from.")
    datacenter_pue: float = Field(1.0, description="Power usage effectiveness.")
    datacenter_pue_source: str = Field("default", description="Where it came from.")
    counter_poll_ms: float = Field(5.0, description="Period of counter reads.")
    power_poll_ms: float = Field(20.0, description="Period of power reads.")
    calibrate: bool = Field(
        False,
        description="Whether a GPU that was never calibrated with its driver gets bursts of load "
        "in place of the thermal floor.",
    )
    watch_ends: bool = Field(
        True, description="Whether the last warm-up batches are followed by rest and looked at."
    )
    model_cache_dir: str = Field(description="Cache of random models and fetched datasets.")
    data_dir: str | None = Field(
        None, description="Where idle power and calibrations are kept; null keeps and uses none."
    )
    wait_s: float | None = Field(
        None,
        description="Longest wait for a device that another measurement has, s; null: without "
        "limit.",
    )
    cold_start: bool = Field(
        False, description="No warm-up, and loading the model is a measured window of its own."
    )
    reference_start_c: dict[str, float] = Field(
        {},
        description="Temperature at t0 of each device in an earlier experiment that this one is "
        "compared with, by UUID, degrees Celsius.",
    )
    inputs: dict[str, str] = Field(
        {},
        description="Identity of each input in the results that this one is to stand beside, by "
        "field; with other inputs it is not measured.",
    )
    rescue: str | None = Field(
        None,
        description="Name of the folder for what the experiment's directory does not take: in the "
        "temporary directory, or in rescued/ of the cache where that goes with a container.",
    )
    session: int | None = Field(
        None, description="Which run of its study this is, from 1: more after each resume."
    )
    place: StudyPlace | None = Field(
        None, description="Where in which study the experiment belongs; null outside a study."
    )
    runner: str = Field("local", description="Where the backend executes.")
    start_method: str = Field("inline", description="How the worker's process is started.")
    start_reason: str | None = Field(None, description="Why not by the method asked for.")

    @classmethod
    def of(
        cls, config: ExperimentConfig, settings: EffectiveSettings, *, cold_start: bool = False
    ) -> Self:
        """Combine an experiment with the settings of this machine."""
        user, origins = settings
        intensity = user.measurement.carbon_intensity_gco2_kwh
        named = config.energy_backend != "auto"
        return cls(
            config=config,
            energy_backend=config.energy_backend if named else user.measurement.energy_backend,
            carbon_intensity_gco2_kwh=intensity,
            carbon_intensity_source=origins.get("measurement.carbon_intensity_gco2_kwh"),
            datacenter_pue=user.measurement.datacenter_pue,
            datacenter_pue_source=origins.get("measurement.datacenter_pue", "default"),
            counter_poll_ms=user.advanced.counter_poll_ms,
            power_poll_ms=user.advanced.power_poll_ms,
            calibrate=user.measurement.calibrate,
            watch_ends=user.measurement.watch_ends,
            model_cache_dir=str(user.model_cache_path()),
            data_dir=str(data_path()),
            wait_s=user.execution.wait_seconds,
            cold_start=cold_start,
            runner=user.runner(config.backend),
        )

    def rescues(self) -> tuple[ExperimentDirectory, ...]:
        """Give the places for what the experiment's directory does not take, the first one first.

        Only folders of the host outlive a container, such as the cache.
        """
        name = self.rescue or new_rescue()
        temporary = () if IMAGE_VARIABLE in os.environ else (Path(tempfile.gettempdir()),)
        folders = (*temporary, self.cache_dir / "rescued")
        return tuple(ExperimentDirectory(folder / name) for folder in folders)

    def write(self, directory: ExperimentDirectory) -> None:
        """Write ``config.json``; leave no empty directory where that fails.

        Raises:
            ExperimentError: It cannot be written.
        """
        try:
            write_record(directory.config, self)
        except ExperimentError:
            with contextlib.suppress(OSError):
                directory.root.rmdir()  # nothing has started, so nothing is left
            raise

    @property
    def cache_dir(self) -> Path:
        """The cache as a path."""
        return Path(self.model_cache_dir)
