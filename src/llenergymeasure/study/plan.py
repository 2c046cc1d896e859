"""The plan of a study: what runs, in which order, and what does not."""

from __future__ import annotations

from typing import NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.study_result import Skipped

__all__ = ["Expansion", "Skipped", "Slot"]


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


class Slot(NamedTuple):
    """One experiment in the order of running.

    Attributes:
        number: Its place, from 1.
        configuration: Index into the configurations of the plan.
        cycle: Its cycle, from 1.
    """

    number: int
    configuration: int
    cycle: int
