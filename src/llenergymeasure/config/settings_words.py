"""Settings of a configuration in a few words, e.g. ``bf16 batch_size=8``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llenergymeasure.config.base import flatten
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.plain_words import as_yaml
from llenergymeasure.config.registry import all_backends

# Their values say by themselves what they are of.
_BARE = ("model", "backend", "precision", "dataset", "decoder.decoding_strategy")
_FIRST = ("model", "backend", "precision")


def described(settings: Mapping[str, Any]) -> str:
    """Write settings, nested or with dotted names, on one line: ``pytorch bf16 batch_size=8``."""
    flat, words, backends = dict(flatten(settings)), [], all_backends()
    for name in ordered(flat):
        (section, _, field), value = name.rpartition("."), flat[name]
        plain = name in _BARE or (section in backends and field in backends[section].plain_fields)
        words.append(value if plain and isinstance(value, str) else f"{field}={as_yaml(value)}")
    return " ".join(words)


def ordered(names: Iterable[str]) -> list[str]:
    """Put the names that everybody asks for first; the others stay in their order."""
    given = list(names)
    return [*(name for name in _FIRST if name in given), *(n for n in given if n not in _FIRST)]


def labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Name each configuration by the settings in which any two of them differ.

    Where nothing differs, backend and precision are the name.
    """
    varied = varied_settings(configs)
    return [
        described(settings or {"backend": config.backend, "precision": config.precision})
        for settings, config in zip(varied, configs, strict=True)
    ]


def varied_settings(configs: Sequence[ExperimentConfig]) -> list[dict[str, Any]]:
    """Give of each configuration the settings, by dotted name, in which any two of them differ.

    Defaults differ from nothing that spells them out; where a setting varies, its default is told
    as well. What a configuration leaves unset is left out.
    """
    given = [dict(flatten(one.model_dump(mode="json", exclude_defaults=True))) for one in configs]
    names = dict.fromkeys(name for settings in given for name in settings)
    seen = {name: {repr(settings.get(name)) for settings in given} for name in names}
    varying = [name for name in names if len(seen[name]) > 1]
    # What is a section in one configuration may be a single value in another, as dataset.
    told = {part for name in varying for part in (name, name.partition(".")[0])}
    found = []
    for config in configs:
        asked = config.model_dump(mode="json", exclude_none=True)
        section = config.section.model_dump(mode="json", exclude_none=True)
        in_force = flatten({**asked, config.backend: section})
        found.append({name: value for name, value in in_force if name in told})
    return found
