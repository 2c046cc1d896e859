"""Write a design out: every combination it asks for, checked, merged and counted. Pure."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from llenergymeasure.config import rules
from llenergymeasure.config.base import nest
from llenergymeasure.config.experiment import ALONE
from llenergymeasure.config.inheritance import merged
from llenergymeasure.config.models import ExperimentConfig, StudyConfig, WarmupConfig
from llenergymeasure.config.plain_words import plain_problems
from llenergymeasure.config.registry import backend_names
from llenergymeasure.config.study_rules import scope
from llenergymeasure.domain.study_result import Skipped
from llenergymeasure.exceptions import StudyError

MAX_COMBINATIONS = 200_000
"""Combinations of a design that nobody has confirmed."""

_COLD = WarmupConfig(n_warmup=0, thermal_floor_seconds=0.0)
_REASONS_SHOWN = 10

OwnLengths = Callable[[ExperimentConfig], bool]
"""Tells whether every prompt of an experiment has a ``max_new_tokens`` of its own."""


_Candidate = tuple[dict[str, Any], ExperimentConfig | str]


class Expansion(NamedTuple):
    """A design written out.

    Attributes:
        experiments: The distinct valid configurations, in the order of the design.
        skipped: What is not run.
        generated: Combinations the design asks for, with those merged and skipped.
        merged: Combinations that equal an earlier one.
        fingerprints: ``measurement_config_hash`` of each of ``experiments``.
    """

    experiments: tuple[ExperimentConfig, ...]
    skipped: tuple[Skipped, ...]
    generated: int
    merged: int
    fingerprints: tuple[str, ...] = ()


class _Grid(NamedTuple):
    """Defaults of one backend, and the dimensions that vary over them."""

    base: dict[str, Any]
    dimensions: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    entry: ExperimentConfig | None = None

    @property
    def size(self) -> int:
        return math.prod(len(values) for _, values in self.dimensions)


def expand(
    study: StudyConfig,
    *,
    own_lengths: OwnLengths = lambda _: False,
) -> Expansion:
    """Write out every experiment of a study, in the order of the design.

    The grid of each backend comes first, the last key of ``sweep`` varying fastest, then the
    explicit entries. Combinations that contradict themselves are skipped with their reason;
    combinations that run the same computation as an earlier one are merged.

    Args:
        study: The design.
        own_lengths: Tells of an experiment whether each of its prompts says for itself how many
            tokens to generate, so that sweeping ``max_new_tokens`` changes nothing.

    Raises:
        StudyError: No combination can run; the reasons are listed.
    """
    grids = list(_grids(study))
    generated = sum(grid.size for grid in grids)
    candidates = (candidate for grid in grids for candidate in _candidates(grid, study))
    expansion = _merged(candidates, generated, own_lengths)
    if not expansion.experiments:
        raise _all_invalid(expansion)
    return expansion


def combinations(study: StudyConfig) -> int:
    """Count the combinations that a design asks for, before any is looked at."""
    return sum(grid.size for grid in _grids(study))


def cold(config: ExperimentConfig) -> ExperimentConfig:
    """Give an experiment as it is run in a study of cold starts: nothing is warmed up."""
    return config.model_copy(update={"warmup": _COLD})


def check_size(study: StudyConfig, limit: int = MAX_COMBINATIONS) -> None:
    """Refuse a design with more combinations than need no confirmation.

    Raises:
        StudyError: It is too large.
    """
    if (count := combinations(study)) > limit:
        raise StudyError(
            f"the design has {count:,} combinations, more than {limit:,}; shorten the "
            "lists of sweep:, or confirm with --yes",
            where="sweep",
        )


# The grids ----------------------------------------------------------------------------------------


def _grids(study: StudyConfig) -> Iterator[_Grid]:
    if study.sweep or not study.experiments:
        for backend in study.backends:
            dimensions = tuple(
                (key, values)
                for key, values in study.sweep.items()
                if scope(key) in (None, backend)
            )
            yield _Grid(_base(study.defaults, backend), dimensions)
    for entry in study.experiments:
        if isinstance(entry, ExperimentConfig):
            yield _Grid({}, (), entry)
            continue
        # It names its backend, or implies it by a section; else it runs on every one listed.
        implied = [name for name in study.backends if entry.get(name) is not None]
        own = tuple((name, (value,)) for name, value in entry.items() if name != "backend")
        for backend in (entry["backend"],) if "backend" in entry else implied or study.backends:
            yield _Grid(_base(study.defaults, backend), own)


def _base(defaults: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """Take the defaults for one backend; sections of others are meant for their experiments."""
    others = {name for name in backend_names() if name != backend}
    return {
        **{name: value for name, value in defaults.items() if name not in others},
        "backend": backend,
    }


# Combinations -------------------------------------------------------------------------------------


def _candidates(grid: _Grid, study: StudyConfig) -> Iterator[_Candidate]:
    """Yield the settings of each combination, and the experiment or why there is none."""
    if grid.entry is not None:
        config = cold(grid.entry) if study.cold_start else grid.entry
        yield config.model_dump(mode="json", exclude_defaults=True), config
        return
    keys = [key for key, _ in grid.dimensions]
    for values in itertools.product(*(values for _, values in grid.dimensions)):
        settings = dict(zip(keys, values, strict=True))
        data = grid.base
        for key, value in settings.items():  # a section may be swept beside one of its fields
            data = merged(data, nest({key: value}))
        if study.cold_start:
            data = {**data, "warmup": _COLD}
        yield {"backend": grid.base["backend"], **settings}, _checked(data)


def _checked(data: dict[str, Any]) -> ExperimentConfig | str:
    try:
        # The rules are asked below: a list of problems costs less than an error for each.
        config = ExperimentConfig.model_validate(data, context=ALONE)
    except ValidationError as error:
        texts = (f"{'.'.join(one.loc)}: {one.message}" for one in plain_problems(error, {}))
        return "; ".join(texts)
    if problems := rules.contradictions(config):
        return "; ".join(f"{p.field}: {p.what}" for p in problems)
    return config


# Counting -----------------------------------------------------------------------------------------


def _merged(candidates: Iterable[_Candidate], generated: int, own_lengths: OwnLengths) -> Expansion:
    experiments: dict[str, ExperimentConfig] = {}
    skipped: list[Skipped] = []
    lengths: dict[str, int] = {}
    merged_count = 0
    for settings, config in candidates:
        if isinstance(config, str):
            skipped.append(Skipped(config=settings, reason=config))
            continue
        if "max_new_tokens" in settings and own_lengths(config):
            alike = config.model_copy(update={"max_new_tokens": 1}).fingerprint()
            if lengths.setdefault(alike, config.max_new_tokens) != config.max_new_tokens:
                no_effect = f"max_new_tokens: {config.max_new_tokens} has no effect"
                because = f"{no_effect}; every prompt of the dataset has its own"
                skipped.append(Skipped(config=settings, reason=because))
                continue
        fingerprint = config.fingerprint()
        merged_count += fingerprint in experiments
        experiments.setdefault(fingerprint, config)
    return Expansion(
        tuple(experiments.values()), tuple(skipped), generated, merged_count, tuple(experiments)
    )


def _all_invalid(expansion: Expansion) -> StudyError:
    reasons = Counter(skip.reason for skip in expansion.skipped).most_common()
    lines = [f"  - {count:,} x {reason}" for reason, count in reasons[:_REASONS_SHOWN]]
    if len(reasons) > _REASONS_SHOWN:
        lines.append(f"  - and {len(reasons) - _REASONS_SHOWN:,} more reasons")
    none = f"none of the {expansion.generated:,} combinations of the design can run"
    if expansion.generated == 1:
        none = "the one combination of the design cannot run"
    return StudyError(f"{none}:\n" + "\n".join(lines), where="sweep")
