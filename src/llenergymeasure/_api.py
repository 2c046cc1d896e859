"""The two functions of the public interface."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from llenergymeasure.config.loader import load_experiment_config, load_study_config
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.domain.results import ExperimentResult, StudyResult
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.results.recognise import explained
from llenergymeasure.study.runner import StudyRunner

Config = TypeVar("Config", ExperimentConfig, StudyConfig)


class _NotGiven(Enum):
    NOT_GIVEN = 0


NOT_GIVEN: Final = _NotGiven.NOT_GIVEN


@overload
def run_experiment(
    config: str | Path | ExperimentConfig, *, output_dir: str | Path | None = None
) -> ExperimentResult: ...


@overload
def run_experiment(*, output_dir: str | Path | None = None, **fields: Any) -> ExperimentResult: ...


def run_experiment(
    config: str | Path | ExperimentConfig | None = None,
    *,
    output_dir: str | Path | None = None,
    **fields: Any,
) -> ExperimentResult:
    """Measure one experiment in this process.

    Args:
        config: A YAML file or a configuration; leave it out to give the fields themselves.
        output_dir: Where the experiment's directory is left; by default nothing is written.
        fields: Fields of :class:`ExperimentConfig`, instead of ``config``.

    Raises:
        ConfigError: The file is invalid.
        pydantic.ValidationError: The fields are invalid.
        PreFlightError: This machine cannot run it; every problem is listed.
        ExperimentError: It started and broke.
        TypeError: Both ``config`` and fields were given, or ``config`` is something else.
    """
    if config is not None and fields:
        raise TypeError("give either a configuration or its fields, not both")
    if config is None:
        config = ExperimentConfig(**fields)
    elif not isinstance(config, ExperimentConfig):
        wanted = "run_experiment takes a YAML file or an ExperimentConfig; for fields, write "
        config = _read(load_experiment_config, config, f"{wanted}run_experiment(**fields)")
    directory = None if output_dir is None else Path(output_dir)
    return StudyRunner(StudyConfig.of(config), load_settings(), directory).run().experiments[0]


def run_study(
    study: str | Path | StudyConfig, *, output_dir: str | Path | _NotGiven | None = NOT_GIVEN
) -> StudyResult:
    """Run the experiments of a study, each in a process of its own, and compare them.

    A file that describes a single experiment is a study of one, which runs once, in this process.

    Args:
        study: A YAML file or a configuration.
        output_dir: Where results go; not given: as the user configuration says; ``None``: nowhere,
            and the result's paths are null.

    Returns:
        The results, what failed and what was skipped, and which differences are shown.

    Raises:
        ConfigError: The file is invalid.
        PreFlightError: This machine cannot run it; every problem is listed.
        ExperimentError: A study of a single experiment started and broke.
        StudyError: No combination can run, the grid is too large, or all experiments fail alike.
    """
    settings = load_settings()
    if isinstance(output_dir, _NotGiven):
        output_dir = settings.config.results_path()
    directory = None if output_dir is None else Path(output_dir)
    if isinstance(study, ExperimentConfig):
        study = StudyConfig.of(study)
    elif not isinstance(study, StudyConfig):
        wanted = "run_study takes a YAML file; for fields, StudyConfig(**fields)"
        study = _read(load_study_config, study, wanted)
    return StudyRunner(study, settings, directory).run()


def _read(load: Callable[[Path], Config], given: object, wanted: str) -> Config:
    """Read a configuration from the file that was given; say what another file is."""
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{wanted}; it was given {type(given).__name__}")
    file = Path(given)
    try:
        return load(file)
    except ConfigError as error:
        raise explained(file, error) from None
