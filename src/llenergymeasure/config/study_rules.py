"""What can be wrong with the design of a study before any combination of it is looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from llenergymeasure.config.base import nest
from llenergymeasure.config.experiment import ALONE, ExperimentConfig
from llenergymeasure.config.experiment_fields import DEFAULT_BACKEND
from llenergymeasure.config.plain_words import plain_problems
from llenergymeasure.config.registry import backend_entry, backend_names
from llenergymeasure.exceptions import ConfigError, shortened

MOST_COMBINATIONS = 10_000_000
"""Combinations that a plan has room for; fewer than that have to be confirmed."""
_MOST_WRONG_VALUES = 100
_DEEPEST = 50

COLD = "has no effect with cold_start: true, which warms nothing up; remove the line"


def scope(key: str) -> str | None:
    """Name the backend that a sweep key is scoped to, or ``None`` for a universal key."""
    section = key.partition(".")[0]
    return section if section in backend_names() else None


class Design(NamedTuple):
    """What a study describes, as its author wrote it down.

    Attributes:
        fields: The fields of an experiment that stand at the top.
        sweep: Dotted fields to their values.
        experiments: The explicit entries.
        cold_start: Whether nothing is warmed up.
    """

    fields: Mapping[str, Any]
    sweep: Mapping[str, tuple[Any, ...]]
    experiments: tuple[ExperimentConfig | dict[str, Any], ...]
    cold_start: bool

    @property
    def defaults(self) -> dict[str, Any]:
        """The experiment fields that stand at the top, as they were given, without ``backend``."""
        return {name: value for name, value in self.fields.items() if name != "backend"}

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends of the grid: those named, else those whose settings are swept."""
        given = self.fields.get("backend")
        if given is not None:
            return (given,) if isinstance(given, str) else tuple(given)
        return tuple(dict.fromkeys(filter(None, map(scope, self.sweep)))) or (DEFAULT_BACKEND,)

    @property
    def all_backends(self) -> tuple[str, ...]:
        """The backends of the grid and of the explicit entries."""
        entries = self.experiments
        named = [one.get("backend") if isinstance(one, dict) else one.backend for one in entries]
        return tuple(dict.fromkeys((*self.backends, *(n for n in named if isinstance(n, str)))))

    @property
    def lists_backends(self) -> bool:
        """Whether the design names its backends as a list, or implies several."""
        return len(self.backends) > 1 or not isinstance(self.fields.get("backend", ""), str)


class _Located(NamedTuple):
    """A problem, and whether the value is wrong whatever else is given."""

    loc: tuple[str, ...]
    message: str
    is_value: bool = False


def sweep_problems(sweep: Mapping[str, Any]) -> Iterator[_Located]:
    """List the keys of a sweep that name no field, or hold no list of values."""
    for key, values in sweep.items():
        loc = ("sweep", str(key))
        if isinstance(values, Mapping):
            swept = shortened(f"{key}.{next(iter(values), 'field')}")
            yield _Located(loc, f"must be a list; a field inside it is swept as '{swept}'")
        elif str(key).count(".") > _DEEPEST:
            yield _Located(loc, f"names a field more than {_DEEPEST} levels deep")
        elif not isinstance(values, list | tuple):
            # A number or a truth value is shown; text may be a secret.
            shown = shortened(str(values).lower()) if isinstance(values, int | float) else "value"
            yield _Located(loc, f"must be a list of values; write [{shown}] for one")
        elif not values:
            said = "is an empty list; give at least one value, or remove the line"
            yield _Located(loc, said, is_value=True)


def design_problems(study: Design) -> Iterator[_Located]:
    """List everything in a design that could never be right, whatever it is combined with."""
    if problems := list(_backend_problems(study)) or list(_size_problems(study)):
        yield from problems
        return
    yield from _default_problems(study)
    yield from _warmup_problems(study)
    for key, values in study.sweep.items():
        yield from _key_problems(study, key, values)
    for position, entry in enumerate(study.experiments):
        if isinstance(entry, dict):
            for one in _partial_problems(entry, study.backends[0]):
                yield one._replace(loc=("experiments", str(position), *one.loc))
    yield from _combined_problems(study)


def _backend_problems(study: Design) -> Iterator[_Located]:
    given = study.fields.get("backend", DEFAULT_BACKEND)
    if not isinstance(given, str | list | tuple) or not all(isinstance(b, str) for b in given):
        yield _Located(("backend",), "must be the name of a backend, or a list of names")
        return
    if not given:
        yield _Located(("backend",), "is an empty list; name at least one backend")
    for name in study.backends:
        try:
            backend_entry(name)
        except ConfigError as error:
            yield _Located(("backend",), error.message, is_value=True)
    if len(set(study.backends)) < len(study.backends):
        yield _Located(("backend",), "names a backend twice")


def _size_problems(study: Design) -> Iterator[_Located]:
    count = sum(
        math.prod(len(values) for key, values in study.sweep.items() if scope(key) in (None, one))
        for one in study.backends
    )
    if count > MOST_COMBINATIONS:
        told = f"{count:,}" if count < 10**15 else f"about 10^{math.log10(count):.0f}"
        most = f"a study has at most {MOST_COMBINATIONS:,}"
        yield _Located(("sweep",), f"asks for {told} combinations, and {most}; shorten its lists")


def _default_problems(study: Design) -> Iterator[_Located]:
    yield from _partial_problems(study.defaults, study.backends[0])
    used = set(study.all_backends)
    for name in study.defaults:
        if name in backend_names() and name not in used and study.defaults[name] is not None:
            yield _Located(
                (name,),
                f"does not apply to backend: {', '.join(study.backends)}; remove the line "
                f"'{name}:' or add {name} to backend",
            )


def _warmup_problems(study: Design) -> Iterator[_Located]:
    """Find the warm-up of a cold start, at the top and in the entries."""
    if not study.cold_start:
        return
    if study.defaults.get("warmup") is not None:
        yield _Located(("warmup",), COLD)
    for position, entry in enumerate(study.experiments):
        warmup = entry.get("warmup") if isinstance(entry, dict) else entry.warmup
        if warmup is not None and (isinstance(entry, dict) or "warmup" in entry.model_fields_set):
            yield _Located(("experiments", str(position), "warmup"), COLD)


def _key_problems(study: Design, key: str, values: tuple[Any, ...]) -> Iterator[_Located]:
    loc, scoped = ("sweep", key), scope(key)
    if key == "backend":
        yield _Located(loc, "several backends are named outside the sweep, as backend: [...]")
    elif scoped and scoped not in study.backends:
        listed = ", ".join((*study.backends, scoped))
        yield _Located(
            loc, f"backend {scoped} is not listed; remove the line or set backend: [{listed}]"
        )
    elif study.cold_start and key.partition(".")[0] == "warmup":
        yield _Located(loc, COLD)
    else:
        found: dict[tuple[str, bool], list[str]] = {}
        for position, value in enumerate(values, start=1):
            for problem in _partial_problems(nest({key: value}), study.backends[0]):
                found.setdefault((problem.message, problem.is_value), []).append(str(position))
            if sum(map(len, found.values())) >= _MOST_WRONG_VALUES:
                break
        for (message, is_value), positions in found.items():
            few = ", ".join(positions[:5]) + (", ..." if positions[5:] else "")
            whole = len(positions) == position
            yield _Located(loc, message if whole else f"value {few}: {message}", is_value)


def _partial_problems(data: dict[str, Any], backend: str) -> Iterator[_Located]:
    """Check each field for itself; whether they go together depends on the combination."""
    checked = {"model": "-", "backend": backend, **data}
    dataset = data.get("dataset")
    if isinstance(dataset, Mapping) and {"column", "limit_column"} & dataset.keys():
        checked["dataset"] = {"path": "-", **dataset}  # the file may stand elsewhere
    try:
        ExperimentConfig.model_validate(checked, context=ALONE)
    except ValidationError as error:
        for problem in plain_problems(error, checked):
            yield _Located(*problem)


def _combined_problems(study: Design) -> Iterator[_Located]:
    if "model" not in study.defaults and "model" not in study.sweep:
        entries = [entry for entry in study.experiments if isinstance(entry, dict)]
        if study.sweep or not study.experiments or any("model" not in each for each in entries):
            yield _Located(("model",), "this field is required")
    several = study.lists_backends
    kwargs = study.defaults.get("passthrough_kwargs") is not None
    if several and (kwargs or any(key.startswith("passthrough_kwargs") for key in study.sweep)):
        yield _Located(
            ("passthrough_kwargs",),
            "is handed to one engine's constructor and cannot go with a list of backends; put it "
            "into an entry of experiments: that names its backend",
        )
