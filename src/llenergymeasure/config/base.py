"""The common ground of every configuration model: strict, frozen, helpful about misspelt names."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticSerializationError

from llenergymeasure.config.secrets import ADVICE, redact, secret_paths
from llenergymeasure.exceptions import shortened

COMBINATION = "invalid_combination"
"""Type of the errors that this package's own validators raise."""
MOST_PROBLEMS = 200
"""Problems that are looked for in the combinations of a study, of which there may be millions."""
_MOST_HINTS = 10


def as_unicode(text: str) -> str:
    r"""Spell what is no Unicode, such as a byte of a path in another encoding, as ``\udcff``.

    Python gives such a byte as half of a surrogate pair (PEP 383), which no UTF-8 can hold. In JSON
    the spelling is the escape that stands for it; elsewhere it can at least be read.
    """
    return text.encode(errors="backslashreplace").decode()


class TextModel(BaseModel):
    """A model whose JSON takes any text that the system gives: a path may be in any encoding.

    pydantic itself neither writes nor reads half of a surrogate pair.
    """

    model_config = ConfigDict(defer_build=True)  # help names fields and validates nothing

    def model_dump_json(self, **options: Any) -> str:
        """Give it as JSON, as pydantic does where that can; see :func:`as_unicode`."""
        try:
            return super().model_dump_json(**options)
        except PydanticSerializationError:
            indent = options.pop("indent", None)
            data = self.model_dump(mode="json", **options)
            separators = (",", ":") if indent is None else None
            text = json.dumps(data, indent=indent, separators=separators, ensure_ascii=False)
            return as_unicode(text)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Build it from JSON, as pydantic does where that can.

        Raises:
            ValidationError: It is no JSON, or not of this model.
        """
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as error:
            if [line["type"] for line in error.errors()] != ["json_invalid"]:
                raise
            try:
                data = json.loads(json_data)
            except (ValueError, RecursionError):
                raise error from None
            return cls.model_validate(data, **options)


class ConfigModel(TextModel):
    """A frozen model that rejects unknown fields and names the nearest valid one.

    Types are strict (``n: true`` is not 1), and an error never echoes the value it rejects, since
    that may be a secret.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    is_whole: ClassVar[bool] = False
    """Whether users give it by itself; what they give is searched for credentials then."""

    @classmethod
    def prepare(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Adjust raw input before it is validated; models override it where fields interact."""
        return data

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether a field of this name may be given."""
        return name in cls.model_fields

    @classmethod
    def names(cls) -> Iterable[str]:
        """List the names that an unknown one is held against."""
        return cls.model_fields

    @classmethod
    def hint(cls, name: str, data: Mapping[str, Any]) -> str:  # noqa: ARG003 - models look at it
        """Say what a name that is no field was probably meant to be, beside the rest."""
        return nearest(name, cls.names())

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        unknown = {name: value for name, value in data.items() if not cls.accepts(str(name))}
        errors = [
            _unknown(str(name), value, lambda one: cls.hint(one, data), place)
            for place, (name, value) in enumerate(unknown.items())
        ]
        try:
            known = {name: value for name, value in data.items() if name not in unknown}
            if known and cls.is_whole and info.context is None:
                paths = (path.replace("[", ".").replace("]", "") for path in secret_paths(known))
                refuse(cls.__name__, (FieldProblem(path, ADVICE) for path in paths))
            model = handler(cls.prepare(known))
        except ValidationError as error:
            errors += [_line(line["loc"], _as_custom(line)) for line in error.errors()]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)
        return model


def nearest(name: str, valid: Iterable[str]) -> str:
    """Give a hint: the closest valid spelling, or all valid names when none is close."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"valid names: {', '.join(names)}"


class FieldProblem(NamedTuple):
    """What is wrong with one field, and what to change.

    Attributes:
        field: Its dotted name.
        what: What is wrong, without the name of the field.
        remedy: What to change, where that is not said yet.
    """

    field: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    @property
    def message(self) -> str:
        """Both, without the name of the field."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


def refuse(title: str, problems: Iterable[FieldProblem]) -> None:
    """Report problems of single fields, each under its own name; nothing where there are none.

    Raises:
        ValidationError: There are problems.
    """
    refuse_at(title, ((tuple(one.field.split(".")), one.message, False) for one in problems))


def refuse_at(title: str, problems: Iterable[tuple[tuple[str, ...], str, bool]]) -> None:
    """Report problems under the paths of their fields; nothing where there are none.

    Args:
        title: Name of what is validated.
        problems: Path, message, and whether the value is wrong whatever else is given.

    Raises:
        ValidationError: There are problems.
    """
    kinds = {True: wrong_value, False: invalid}
    lines = [_line(loc, kinds[is_value](message)) for loc, message, is_value in problems]
    if lines:
        raise ValidationError.from_exception_data(title, lines, hide_input=True)


def build_section(name: str, model: type[ConfigModel], value: Any) -> ConfigModel:
    """Build a model that stands under a name in a larger one.

    Raises:
        ValidationError: It is invalid; every problem is found under the name.
    """
    try:
        return value if isinstance(value, model) else model.model_validate(value)
    except ValidationError as error:
        lines = [_line((name, *line["loc"]), _as_custom(line)) for line in error.errors()]
        raise ValidationError.from_exception_data(name, lines, hide_input=True) from None


def invalid(message: str) -> PydanticCustomError:
    """Build the error a validator raises; its message reaches the user as it is."""
    return PydanticCustomError(COMBINATION, "{message}", {"message": message})


def wrong_value(message: str) -> PydanticCustomError:
    """Build the error of a value that is wrong whatever else is given; see :func:`invalid`."""
    return PydanticCustomError("wrong_value", "{message}", {"message": message})


def _unknown(
    given: str, value: Any, hint_for: Callable[[str], str], place: int
) -> InitErrorDetails:
    name = redact(given)
    message = f"unknown field '{shortened(name)}'"
    hint = hint_for(name) if place < _MOST_HINTS else ""
    if hint and (place == 0 or "'" in hint):  # the list of all names is given once
        message += f", {hint}"
    if any(secret_paths({given: value})):
        message = ADVICE
    return _line((name,), PydanticCustomError("unknown_field", "{message}", {"message": message}))


def _as_custom(line: Any) -> PydanticCustomError:
    return PydanticCustomError(line["type"], "{message}", {"message": line["msg"]})


def _line(loc: tuple[int | str, ...], error: PydanticCustomError) -> InitErrorDetails:
    return InitErrorDetails(type=error, loc=loc, input=None)


# Nested settings by dotted names ------------------------------------------------------------------


def put(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a value at a dotted path of nested dicts, making the dicts on the way."""
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = data.get(parent)
        data[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        data = data[parent]
    data[last] = value


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested mappings under its dotted name; an empty mapping is no leaf."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Give by dotted name what two nested mappings say otherwise; ``None`` where one is silent."""
    mine, others = dict(flatten(one)), dict(flatten(other))
    pairs = {name: (mine.get(name), others.get(name)) for name in {**mine, **others}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`flatten`."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        put(nested, name, value)
    return nested
