"""How to execute on this machine: the user's own settings, their environment, and what wins.

Precedence, lowest first: built-in default, user file, environment, command-line flag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from platformdirs import user_cache_path, user_config_path, user_data_path
from pydantic import Field, field_validator

from llenergymeasure.config import yaml_file
from llenergymeasure.config.backend_configs import MOST
from llenergymeasure.config.base import ConfigModel, flatten, invalid, nearest, nest
from llenergymeasure.config.energy_sources import EnergyBackendName
from llenergymeasure.config.experiment_fields import Seconds
from llenergymeasure.config.names import without_tilde
from llenergymeasure.config.registry import backend_names
from llenergymeasure.exceptions import ConfigError, FlagError, link_that_leads_nowhere, shortened

RUNNER_VARIABLE = "LLEM_RUNNER_"
_FALSE = ("", "0", "false", "no")


class OutputSettings(ConfigModel):
    """Where files go."""

    results_dir: str = Field("./results", description="Directory that results are written to.")
    model_cache_dir: str | None = Field(
        None, description="Where random models and the like are kept (null: the user's cache)."
    )

    @field_validator("results_dir", "model_cache_dir")
    @classmethod
    def _can_be_made(cls, folder: str | None) -> str | None:
        if folder is not None and (problem := folder_problem(folder)):
            raise invalid(problem)
        return folder


class MeasurementSettings(ConfigModel):
    """Facts about this machine that measurements need."""

    energy_backend: EnergyBackendName = Field(
        "auto", description="Energy source for experiments that say auto."
    )
    carbon_intensity_gco2_kwh: Annotated[float, Field(ge=0, le=MOST)] | None = Field(
        None, description="Grid carbon intensity in gCO2e/kWh; without it no CO2 is stated."
    )
    datacenter_pue: Annotated[float, Field(ge=1, le=1000)] = Field(
        1.0, description="Power usage effectiveness: facility energy over computing energy."
    )
    calibrate: bool = Field(
        True,
        description="Calibrate the energy sensors of a GPU that was never calibrated with its "
        "driver, once, by bursts of load in place of the thermal floor of its first experiment.",
    )
    watch_ends: bool = Field(
        True,
        description="Let half a second of rest follow each of the last four warm-up batches, and "
        "learn from their ends what a GPU draws after its work.",
    )


class ExecutionSettings(ConfigModel):
    """How collections of experiments are run."""

    config_gap_seconds: Seconds | None = Field(
        None,
        description="Pause between experiments (null: 60 where one of them runs on a GPU, whose "
        "heat stays for a while; else none).",
    )
    cycle_gap_seconds: Seconds | None = Field(
        None, description="Pause between cycles (null: 300 in the same place; else none)."
    )
    wait_seconds: Seconds | None = Field(
        None,
        description="Longest wait for a device that another measurement has (null: without limit).",
    )
    start_method: Literal["auto", "spawn", "forkserver"] = Field(
        "auto", description="How an experiment's process is started."
    )


class UISettings(ConfigModel):
    """What is printed."""

    verbosity: Literal["quiet", "standard", "verbose"] = Field(
        "standard", description="How much goes to stderr while an experiment runs."
    )
    prompt: bool = Field(True, description="Ask before something large; false never asks.")


class AdvancedSettings(ConfigModel):
    """Sampling rates."""

    counter_poll_ms: Annotated[float, Field(gt=0, le=MOST)] = Field(
        5.0, description="Period at which energy counters are read."
    )
    power_poll_ms: Annotated[float, Field(gt=0, le=MOST)] = Field(
        20.0, description="Period at which power, temperature and clocks are read."
    )


class UserConfig(ConfigModel):
    """The user's settings for this machine; every field has a default."""

    is_whole = True

    output: OutputSettings = Field(default_factory=OutputSettings, description="Where files go.")
    runners: dict[str, str] = Field(
        {}, description="Where each backend executes: local, python:<interpreter>, docker:<image>."
    )
    measurement: MeasurementSettings = Field(
        default_factory=MeasurementSettings, description="Facts about this machine."
    )
    execution: ExecutionSettings = Field(
        default_factory=ExecutionSettings, description="Running studies."
    )
    ui: UISettings = Field(default_factory=UISettings, description="What is printed.")
    advanced: AdvancedSettings = Field(
        default_factory=AdvancedSettings, description="Sampling rates."
    )

    @field_validator("runners")
    @classmethod
    def _runners_are_known(cls, runners: dict[str, str]) -> dict[str, str]:
        expanded = {}
        for backend, runner in runners.items():
            if backend not in backend_names():
                hint = nearest(backend, backend_names())
                raise invalid(f"there is no backend '{shortened(backend)}', {hint}")
            if reason := runner_problem(runner):
                raise invalid(f"{backend}: {reason}")
            kind, _, python = runner.partition(":")
            # The runner says what it misses where there is no such user.
            there = f"python:{os.path.expanduser(python)}"  # noqa: PTH111 - Path would raise
            expanded[backend] = there if kind == "python" else runner
        return expanded

    def runner(self, backend: str) -> str:
        """Say where a backend executes."""
        return self.runners.get(backend, "local")

    def results_path(self) -> Path:
        """Locate the directory that results are written to."""
        return without_tilde(self.output.results_dir)

    def model_cache_path(self) -> Path:
        """Locate the cache of random models and fetched datasets."""
        given = self.output.model_cache_dir
        return without_tilde(given) if given else user_cache_path("llenergymeasure")


class Setting(NamedTuple):
    """One effective value and where it came from."""

    name: str
    value: Any
    origin: str


class EffectiveSettings(NamedTuple):
    """The user configuration after every layer, with the origin of each value."""

    config: UserConfig
    origins: dict[str, str]

    def rows(self) -> Iterator[Setting]:
        """Yield every setting with its value and origin."""
        for name, value in flatten(self.config.model_dump()):
            yield Setting(name, value, self.origins.get(name, "default"))


def folder_problem(folder: str) -> str | None:
    """Say why no directory of this name can be made, or ``None``."""
    if "\0" in folder:
        return "the name of a directory holds no NUL"
    if str(without_tilde(folder)).startswith("~"):
        return f"there is no user '{shortened(folder.partition('/')[0][1:])}'"
    return None


def runner_problem(runner: str) -> str | None:
    """Say what is wrong with the name of a runner, or ``None``."""
    kind, _, rest = runner.partition(":")
    if kind == "singularity":
        return "singularity is not yet supported; use local, python:<interpreter> or docker:<image>"
    if runner == "local" or (kind in ("python", "docker") and rest):
        return None
    return f"'{shortened(runner)}' is no runner; use local, python:<interpreter> or docker:<image>"


def named_runners(values: Iterable[str], backends: Sequence[str]) -> dict[str, str]:
    """Read runners as flags give them: one for all backends, or ``<backend>=<runner>``.

    Args:
        values: What the flags say; the runner of a named backend wins over that for all.
        backends: Those that may be named.

    Raises:
        ConfigError: A value is no runner, names another backend, or two say the same.
    """
    found: dict[str | None, str] = {}
    for value in values:
        named = _NAMED_RUNNER.fullmatch(value)
        backend, runner = (named[1], named[2]) if named else (None, value)
        if backend is not None and backend not in backends:
            told = f"'{shortened(value)}' is for no backend here"
            raise _runner_flag(f"{told}, {nearest(backend, backends)}")
        if backend in found:
            raise _runner_flag(f"'{value}' comes after {found[backend]}; leave one out")
        if reason := runner_problem(runner):
            raise _runner_flag(reason)
        found[backend] = runner
    given = {name: found.get(name, found.get(None)) for name in backends}
    return {name: runner for name, runner in given.items() if runner is not None}


# A path may have a '=' too, but comes after 'python:'.
_NAMED_RUNNER = re.compile(r"([^:=/]+)=(.+)")


def _runner_flag(reason: str) -> FlagError:
    return FlagError(f"--runner: {reason}", where="--runner")


def default_path() -> Path:
    """Locate the user's configuration file; it need not exist."""
    return user_config_path("llenergymeasure") / "config.yaml"


def data_path() -> Path:
    """Locate where calibrations of sensors and idle power of devices are kept."""
    return user_data_path("llenergymeasure")


def load_settings(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> EffectiveSettings:
    """Merge defaults, the user's file, the environment and flags into effective settings.

    Args:
        path: The user's file; by default the one :func:`default_path` names.
        environ: Environment variables; by default the process's own.
        flags: Dotted setting names to values from the command line; ``None`` values are ignored.

    Raises:
        ConfigError: A layer is invalid; the message names the file and line, or the variable.
    """
    file, config = path or default_path(), UserConfig()
    layers = [*_environment_layers(os.environ if environ is None else environ)]
    if given := {k: v for k, v in (flags or {}).items() if v is not None}:
        layers.append(("command line", given))
    values: dict[str, Any] = {}
    for place in filter(Path.is_symlink, (file, file.parent)):
        if astray := link_that_leads_nowhere(place):
            raise ConfigError(f"{astray}; mend the link, or take it away", where=str(file))
    if file.exists():
        own = yaml_file.read(file, "runners: {pytorch: local}", may_be_empty=True)
        config = yaml_file.build(UserConfig, own)
        values = dict(flatten(config.model_dump(exclude_unset=True)))
    origins = dict.fromkeys(values, str(file))
    for origin, layer in layers:
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
        config = yaml_file.build(UserConfig, yaml_file.YamlFile(Path(origin), nest(values)))
    return EffectiveSettings(config, origins)


def _environment_layers(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for variable, setting in (
        ("LLEM_CARBON_INTENSITY", "measurement.carbon_intensity_gco2_kwh"),
        ("LLEM_DATACENTER_PUE", "measurement.datacenter_pue"),
    ):
        if text := environ.get(variable):
            yield f"${variable}", {setting: _number(variable, text)}
    if directory := environ.get("LLEM_RESULTS_DIR"):
        yield "$LLEM_RESULTS_DIR", {"output.results_dir": directory}
    if environ.get("LLEM_NO_PROMPT", "").lower() not in _FALSE:
        yield "$LLEM_NO_PROMPT", {"ui.prompt": False}
    names = {RUNNER_VARIABLE + name.upper().replace("-", "_"): name for name in backend_names()}
    for variable, runner in environ.items():
        if variable.startswith(RUNNER_VARIABLE) and runner:
            if variable not in names:
                raise ConfigError(
                    f"${variable} names no backend, {nearest(variable, names)}",
                    where=f"${variable}",
                )
            yield f"${variable}", {f"runners.{names[variable]}": runner}


def _number(variable: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"${variable} is '{shortened(text)}'; it must be a number", where=f"${variable}"
        ) from None
