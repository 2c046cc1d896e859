"""Read YAML that people write: bounded, without surprises, with lines in every message."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from llenergymeasure import plain_files
from llenergymeasure.config.names import RANDOM_PREFIX, without_tilde
from llenergymeasure.config.plain_words import listed, plain_problems, shown
from llenergymeasure.config.yaml_loader import (
    BOOL_TAG,
    MERGE_TAG,
    TEXT_TAG,
    Loader,
    MisleadingError,
)
from llenergymeasure.exceptions import ConfigError, FlagError, shortened

MAX_BYTES = 1 << 20
MAX_NODES = 200_000
MAX_DEPTH = 50
MAX_ENTRIES = 20_000
"""Of a list or a section of the file; a sweep writes as many experiments in a few lines."""

Model = TypeVar("Model", bound=BaseModel)


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
        ConfigError: It cannot be read, is empty, is not a mapping, or :func:`parsed` refuses it.
    """
    data, lines = parsed(_text(path), path)
    if data is None and may_be_empty:
        return YamlFile(path, {})
    if data is None:
        raise ConfigError(f"{path} is empty; it needs at least a line '{example}'", where=str(path))
    if not isinstance(data, dict):
        kind = {"list": "a list", "str": "plain text"}.get(type(data).__name__, "a single value")
        raise ConfigError(
            f"{path} holds {kind}; it must be a mapping of fields, such as '{example}'",
            where=str(path),
        )
    return YamlFile(path, data, lines)


def value_of(text: str, flag: str) -> Any:
    """Read what a flag says as YAML would: ``8``, ``true``, ``null``, ``[1, 2]``, or plain text.

    Raises:
        FlagError: It is not valid YAML, or holds a value that is not what it looks like.
    """
    try:
        return parsed(text, Path(flag))[0]
    except ConfigError as error:
        raise FlagError(
            f"{flag}{error.message.removeprefix(error.where or flag)}", where=flag
        ) from None


def parsed(text: str, path: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """Give what YAML says, and the line of each of its fields; nothing of a text without any.

    Args:
        text: The YAML.
        path: Where it comes from, for messages.

    Raises:
        ConfigError: It is too large, nested too deeply, expands too far through aliases, is not
            valid YAML, holds a value that is not what it looks like, or repeats a key.
    """
    try:
        _check_extent(text, path)
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, {}
        _check_aliases(root, path)
        lines = dict(_lines(root, path))
        return loader.construct_document(root), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", "it cannot be parsed")
        # Of a tag no more than its beginning: a base may be any file.
        told = f"not valid YAML: {shown(problem, 100)}"
        said = problem if isinstance(error, MisleadingError) else told
        raise ConfigError(f"{where}: {said}", where=where) from None
    except UnicodeError:  # half of a surrogate pair, as a flag may hold
        raise ConfigError(f"{path}: not valid YAML: it is no Unicode", where=str(path)) from None


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
            field, where = ".".join(map(shortened, problem.loc)), file.where(problem.loc)
            told = field and where not in file.flags.values()  # a flag is the name of its field
            texts.append(f"{where}: {f'{field}: ' if told else ''}{problem.message}")
        wrong_flags = all(problem.is_value and file.by_flag(problem.loc) for problem in problems)
        kind = FlagError if wrong_flags else ConfigError
        raise kind(listed(texts), where=file.where(problems[0].loc)) from None


def anchor_paths(model: type[BaseModel], data: Any, folder: Path) -> Any:
    """Make relative paths absolute, for the fields marked ``is_path`` that name an existing one.

    The mark is the suffix that makes a value a path, or a list of them; empty where any value may
    be one.
    """
    if not isinstance(data, dict):
        return data
    result = dict(data)
    for name, field in model.model_fields.items():
        if name not in data:
            continue
        value = data[name]
        if not isinstance(value, str):
            result[name] = _anchor_inside(field.annotation, value, folder)
        elif names_path(field.json_schema_extra, value):
            result[name] = _anchored(value, folder)
    return result


def names_path(extra: object, value: str) -> bool:
    """Tell whether a text is a path, by what the schema of its field says (``is_path``)."""
    mark = extra.get("is_path") if isinstance(extra, dict) else None
    suffixes = mark if isinstance(mark, list) else [mark]
    return mark is not None and value.lower().endswith(tuple(map(str, suffixes)))


def _anchor_inside(annotation: Any, value: Any, folder: Path) -> Any:
    for inner in _models_in(annotation):
        if isinstance(value, list):
            value = [anchor_paths(inner, item, folder) for item in value]
        else:
            value = anchor_paths(inner, value, folder)
    return value


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _anchored(value: str, folder: Path) -> str:
    prefix, colon, rest = value.rpartition(RANDOM_PREFIX)
    candidate = folder / without_tilde(rest)
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


def _check_extent(text: str, path: Path) -> None:
    """Refuse what is nested too deeply or holds too much, before nodes are made of it.

    Parsing goes event by event; composing recurses in C, where too deep a file ends the process.
    """
    values, sizes, section = 0, list[int](), ""  # sizes of what is open, the file itself first
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            sizes.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        if sizes:
            sizes[-1] += 1
        if len(sizes) == 1 and isinstance(event, yaml.ScalarEvent):
            section = shortened(event.value)
        if isinstance(event, yaml.CollectionStartEvent):
            sizes.append(0)
        values += 1
        for reached, limit, what in (
            (len(sizes), MAX_DEPTH, "nested more than {:,} levels deep"),
            (sum(sizes[1:2]), MAX_ENTRIES, f"{section}: has more than {{:,}} entries"),
            (sum(sizes[:1]) // 2, MAX_ENTRIES, "more than {:,} fields"),
            (values, MAX_NODES, "more than {:,} values"),
        ):
            if reached > limit:
                where = f"{path}, line {event.start_mark.line + 1 if event.start_mark else '?'}"
                raise ConfigError(f"{where}: {what.format(limit)}", where=where)


class _Extent(NamedTuple):
    """How far a node reaches once every alias in it is written out."""

    size: int
    depth: int


def _expanded(node: yaml.Node, known: dict[int, _Extent]) -> _Extent:
    if id(node) not in known:
        known[id(node)] = _Extent(MAX_NODES + 1, 0)  # an alias to a node that holds it never ends
        parts = [_expanded(child, known) for child in _children(node)]
        depth = 1 + max((part.depth for part in parts), default=0)
        known[id(node)] = _Extent(1 + sum(part.size for part in parts), depth)
    return known[id(node)]


def _check_aliases(root: yaml.Node, path: Path) -> None:
    extent = _expanded(root, {})
    for got, limit, what in (
        (extent.size, MAX_NODES, "expands to more than {:,} values"),
        (extent.depth, MAX_DEPTH + 1, "is nested more than {:,} levels deep"),
    ):
        if got > limit:
            raise ConfigError(f"{path} {what.format(limit)} through its aliases", where=str(path))


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
        if key.tag == MERGE_TAG:
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for mapping in reversed(merged):  # of several, the first wins
                yield from _lines(mapping, path, prefix)
    seen: set[str] = set()
    for key, value in node.value:
        name, where = _name(key, path), f"{path}, line {key.start_mark.line + 1}"
        if name in seen and key.tag != MERGE_TAG:
            raise ConfigError(f"{where}: '{shortened(name)}' is given twice", where=where)
        seen.add(name)
        yield (*prefix, name), key.start_mark.line + 1
        yield from _lines(value, path, (*prefix, name))


def _name(key: yaml.Node, path: Path) -> str:
    """Give a key as it is written; ``on`` and its like are names there, not truth values."""
    if not isinstance(key, yaml.ScalarNode):
        where = f"{path}, line {key.start_mark.line + 1}"
        raise ConfigError(f"{where}: a name must be text, not a list or a section", where=where)
    if key.tag == BOOL_TAG:
        key.tag = TEXT_TAG
    return str(key.value)
