"""Read YAML that people write: bounded, without surprises, with lines in every message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from llenergymeasure.exceptions import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 200_000

Model = TypeVar("Model", bound=BaseModel)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE_TAG = "tag:yaml.org,2002:merge"


class YamlFile(NamedTuple):
    """The contents of a YAML file, and where each of its fields stands."""

    path: Path
    data: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def where(self, loc: tuple[Any, ...] = ()) -> str:
        """Name file and line of a field, or of the nearest part of its path that exists."""
        parts = tuple(str(part) for part in loc)
        for length in range(len(parts), 0, -1):
            if line := self.lines.get(parts[:length]):
                return f"{self.path}, line {line}"
        return str(self.path)


def read(path: Path) -> YamlFile:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: It cannot be read, is empty, too large, expands too far through aliases, is
            not valid YAML, repeats a key, or is not a mapping.
    """
    text = _text(path)
    try:
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise ConfigError(
                f"{path} is empty; it needs at least a line 'model: ...'", where=str(path)
            )
        _check_size(root, path)
        lines = dict(_lines(root, path))
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise _syntax_error(path, error) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply", where=str(path)) from None
    if not isinstance(data, dict):
        kind = {"list": "a list", "str": "plain text"}.get(type(data).__name__, "a single value")
        raise ConfigError(
            f"{path} holds {kind}; it must be a mapping of fields, such as 'model: ...'",
            where=str(path),
        )
    return YamlFile(path, data, lines)


def build(model: type[Model], data: Any, file: YamlFile) -> Model:
    """Validate data that came from a file.

    Raises:
        ConfigError: With one line a problem, each naming file, line and field.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_describe(file, line) for line in error.errors()]
        first = error.errors()[0]["loc"]
        raise ConfigError("\n".join(problems), where=file.where(first)) from None


def load_model(model: type[Model], path: Path, *, wrap_single_experiment: bool = False) -> Model:
    """Read a file and build a model from it, with relative paths taken from the file's folder."""
    file = read(path)
    data = file.data
    if wrap_single_experiment and "experiments" not in data:
        data = {"experiments": [data]}
    return build(model, anchor_paths(model, data, file.path.parent), file)


def anchor_paths(model: type[BaseModel], data: Any, folder: Path) -> Any:
    """Make relative paths absolute, for the fields marked ``is_path`` that name an existing one."""
    if not isinstance(data, dict):
        return data
    anchored = dict(data)
    for name, field in model.model_fields.items():
        if name not in data:
            continue
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("is_path") and isinstance(data[name], str):
            anchored[name] = _anchored(data[name], folder)
        else:
            anchored[name] = _anchor_inside(field.annotation, data[name], folder)
    return anchored


def _anchor_inside(annotation: Any, value: Any, folder: Path) -> Any:
    for inner in _models_in(annotation):
        if isinstance(value, list):
            return [anchor_paths(inner, item, folder) for item in value]
        return anchor_paths(inner, value, folder)
    return value


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _anchored(value: str, folder: Path) -> str:
    prefix, colon, rest = value.rpartition("random:")
    candidate = folder / Path(rest).expanduser()
    return f"{prefix}{colon}{candidate.resolve()}" if rest and candidate.exists() else value


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{path} has {size:,} bytes; a configuration has at most {MAX_BYTES:,}",
                where=str(path),
            )
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", where=str(path)) from None


def _check_size(root: yaml.Node, path: Path) -> None:
    if _expanded_size(root, {}) > MAX_NODES:
        raise ConfigError(
            f"{path} expands to more than {MAX_NODES:,} values through its aliases",
            where=str(path),
        )


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values a node stands for once every alias in it is written out."""
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # an alias to a node that holds it never ends
        known[id(node)] = 1 + sum(_expanded_size(child, known) for child in _children(node))
    return known[id(node)]


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _lines(
    node: yaml.Node, path: Path, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            yield from _lines(child, path, (*prefix, str(position)))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen and key.tag != _MERGE_TAG:
            raise ConfigError(
                f"{path}, line {line}: '{name}' is given twice", where=f"{path}, line {line}"
            )
        seen.add(name)
        yield (*prefix, name), line
        yield from _lines(value, path, (*prefix, name))


def _syntax_error(path: Path, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}, line {mark.line + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or "it cannot be parsed"
    return ConfigError(f"{where}: not valid YAML: {problem}", where=where)


def _describe(file: YamlFile, line: Any) -> str:
    field = ".".join(str(part) for part in line["loc"])
    return f"{file.where(line['loc'])}: {field + ': ' if field else ''}{line['msg']}"
