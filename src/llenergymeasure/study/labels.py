"""What tells the configurations of a study apart, in a few words each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.paths import flatten
from llenergymeasure.domain.settings_words import described, ordered

_ALWAYS = ("backend", "precision")


def labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Name each configuration by the settings in which any two of them differ.

    Where nothing differs, backend and precision are the name. A setting that is not given is left
    out.
    """
    flat = [dict(flatten(config.model_dump(mode="json", exclude_none=True))) for config in configs]
    varying = _varying(flat)
    return [_label(values, varying) for values in flat]


def _varying(flat: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for values in flat for name in values)
    seen = {name: {repr(values.get(name)) for values in flat} for name in names}
    return ordered(name for name in names if len(seen[name]) > 1)


def _label(values: dict[str, Any], varying: Sequence[str]) -> str:
    told = [name for name in varying if name in values]
    return described({name: values[name] for name in told or _ALWAYS})
