"""Turn a file and overrides from flags or keyword arguments into validated configurations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config import inheritance, yaml_file
from llenergymeasure.config.base import put
from llenergymeasure.config.experiment_fields import DEFAULT_BACKEND
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.registry import backend_entry, backend_names
from llenergymeasure.config.study_rules import scope
from llenergymeasure.config.yaml_file import YamlFile
from llenergymeasure.exceptions import ConfigError

EXECUTION = "execution."
BATCH_SIZE = "batch_size"
_EXECUTION_FLAGS = {
    "execution.n_cycles": "--cycles",
    "execution.cycle_order": "--order",
    "execution.config_gap_seconds": "--no-gaps",
    "execution.cycle_gap_seconds": "--no-gaps",
    BATCH_SIZE: "--batch-size",
}


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
    file = _file(path)
    inheritance.refuse_study(file)
    return _experiment(file, overrides or {})


def load_study_config(path: Path | None, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read a study, or a single experiment as a study of one that runs once, from YAML.

    Args:
        path: The file; ``None`` builds an experiment from the overrides alone.
        overrides: Dotted field names to values. ``execution.n_cycles`` and its like are those of
            the study. A field of an experiment wins over the defaults, over every explicit entry
            and over its own line in ``sweep``. ``batch_size`` stands for the field that each
            backend has for it.

    Raises:
        ConfigError: The file or the combination is invalid.
    """
    file, given = _file(path), dict(overrides or {})
    if inheritance.describes_study(file.data):
        inheritance.refuse_empty(file)
        _refuse_lost_sections(file, given.get("backend"))
        fields = _with_batch_fields(file.data, given)
        for name, value in fields.items():
            put(file.data, name, value)
            if not name.startswith(EXECUTION):
                _override(file.data, name, value)
        return yaml_file.build(StudyConfig, _with_flags(file, fields))
    execution = {name: given.pop(name) for name in list(given) if name.startswith(EXECUTION)}
    experiment = _experiment(file, _with_batch_fields(file.data, given))
    flags = load_execution(execution)
    # One experiment runs once where nothing else is said; that number does not count as given.
    values = dict(flags) if "n_cycles" in flags.model_fields_set else {**dict(flags), "n_cycles": 1}
    return StudyConfig.of(
        experiment, ExecutionConfig.model_construct(flags.model_fields_set, **values)
    )


def load_execution(overrides: Mapping[str, Any]) -> ExecutionConfig:
    """Check what flags say about running.

    Args:
        overrides: Names of fields, as ``execution.n_cycles``, to values.

    Returns:
        The fields given, and defaults; ``model_fields_set`` tells them apart.

    Raises:
        ConfigError: A value is out of bounds; the message names its flag.
    """
    data: dict[str, Any] = {"execution": {}}
    for name, value in overrides.items():
        put(data, name, value)
    file = YamlFile(Path("command line"), data["execution"])
    inside = {name.removeprefix(EXECUTION): flag_name(name) for name in overrides}
    flags: dict[tuple[str, ...], str] = {(name,): flag for name, flag in inside.items()}
    return yaml_file.build(ExecutionConfig, file._replace(flags=flags))


def flag_name(field: str) -> str:
    """Name the flag that sets a field, by the field's dotted name."""
    if field in _EXECUTION_FLAGS:
        return _EXECUTION_FLAGS[field]
    section, _, name = field.rpartition(".")
    if section in backend_names() and name == backend_entry(section).batch_field:
        return "--batch-size"
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def _file(path: Path | None) -> YamlFile:
    if path is None:
        return YamlFile(Path("command line"), {})
    return inheritance.read(path, ExperimentConfig)


def _experiment(file: YamlFile, overrides: Mapping[str, Any]) -> ExperimentConfig:
    for name, value in overrides.items():
        put(file.data, name, value)
    return yaml_file.build(ExperimentConfig, _with_flags(file, overrides))


def _with_flags(file: YamlFile, overrides: Mapping[str, Any]) -> YamlFile:
    flags = {tuple(name.split(".")): flag_name(name) for name in overrides}
    return file._replace(flags=flags)


def _refuse_lost_sections(file: YamlFile, backend: str | None) -> None:
    """Refuse a flag that takes the backend away from settings of the file."""
    if backend not in backend_names():
        return
    lost = [loc for loc, section in _sections(file.data) if section not in (None, backend)]
    if lost:
        places = ", ".join(f"{file.where(loc)}: {loc[-1]}" for loc in lost)
        raise ConfigError(
            f"--backend {backend}: the study has settings of other backends, which would have no "
            f"effect ({places}); leave the flag out, or remove those lines",
            where="--backend",
        )


def _sections(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Yield where settings of single backends stand in a study, and of which."""
    for name, value in data.items():
        if value is not None:
            yield (name,), scope(str(name))
    sweep, entries = data.get("sweep"), data.get("experiments")
    for key in sweep if isinstance(sweep, dict) else ():
        yield ("sweep", str(key)), scope(str(key))
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        for name in entry if isinstance(entry, dict) else ():
            yield ("experiments", str(place), str(name)), scope(str(name))


def _with_batch_fields(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Put the field that each backend has for it in the place of ``batch_size``."""
    fields = dict(overrides)
    if BATCH_SIZE not in fields:
        return fields
    size, given = fields.pop(BATCH_SIZE), fields.get("backend", data.get("backend"))
    named = list(given) if isinstance(given, list) else [given] if given else []
    implied = [scope(str(key)) for key in data.get("sweep") or ()]
    for name in dict.fromkeys(named or list(filter(None, implied)) or [DEFAULT_BACKEND]):
        if name in backend_names():
            fields[f"{name}.{backend_entry(name).batch_field}"] = size
    return fields


def _override(data: dict[str, Any], name: str, value: Any) -> None:
    """Let a flag win over the explicit entries that it concerns, and over its own line in a sweep.

    Both are what somebody wrote: not every entry need be a section, nor a sweep a mapping.
    """
    section, entries, sweep = scope(name), data.get("experiments"), data.get("sweep")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and section in (None, entry.get("backend", section)):
            put(entry, name, value)
    if isinstance(sweep, dict):
        data["sweep"] = {
            key: values
            for key, values in sweep.items()
            if key != name and not str(key).startswith(f"{name}.")
        }
