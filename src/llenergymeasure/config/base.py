"""The common ground of every configuration model: strict, frozen, helpful about misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError


class ConfigModel(BaseModel):
    """A frozen model that rejects unknown fields and names the nearest valid one.

    Types are strict (``n: true`` is not 1), and an error never echoes the value it rejects, since
    that may be a secret.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    @classmethod
    def prepare(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Adjust raw input before it is validated; models override it where fields interact."""
        return data

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Tell whether a field of this name may be given."""
        return name in cls.model_fields

    @model_validator(mode="wrap")
    @classmethod
    def _report_everything(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        unknown = [name for name in data if not cls.accepts(str(name))]
        errors = [_line((name,), _unknown(str(name), cls.model_fields)) for name in unknown]
        try:
            known = {name: value for name, value in data.items() if name not in unknown}
            model = handler(cls.prepare(known))
        except ValidationError as error:
            errors += [_line(line["loc"], _as_custom(line)) for line in error.errors()]
        except PydanticCustomError as error:
            errors.append(_line((), error))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return model


def nearest(name: str, valid: Iterable[str]) -> str:
    """Give a hint: the closest valid spelling, or all valid names when none is close."""
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"valid names: {', '.join(names)}"


def invalid(message: str) -> PydanticCustomError:
    """Build the error a validator raises; its message reaches the user as it is."""
    return PydanticCustomError("invalid_combination", "{message}", {"message": message})


def _unknown(name: str, fields: Iterable[str]) -> PydanticCustomError:
    message = f"unknown field '{name}', {nearest(name, fields)}"
    return PydanticCustomError("unknown_field", "{message}", {"message": message})


def _as_custom(line: Any) -> PydanticCustomError:
    return PydanticCustomError(line["type"], "{message}", {"message": line["msg"]})


def _line(loc: tuple[int | str, ...], error: PydanticCustomError) -> InitErrorDetails:
    return InitErrorDetails(type=error, loc=loc, input=None)
