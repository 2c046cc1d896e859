"""Everything that documents or tests the fields of the configuration, derived from its schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel

from llenergymeasure.config.backend_configs import MOST
from llenergymeasure.config.plain_words import as_yaml


class FieldInfo(NamedTuple):
    """One field of a configuration model.

    Attributes:
        name: Dotted path, e.g. ``"decoder.top_p"``.
        type: Its type as a user would say it, e.g. ``"integer or null"``.
        default: Its default as it would stand in YAML; ``"required"`` where there is none.
        description: What it means.
        schema: Its JSON schema, references resolved.
    """

    name: str
    type: str
    default: str
    description: str
    schema: dict[str, Any]


@cache  # a schema takes a hundredth of a second, and many a wrong name may ask for it
def fields(model: type[BaseModel]) -> tuple[FieldInfo, ...]:
    """List every field of a model and of the models inside it, in the order they are declared."""
    schema = model.model_json_schema()
    return tuple(_fields(schema, schema.get("$defs", {}), ""))


def describe(model: type[BaseModel], name: str) -> str:
    """Give the description of one field, without building the whole schema.

    Raises:
        KeyError: The model has no such field.
    """
    return model.model_fields[name].description or ""


def markdown_table(model: type[BaseModel]) -> str:
    """Render the fields of a model as a Markdown table."""
    rows = [
        f"| `{field.name}` | {field.type} | `{field.default}` | {escaped(field.description)} |"
        for field in fields(model)
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def escaped(text: str) -> str:
    """Keep Markdown from taking ``<name>`` for a tag and ``|`` for the end of a cell."""
    return text.replace("<", "\\<").replace("|", "\\|")


def sample_values(schema: dict[str, Any]) -> list[Any]:
    """Give valid values of a field, from its schema: examples, choices, bounds, or its type."""
    if "examples" in schema:
        optional = {"type": "null"} in schema.get("anyOf", [])
        return [*schema["examples"], *([None] if optional else [])]
    if "enum" in schema:
        return list(schema["enum"])
    if "const" in schema:
        return [schema["const"]]
    if "anyOf" in schema:
        return [value for option in schema["anyOf"] for value in sample_values(option)]
    make: Callable[[dict[str, Any]], list[Any]] = _SAMPLES.get(schema.get("type", ""), lambda _: [])
    return make(schema)


def _numbers(schema: dict[str, Any], step: float) -> list[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    start = (low if "minimum" in schema else low + step) if low is not None else step
    values = [start, start + step]
    return [value for value in values if high is None or value <= high]


_SAMPLES: dict[str, Callable[[dict[str, Any]], list[Any]]] = {
    "boolean": lambda _: [False, True],
    "integer": lambda schema: [int(value) for value in _numbers(schema, 1)],
    "number": lambda schema: [float(value) for value in _numbers(schema, 0.5)],
    "string": lambda schema: [] if "pattern" in schema else ["text"],
    "null": lambda _: [None],
}


def _fields(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str
) -> Iterator[FieldInfo]:
    required = schema.get("required", [])
    for name, raw in schema.get("properties", {}).items():
        field = _resolve(raw, definitions)
        default = "required" if name in required else as_yaml(raw.get("default"))
        options = field.get("anyOf", [field])
        inner = [option for option in options if "properties" in option]
        yield FieldInfo(
            f"{prefix}{name}",
            type_name(field),
            "see below" if inner and name not in required and "default" not in raw else default,
            raw.get("description", field.get("description", "")),
            field,
        )
        for option in inner:
            yield from _fields(option, definitions, f"{prefix}{name}.")


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        return {**schema, "anyOf": [_resolve(option, definitions) for option in schema["anyOf"]]}
    return schema


def type_name(schema: dict[str, Any]) -> str:
    """Name the type of a field in a user's words."""
    if "anyOf" in schema:
        return " or ".join(type_name(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {type_name(schema.get('items', {}))}"
    names = {"object": "section" if "properties" in schema else "mapping", "number": "number"}
    kind: str = schema.get("type", "any")
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    given = {key: schema[key] for key in signs if schema.get(key, MOST) != MOST}
    bounds = [f"{signs[key]} {bound:.15g}" for key, bound in given.items()]
    return names.get(kind, kind) + (f" ({', '.join(bounds)})" if bounds else "")
