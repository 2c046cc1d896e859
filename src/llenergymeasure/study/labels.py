"""What tells the configurations of a study apart, in a few words each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.paths import flatten

_ALWAYS = ("backend", "precision")
# Their values say by themselves what they are of.
_BARE = (
    "model",
    "backend",
    "precision",
    "dataset",
    "decoder.decoding_strategy",
    "pytorch.batching_strategy",
    "pytorch.attn_implementation",
)
_FIRST = ("model", *_ALWAYS)


def labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Name each configuration by the settings in which any two of them differ.

    Where nothing differs, backend and precision are the name. A setting that is not given is left
    out.
    """
    flat = [dict(flatten(config.model_dump(mode="json", exclude_none=True))) for config in configs]
    varying = _varying(flat)
    return [_label(values, varying) for values in flat]


def described(settings: Mapping[str, Any]) -> str:
    """Write settings on one line, e.g. ``pytorch bf16 batch_size=8``."""
    flat = dict(flatten(settings))
    return " ".join(_word(name, flat[name]) for name in _ordered(flat))


def _varying(flat: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for values in flat for name in values)
    seen = {name: {repr(values.get(name)) for values in flat} for name in names}
    return _ordered(name for name in names if len(seen[name]) > 1)


def _ordered(names: Iterable[str]) -> list[str]:
    given = list(names)
    return [*(name for name in _FIRST if name in given), *(n for n in given if n not in _FIRST)]


def _label(values: dict[str, Any], varying: Sequence[str]) -> str:
    told = [name for name in varying if name in values]
    return " ".join(_word(name, values[name]) for name in told or _ALWAYS)


def _word(name: str, value: Any) -> str:
    if name in _BARE and isinstance(value, str):
        return value
    return f"{name.rpartition('.')[2]}={_plain(value)}"


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
