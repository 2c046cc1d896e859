"""The two functions of the public interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, overload

from llenergymeasure.config.loader import load_experiment_config, load_study_config
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings, load_settings
from llenergymeasure.domain.results import ExperimentResult, StudyResult
from llenergymeasure.study.events import Callbacks
from llenergymeasure.study.runner import StudyRunner


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
    study = _to_study_config(_to_experiment_config(config, fields))
    directory = None if output_dir is None else Path(output_dir)
    return run(study, load_settings(), directory).experiments[0]


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
    return run(_to_study_config(study), settings, directory)


def run(  # noqa: PLR0913 - what the command adds is given by name
    study: StudyConfig | None,
    settings: EffectiveSettings,
    results_dir: Path | None,
    calls: Callbacks | None = None,
    *,
    resume: Path | None = None,
    execution: Mapping[str, Any] | None = None,
    allow_large: bool = False,
) -> StudyResult:
    """Run a study; what both public functions and the command come down to.

    Args:
        study: What to run; ``None`` goes on with the design of the study that is resumed.
        settings: How to run it on this machine.
        results_dir: Where its directory goes; ``None`` keeps nothing.
        calls: What is called meanwhile.
        resume: A study to go on with.
        execution: Fields of ``execution`` that flags set.
        allow_large: Whether a grid may be larger than is usual.
    """
    calls = calls or Callbacks()
    return StudyRunner(
        study, settings, results_dir, calls, resume, execution or {}, allow_large
    ).run()


def _to_experiment_config(
    config: str | Path | ExperimentConfig | None, fields: dict[str, Any]
) -> ExperimentConfig:
    if config is None:
        return ExperimentConfig(**fields)
    if fields:
        raise TypeError("give either a configuration or its fields, not both")
    if isinstance(config, ExperimentConfig):
        return config
    wanted = "run_experiment takes a YAML file or an ExperimentConfig; for fields, write "
    return load_experiment_config(_path(config, f"{wanted}run_experiment(**fields)"))


def _to_study_config(config: str | Path | ExperimentConfig | StudyConfig) -> StudyConfig:
    if isinstance(config, StudyConfig):
        return config
    if isinstance(config, ExperimentConfig):
        return StudyConfig.of(config)
    return load_study_config(
        _path(config, "run_study takes a YAML file; for fields, StudyConfig(**fields)")
    )


def _path(given: object, wanted: str) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{wanted}; it was given {type(given).__name__}")
    return Path(given)
