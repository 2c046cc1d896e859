"""What tells the configurations of a study apart, in a few words each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.paths import flatten
from llenergymeasure.config.settings_words import described

_ALWAYS = ("backend", "precision")


def labels(configs: Sequence[ExperimentConfig]) -> list[str]:
    """Name each configuration by the settings in which any two of them differ.

    Where nothing differs, backend and precision are the name.
    """
    varied = varied_settings(configs)
    return [
        described(settings or _always(config))
        for settings, config in zip(varied, configs, strict=True)
    ]


def varied_settings(configs: Sequence[ExperimentConfig]) -> list[dict[str, Any]]:
    """Give of each configuration the settings, by dotted name, in which any two of them differ.

    Defaults differ from nothing that spells them out; where a setting varies, its default is told
    as well. What a configuration leaves unset is left out.
    """
    given = [dict(flatten(one.model_dump(mode="json", exclude_defaults=True))) for one in configs]
    varying = _varying(given)
    return [_told(_in_force(config), varying) for config in configs]


def _varying(given: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for settings in given for name in settings)
    seen = {name: {repr(settings.get(name)) for settings in given} for name in names}
    return [name for name in names if len(seen[name]) > 1]


def _in_force(config: ExperimentConfig) -> dict[str, Any]:
    asked = config.model_dump(mode="json", exclude_none=True)
    section = config.section.model_dump(mode="json", exclude_none=True)
    return dict(flatten({**asked, config.backend: section}))


def _told(settings: Mapping[str, Any], varying: Iterable[str]) -> dict[str, Any]:
    # What is a section in one configuration may be a single value in another, as dataset.
    names = {part for name in varying for part in (name, name.partition(".")[0])}
    return {name: value for name, value in settings.items() if name in names}


def _always(config: ExperimentConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _ALWAYS}
