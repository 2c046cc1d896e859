"""What tells the configurations of a study apart, in a few words each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.paths import flatten

_ALWAYS = ("backend", "precision")


def labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Name each configuration by the settings in which any two of them differ.

    Where nothing differs, backend and precision are the name. A setting that is not given is left
    out.
    """
    flat = [dict(flatten(config.model_dump(mode="json", exclude_none=True))) for config in configs]
    varying = _varying(flat)
    return [_name(values, varying) for values in flat]


def _varying(flat: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for values in flat for name in values)
    seen = {name: {repr(values.get(name)) for values in flat} for name in names}
    return [name for name in names if len(seen[name]) > 1]


def _name(values: dict[str, Any], varying: Sequence[str]) -> str:
    told = [f"{_short(name)}={values[name]}" for name in varying if name in values]
    return " ".join(told or [str(values[name]) for name in _ALWAYS])


def _short(name: str) -> str:
    return name.rpartition(".")[2]
