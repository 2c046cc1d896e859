"""``base: other.yaml``: a file that builds on another one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llenergymeasure import plain_files
from llenergymeasure.config import yaml_file
from llenergymeasure.config.base import ConfigModel, nearest, nest
from llenergymeasure.config.names import without_tilde
from llenergymeasure.config.plain_words import listed, shown
from llenergymeasure.config.secrets import redact
from llenergymeasure.config.yaml_file import YamlFile
from llenergymeasure.exceptions import ConfigError

STUDY_FIELDS = ("sweep", "experiments", "execution", "cold_start")
"""Fields that make a file a study; so does a list of backends."""
MOST_BASES = 20
WORK_ORDER = {"config", "model_cache_dir"}
"""Fields by which the ``config.json`` beside a result is known."""

_MOST_LISTED = 5


def describes_study(data: Mapping[str, Any]) -> bool:
    """Tell a study from a single experiment, by the fields of the file."""
    return isinstance(data.get("backend"), list) or any(name in data for name in STUDY_FIELDS)


def refuse_empty(file: YamlFile) -> None:
    """Refuse a file that is a study by a line that asks for nothing.

    Raises:
        ConfigError: ``sweep`` or ``experiments`` is there, and neither holds anything.
    """
    designs = {name: file.data[name] for name in ("sweep", "experiments") if name in file.data}
    if designs and not any(designs.values()):
        name = next(iter(designs))
        where = file.where((name,))
        raise ConfigError(f"{where}: {name}: is empty; fill it in, or remove the line", where=where)


def refuse_study(file: YamlFile) -> None:
    """Refuse a study where one experiment is wanted.

    Raises:
        ConfigError: The file describes a study; the message names what takes it.
    """
    asked = [name for name in STUDY_FIELDS if name in file.data]
    if isinstance(file.data.get("backend"), list):
        asked.append("backend")
    if asked:
        where = file.where((asked[0],))
        raise ConfigError(
            f"{where}: '{asked[0]}' describes a study of several experiments, and one experiment "
            "is wanted here; run_study takes the file, and StudyConfig.from_yaml reads it",
            where=where,
        )


def refuse_strangers(file: YamlFile, experiment: type[ConfigModel]) -> None:
    """Refuse a base that is no configuration; it may be any file, so little of it is shown.

    Args:
        file: The base.
        experiment: The model that tells which fields an experiment has.

    Raises:
        ConfigError: It has no field of an experiment or a study, which is told without any of its
            words; or others as well, of which five are named, by no more than their beginning.
    """
    known = ("name", "base", *STUDY_FIELDS)
    strange = [
        str(key) for key in file.data if key not in known and not experiment.accepts(str(key))
    ]
    if file.data and len(strange) == len(file.data):
        raise ConfigError(
            f"{file.path} has no field of an experiment or a study, so nothing can build on it",
            where=str(file.path),
        )
    if strange:
        told = []
        for key in strange[:_MOST_LISTED]:
            name = shown(redact(key))
            hint = nearest(name, (*known, *experiment.names()))
            told.append(f"{file.where((key,))}: unknown field '{name}', {hint}")
        if len(strange) > _MOST_LISTED:
            told.append(f"{len(strange) - _MOST_LISTED} more unknown fields")
        raise ConfigError(listed(told), where=file.where((strange[0],)))


def read(path: Path, experiment: type[ConfigModel]) -> YamlFile:
    """Read an experiment or a study together with everything it builds on.

    Sections are merged field by field, ``sweep`` key by key; everything else, lists included, is
    replaced. Relative paths are taken from the folder of the file that holds them. The
    ``config.json`` beside a result is read as the experiment that it asked for.

    Args:
        path: The file.
        experiment: The model that tells which fields of an experiment are paths.

    Raises:
        ConfigError: A file cannot be read, or the files build on each other in a circle.
    """
    return _read(path, experiment, ())


def _read(path: Path, experiment: type[ConfigModel], chain: tuple[Path, ...]) -> YamlFile:
    file = yaml_file.read(path)
    if file.data.keys() >= WORK_ORDER and isinstance(file.data["config"], dict):
        # What a worker was told, beside a result: the configuration, and settings of its machine.
        lines = {loc[1:]: line for loc, line in file.lines.items() if loc[:1] == ("config",)}
        file = file._replace(data=file.data["config"], lines=lines)
    if chain:
        refuse_strangers(file, experiment)
    base = file.data.pop("base", None)
    file = file._replace(data=_anchored(experiment, file.data, path.parent))
    if base is None:
        return file
    chain = (*chain, Path(os.path.realpath(path)))
    lower = _read(_base_path(file, base, chain), experiment, chain)
    kept = {loc: line for loc, line in lower.lines.items() if not _is_replaced(loc, file.data)}
    origins = {loc: lower.origins.get(loc, lower.path) for loc in kept if loc not in file.lines}
    data = merged(lower.data, file.data)
    return file._replace(data=data, lines={**kept, **file.lines}, origins=origins)


def _base_path(file: YamlFile, base: Any, chain: tuple[Path, ...]) -> Path:
    where = file.where(("base",))
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{where}: base: must be the name of a YAML file", where=where)
    path = file.path.parent / without_tilde(base)
    real = Path(os.path.realpath(path))  # of a link that leads to itself Path.resolve raises
    if len(chain) > MOST_BASES:
        said = f"{where}: base: more than {MOST_BASES} files build on one another"
        raise ConfigError(said, where=where)
    if real in chain:
        circle = " -> ".join(str(link) for link in (*chain, real))
        raise ConfigError(
            f"{where}: base: the files build on each other in a circle: {circle}; remove one of "
            "these lines",
            where=where,
        )
    if kind := plain_files.kind_of(path):
        raise ConfigError(f"{where}: base: {path} is {kind}, not a file", where=where)
    if not os.path.isfile(path):  # noqa: PTH113 - of a name too long for a file Path raises
        raise ConfigError(
            f"{where}: base: there is no file {path}; the name is taken from the folder of "
            f"{file.path.name}",
            where=where,
        )
    return path


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others: sections are merged, everything else is replaced."""
    result = dict(lower)
    for name, value in upper.items():
        under = result.get(name)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            result[name] = merged(under, value)
        else:
            result[name] = value
    return result


def _is_replaced(loc: tuple[str, ...], upper: Any) -> bool:
    for part in loc:
        if not isinstance(upper, Mapping):
            return True
        if part not in upper:
            return False
        upper = upper[part]
    return False


def _anchored(model: type[BaseModel], data: dict[str, Any], folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = yaml_file.anchor_paths(model, data, folder)
    if isinstance(entries := data.get("experiments"), list):
        result["experiments"] = [yaml_file.anchor_paths(model, entry, folder) for entry in entries]
    if isinstance(sweep := data.get("sweep"), dict):
        result["sweep"] = dict(sweep)
        for key, values in sweep.items():
            if isinstance(values, list):
                nested = [nest({str(key): value}) for value in values]
                found = [yaml_file.anchor_paths(model, each, folder) for each in nested]
                parts = str(key).split(".")
                result["sweep"][key] = [reduce(getitem, parts, each) for each in found]
    return result
