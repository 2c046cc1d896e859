"""Say what was given in place of a configuration, and what can be done with it.

Results, plans and data sets lie beside configurations, and a shell completes their names as well.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from llenergymeasure import plain_files
from llenergymeasure.config.inheritance import WORK_ORDER
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.results.files import MOST_BYTES
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory

_DATASETS = (".jsonl", ".csv", ".parquet", ".gz")
_NO_MORE = "; llem run takes a YAML file"


def explained(path: Path | None, error: ConfigError) -> ConfigError:
    """Give the error that says what a file or directory is, where it is no configuration at all.

    Args:
        path: What was given as a configuration.
        error: Why it could not be read as one; given back where nothing else is known of it.
    """
    told = None if path is None else what_it_is(path)
    return error if told is None else ConfigError(f"{path} is {told}", where=str(path))


def what_it_is(path: Path) -> str | None:
    """Say what a file or directory is and what can be done with it; ``None`` for any other."""
    place = path.absolute()
    try:
        return next(_folder(place) if place.is_dir() else _file(place), None)
    except (OSError, ValueError, RecursionError, AttributeError):
        return None


def _folder(folder: Path) -> Iterator[str]:
    experiment, study = ExperimentDirectory(folder), study_of(folder) or study_of(folder.parent)
    if study is not None and folder in (study.root, study.experiments):
        yield f"the directory of a study{_way_on(study)}"
    if experiment.result.exists():
        yield f"the directory of a result{_way_on_from(folder)}"
    if experiment.error.exists() or experiment.events.exists():
        yield f"the directory of an experiment without a result{_way_on_from(folder)}"
    if experiment.config.exists():
        yield from _file(experiment.config)
    if any(map(study_of, folder.iterdir())):
        found = f"llem run --resume {_quoted(folder)} finds them"
        yield f"a directory with studies in it; {found}, to go on with one"


def _file(path: Path) -> Iterator[str]:
    with plain_files.opened(path) as file:
        head = file.read(4)
    study, beside = study_of(path.parent), ExperimentDirectory(path.parent)
    if study is not None and path in (study.table, study.progress):
        yield f"a file of a study{_way_on(study)}"
    if path in (beside.timeseries, beside.requests, beside.events) and beside.config.exists():
        yield f"a file of an experiment{_way_on_from(path.parent)}"
    if head == b"PAR1" or head[:1] == b"[" or path.suffix.lower() in _DATASETS:
        yield f"a data set; measure a model with it: llem run -d {_quoted(path)} --model MODEL"
    if head[:1] != b"{":
        return
    keys = json.loads(plain_files.read(path, MOST_BYTES)).keys()
    if "measurement_config_hash" in keys:
        yield f"the result of an experiment{_way_on_from(path.parent)}"
    if "study_design_hash" in keys:
        what = "plan" if "slots" in keys else "summary"
        yield f"the {what} of a study{_way_on(study) if study else _NO_MORE}"
    if {"config", "code", "message"} <= keys:
        yield f"what is known of an experiment that failed{_way_on_from(path.parent)}"
    if keys >= WORK_ORDER:
        yield f"what a worker was told to measure{_way_on_from(path.parent)}"
    if "model" not in keys and not {"model_type", "architectures"}.isdisjoint(keys):
        yield f"of a model; measure it: llem run --model {_quoted(path.parent)}"


def study_of(root: Path) -> StudyDirectory | None:
    """Give the study of a directory, where its manifest or its plan is there."""
    study = StudyDirectory(root)
    return study if study.manifest.is_file() or study.plan.is_file() else None


def _way_on(study: StudyDirectory) -> str:
    return f"; go on with it: llem run --resume {_quoted(study.root)}"


def _way_on_from(folder: Path) -> str:
    """Say what can be done with the directory of an experiment, in a study or by itself."""
    config = ExperimentDirectory(folder).config
    again = f"; measure it again: llem run {_quoted(config)}" if config.exists() else ""
    if study := study_of(folder.parent.parent):
        return f"{again}; it is part of a study{_way_on(study).replace('it:', 'that:')}"
    if not ExperimentDirectory(folder).result.exists():
        return again or _NO_MORE
    return (
        f"; llem report {_quoted(folder)} shows it{again}; in Python "
        f'run_experiment(ExperimentResult.from_json("{folder}").config) does'
    )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
