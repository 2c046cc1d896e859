"""Read YAML that people write: bounded, without surprises, with lines in every message."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from llenergymeasure import plain_files
from llenergymeasure.config.names import RANDOM_PREFIX
from llenergymeasure.config.plain_words import listed, plain_problems, shown
from llenergymeasure.exceptions import ConfigError, FlagError

MAX_BYTES = 1 << 20
MAX_NODES = 200_000
MAX_DEPTH = 50

Model = TypeVar("Model", bound=BaseModel)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE_TAG = "tag:yaml.org,2002:merge"


class YamlFile(NamedTuple):
    """The contents of a YAML file, and where each of its fields stands.

    Attributes:
        path: The file, or a name for what the fields came from instead.
        data: Its fields.
        lines: Path of a field to its line.
        flags: Path of a field to the flag that set it, where one did.
        origins: Path of a field to the file it stands in, where that is another one.
    """

    path: Path
    data: dict[str, Any]
    lines: Mapping[tuple[str, ...], int] = {}
    flags: Mapping[tuple[str, ...], str] = {}
    origins: Mapping[tuple[str, ...], Path] = {}

    def where(self, loc: tuple[Any, ...] = ()) -> str:
        """Name the flag, or file and line, of a field or of the nearest part of its path."""
        parts = tuple(str(part) for part in loc)
        for length in range(len(parts), 0, -1):
            if flag := self.flags.get(parts[:length]):
                return flag
            if line := self.lines.get(parts[:length]):
                path = self.origins.get(parts[:length], self.path)
                return f"{path}, line {line}"
        return str(self.path)

    def by_flag(self, loc: tuple[str, ...]) -> bool:
        """Whether a field was set by a flag."""
        return self.where(loc) in self.flags.values()


def read(path: Path, example: str = "model: ...", *, may_be_empty: bool = False) -> YamlFile:
    """Read a YAML file whose top level is a mapping.

    Args:
        path: The file.
        example: A line it could hold, for messages.
        may_be_empty: Whether a file without any field is fine.

    Raises:
        ConfigError: It cannot be read, is empty, too large, nested too deeply, expands too far
            through aliases, is not valid YAML, repeats a key, or is not a mapping.
    """
    text = _text(path)
    try:
        _check_depth(text, path)
        root = yaml.compose(text, Loader=_Loader)
        if root is None and may_be_empty:
            return YamlFile(path, {})
        if root is None:
            raise ConfigError(
                f"{path} is empty; it needs at least a line '{example}'", where=str(path)
            )
        if _expanded_size(root, {}) > MAX_NODES:
            raise ConfigError(
                f"{path} expands to more than {MAX_NODES:,} values through its aliases",
                where=str(path),
            )
        lines = dict(_lines(root, path))
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        # Of a tag no more than its beginning: a base may be any file.
        raise ConfigError(f"{where}: not valid YAML: {shown(problem, 100)}", where=where) from None
    except ValueError as error:  # a date that does not exist, a number without end
        raise ConfigError(f"{path}: not valid YAML: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        kind = {"list": "a list", "str": "plain text"}.get(type(data).__name__, "a single value")
        raise ConfigError(
            f"{path} holds {kind}; it must be a mapping of fields, such as '{example}'",
            where=str(path),
        )
    return YamlFile(path, data, lines)


def build(model: type[Model], file: YamlFile) -> Model:
    """Build a model from the fields of a file.

    Raises:
        FlagError: Values of flags are wrong, and nothing else is.
        ConfigError: With one line a problem, each naming file, line and field, or the flag.
    """
    try:
        return model.model_validate(file.data)
    except ValidationError as error:
        problems = list(plain_problems(error, file.data))
        texts = []
        for problem in problems:
            field, where = ".".join(problem.loc), file.where(problem.loc)
            told = field and where not in file.flags.values()  # a flag is the name of its field
            texts.append(f"{where}: {f'{field}: ' if told else ''}{problem.message}")
        wrong_flags = all(problem.is_value and file.by_flag(problem.loc) for problem in problems)
        kind = FlagError if wrong_flags else ConfigError
        raise kind(listed(texts), where=file.where(problems[0].loc)) from None


def anchor_paths(model: type[BaseModel], data: Any, folder: Path) -> Any:
    """Make relative paths absolute, for the fields marked ``is_path`` that name an existing one.

    The mark is the suffix that makes a value a path; empty where any value may be one.
    """
    if not isinstance(data, dict):
        return data
    result = dict(data)
    for name, field in model.model_fields.items():
        if name not in data:
            continue
        extra, value = field.json_schema_extra, data[name]
        suffix = extra.get("is_path") if isinstance(extra, dict) else None
        if not isinstance(suffix, str) or not isinstance(value, str):
            result[name] = _anchor_inside(field.annotation, value, folder)
        elif value.endswith(suffix):
            result[name] = _anchored(value, folder)
    return result


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
    prefix, colon, rest = value.rpartition(RANDOM_PREFIX)
    candidate = folder / Path(rest).expanduser()
    # A folder that merely has the name of a catalogued architecture is no model.
    evidence = candidate / "config.json" if colon else candidate
    there = os.path.exists(evidence)  # noqa: PTH110 - of a name too long for a file Path raises
    return f"{prefix}{colon}{candidate.resolve()}" if rest and there else value


def _text(path: Path) -> str:
    try:
        return plain_files.read_or_pipe(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", where=str(path)) from None


def _check_depth(text: str, path: Path) -> None:
    # Parsing goes event by event; composing recurses in C, where too deep a file ends the process.
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            where = f"{path}, line {event.start_mark.line + 1 if event.start_mark else '?'}"
            raise ConfigError(f"{where}: nested more than {MAX_DEPTH} levels deep", where=where)


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
    for key, value in node.value:  # its own keys win over those that ``<<:`` brings
        if key.tag == _MERGE_TAG:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for mapping in reversed(merged):  # of several, the first wins
                yield from _lines(mapping, path, prefix)
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
