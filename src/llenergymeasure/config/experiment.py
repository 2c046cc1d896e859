"""What to measure: one experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, ValidationInfo, field_validator, model_validator

from llenergymeasure.config import rules
from llenergymeasure.config.base import ConfigModel, build_section, refuse, wrong_value
from llenergymeasure.config.canonical import canonical, canonical_hash
from llenergymeasure.config.experiment_fields import (
    DEFAULT_BACKEND,
    MOST_PROMPTS,
    ExperimentFields,
)
from llenergymeasure.config.introspection import fields
from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.registry import backend_entry, backend_names, plugin_backends
from llenergymeasure.exceptions import ConfigError

BATCH_SIZE = "batch_size"
"""What a flag calls the field that each backend has for the requests served at once."""
STORED = {"stored": True}
"""Validation context of a configuration that is read back, from a result or by a worker.

It was held against the rules, and searched for credentials, by whoever took it in.
"""
ALONE = {"stored": False}
"""Validation context that looks at each field for itself, and not at whether they go together."""


class ExperimentConfig(ExperimentFields):
    """One inference experiment: what to measure, never how or on what machine.

    Built from keyword arguments or from YAML with :meth:`from_yaml`. Unknown fields, wrong types
    and settings that the rest makes meaningless are errors.
    """

    # Sections of plugin backends arrive as extra fields; `accepts` admits no others.
    model_config = ConfigDict(extra="allow")
    is_whole = True

    @classmethod
    def accepts(cls, name: str) -> bool:
        """Admit the declared fields and the sections of plugin backends."""
        return name in cls.model_fields or name in plugin_backends()

    @classmethod
    def hint(cls, name: str, data: Mapping[str, Any]) -> str:
        """Name the field of a section that was meant, where there is one; else the nearest."""
        return meant_inside(name, data.get("backend")) or super().hint(name, data)

    @classmethod
    def prepare(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Fill in what the dataset decides, and build the sections of plugins."""
        extra = [name for name in data if name not in cls.model_fields]
        known = {name: value for name, value in data.items() if name not in extra}
        sections = {
            name: build_section(name, load_object(backend_entry(name).section), data[name])
            for name in extra
            if data[name] is not None
        }
        return {**rules.with_synthetic_defaults(known), **sections}

    @field_validator("backend")
    @classmethod
    def _known_backend(cls, name: str) -> str:
        try:
            backend_entry(name)
        except ConfigError as error:
            raise wrong_value(error.message) from None
        return name

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        # What was measured once stays readable, whatever rules a later version adds.
        if info.context is None:
            refuse(type(self).__name__, rules.contradictions(self))
        return self

    @property
    def section(self) -> ConfigModel:
        """The section of the chosen backend, with its defaults where none was given."""
        given = getattr(self, self.backend, None)
        model = load_object(backend_entry(self.backend).section)
        section: ConfigModel = model() if given is None else given
        return section

    def fingerprint(self) -> str:
        """Hash what is asked for (``measurement_config_hash``).

        Fields at their defaults are left out, so a later version that adds a field with a default
        gives the same hash. So is whatever :func:`canonical` knows to change nothing: two
        configurations that run the same computation have the same fingerprint.
        """
        return canonical_hash(
            canonical(self.model_dump(mode="json", exclude_defaults=True), self.n or MOST_PROMPTS)
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read one experiment from a YAML file.

        Relative paths in the file are taken from the folder it lies in.

        Raises:
            ConfigError: The file cannot be read or does not describe an experiment; the message
                names file, line and field.
        """
        load = load_object("llenergymeasure.config.loader:load_experiment_config")
        experiment: Self = load(Path(path))
        return experiment


def meant_inside(name: str, backend: object) -> str | None:
    """Guess the field of a section that a name without its section was meant for.

    Args:
        name: What stands where fields of an experiment do.
        backend: What ``backend`` says there: its section goes before others.
    """
    first = backend[0] if isinstance(backend, list | tuple) and backend else backend
    chosen = first if first in backend_names() else DEFAULT_BACKEND
    own = f"{chosen}.{backend_entry(str(chosen)).batch_field if name == BATCH_SIZE else name}"
    known = [one.name for one in fields(ExperimentConfig) if one.name.count(".") == 1]
    found = [own] if own in known else [one for one in known if one.endswith(f".{name}")]
    return f"did you mean '{found[0]}'?" if found else None
