"""Turn a file and overrides from flags or keyword arguments into validated configurations."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.config import inheritance, yaml_file
from llenergymeasure.config.assignments import SET, SWEEP
from llenergymeasure.config.base import put
from llenergymeasure.config.experiment import BATCH_SIZE
from llenergymeasure.config.experiment_fields import DEFAULT_BACKEND
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.registry import backend_entry, backend_names
from llenergymeasure.config.study_rules import scope
from llenergymeasure.config.yaml_file import YamlFile
from llenergymeasure.exceptions import ConfigError, FlagError

EXECUTION = "execution."
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
    file, fields = _file(path), overrides or {}
    inheritance.refuse_study(file)
    for name, value in fields.items():
        put(file.data, name, value)
    return yaml_file.build(ExperimentConfig, _named(file, fields, {}, {}))


def load_study_config(
    path: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    assigned: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
) -> StudyConfig:
    """Read a study, or a single experiment as a study of one that runs once, from YAML.

    Args:
        path: The file; ``None`` builds an experiment from the overrides alone.
        overrides: Dotted field names to values. ``execution.n_cycles`` and its like are those of
            the study. A field of an experiment wins over the defaults, over every explicit entry
            and over its own line in ``sweep``. ``batch_size`` stands for the field that each
            backend has for it.
        assigned: The same from flags that name the field; a file says as much by a line.
        sweep: Dotted field names to lists of values: lines of ``sweep``, beside or in place of
            those of the file.

    Raises:
        ConfigError: The file or the combination is invalid.
    """
    file, assigned = _swept(_file(path), sweep or {}), assigned or {}
    own = _with_batch_fields({**file.data, **assigned}, overrides or {})
    file = _named(file, own, assigned, sweep or {})
    fields = {**own, **assigned}
    # How one experiment is run does not make several of it.
    what = {name: value for name, value in fields.items() if not name.startswith(EXECUTION)}
    tops = {name.partition(".")[0]: value for name, value in what.items()}
    if inheritance.describes_study({**file.data, **tops}):
        inheritance.refuse_empty(file)
        _refuse_lost_sections(file, fields.get("backend"))
        for name, value in fields.items():
            put(file.data, name, value)
            if name.partition(".")[0] not in StudyConfig.model_fields:
                _override(file.data, name, value)
        return yaml_file.build(StudyConfig, file)
    for name, value in what.items():
        put(file.data, name, value)
    experiment = yaml_file.build(ExperimentConfig, file)
    flags = load_execution({n: v for n, v in fields.items() if n not in what}, assigned)
    # One experiment runs once where nothing else is said; that number does not count as given.
    values = dict(flags) if "n_cycles" in flags.model_fields_set else {**dict(flags), "n_cycles": 1}
    return StudyConfig.of(
        experiment, ExecutionConfig.model_construct(flags.model_fields_set, **values)
    )


def load_execution(overrides: Mapping[str, Any], assigned: Container[str] = ()) -> ExecutionConfig:
    """Check what flags say about running.

    Args:
        overrides: Names of fields, as ``execution.n_cycles``, to values.
        assigned: Those that came from flags which name the field.

    Returns:
        The fields given, and defaults; ``model_fields_set`` tells them apart.

    Raises:
        ConfigError: A value is out of bounds; the message names its flag.
    """
    data: dict[str, Any] = {"execution": {}}
    for name, value in overrides.items():
        put(data, name, value)
    file = YamlFile(Path("command line"), data["execution"])
    flags: dict[tuple[str, ...], str] = {
        tuple(name.split(".")[1:]): flag_name(name, assigned) for name in overrides
    }
    return yaml_file.build(ExecutionConfig, file._replace(flags=flags))


def flag_name(field: str, assigned: Container[str] = ()) -> str:
    """Name the flag that set a field.

    Args:
        field: Its dotted name.
        assigned: The fields that were set by a flag which names them.
    """
    if field in assigned:
        return f"{SET} {field}"
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


def _swept(file: YamlFile, sweep: Mapping[str, Sequence[Any]]) -> YamlFile:
    """Lay lines of ``sweep`` over those of a file; one that is no mapping stays, and is refused."""
    own = file.data.get("sweep") or {}
    if not sweep or not isinstance(own, dict):
        return file
    return file._replace(data={**file.data, "sweep": {**own, **sweep}})


def _named(
    file: YamlFile,
    fields: Mapping[str, Any],
    assigned: Mapping[str, Any],
    sweep: Mapping[str, Any],
) -> YamlFile:
    """Note which flag each field came from.

    Raises:
        FlagError: Two flags say the same.
    """
    refuse_overlaps(fields, assigned, sweep)
    flags: dict[tuple[str, ...], str] = {("sweep", key): f"{SWEEP} {key}" for key in sweep}
    for name in (*fields, *assigned):
        flag, parts = flag_name(name, assigned), tuple(name.split("."))
        for length in range(1, len(parts)):  # a section that only flags speak of
            if parts[:length] not in file.lines:
                flags.setdefault(parts[:length], flag)
        flags[parts] = flag
    return file._replace(flags=flags)


def refuse_overlaps(fields: Iterable[str], assigned: Collection[str], sweep: Iterable[str]) -> None:
    """Refuse two flags of one field, or of a section and of what is in it: one would be lost.

    Args:
        fields: Those that have a flag of their own.
        assigned: Those of flags that name the field.
        sweep: Those with several values.

    Raises:
        FlagError: There are such two.
    """
    said = {tuple(name.split(".")): f"{SWEEP} {name}" for name in sweep}
    inside = {parts[:n]: flag for parts, flag in said.items() for n in range(1, len(parts))}
    own = [(name, flag_name(name)) for name in fields]
    for name, flag in (*own, *((name, flag_name(name, assigned)) for name in assigned)):
        parts = tuple(name.split("."))
        around = [parts[:n] for n in range(1, len(parts))]
        if parts in said:
            how = f"{flag} and {said[parts]} say different things; leave one out"
            raise FlagError(how, where=flag)
        other = next((said[one] for one in around if one in said), inside.get(parts))
        if other is not None:
            how = f"{flag} and {other} overlap; name each field by a flag of its own"
            raise FlagError(how, where=flag)
        said[parts] = flag
        inside.update(dict.fromkeys(around, flag))


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
