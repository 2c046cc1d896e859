"""Turn a file and overrides from flags or keyword arguments into validated configurations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config import yaml_file
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.paths import put
from llenergymeasure.config.registry import backend_entry, backend_names
from llenergymeasure.exceptions import ConfigError

_STUDY_FIELDS = ("sweep", "execution", "base", "cold_start")


def load_experiment_config(
    path: Path | None, overrides: Mapping[str, Any] | None = None
) -> ExperimentConfig:
    """Read an experiment from YAML, with overrides laid on top.

    Args:
        path: The file; ``None`` builds the experiment from the overrides alone.
        overrides: Dotted field names to values; they win over the file.

    Raises:
        ConfigError: The file or the combination is invalid.
    """
    file = yaml_file.YamlFile(Path("command line"), {}) if path is None else yaml_file.read(path)
    _reject_study(file, (*_STUDY_FIELDS, "experiments"))
    file = yaml_file.anchored(ExperimentConfig, file)
    for name, value in (overrides or {}).items():
        put(file.data, name, value)
    flags = {tuple(name.split(".")): flag_name(name) for name in overrides or {}}
    return yaml_file.build(ExperimentConfig, file._replace(flags=flags))


def flag_name(field: str) -> str:
    """Name the flag that sets a field, by the field's dotted name."""
    section, _, name = field.rpartition(".")
    if section in backend_names() and name == backend_entry(section).batch_field:
        return "--batch-size"
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def load_study_config(path: Path) -> StudyConfig:
    """Read a study, or a single experiment as a study of one, from YAML.

    Raises:
        ConfigError: The file is invalid, or asks for what this version does not run yet.
    """
    _reject_study(yaml_file.read(path), _STUDY_FIELDS)
    return StudyConfig.from_yaml(path)


def _reject_study(file: yaml_file.YamlFile, fields: tuple[str, ...]) -> None:
    asked = [name for name in fields if name in file.data]
    if isinstance(file.data.get("backend"), list):
        asked.append("backend")
    if asked:
        where = file.where((asked[0],))
        raise ConfigError(
            f"{where}: '{asked[0]}' describes a study of several experiments; this version "
            "measures one experiment a file",
            where=where,
        )
