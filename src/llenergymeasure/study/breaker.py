"""Stops a study whose experiments all fail the same way."""

from __future__ import annotations

import re

from llenergymeasure.domain.results import FailedExperiment
from llenergymeasure.exceptions import StudyError

ENOUGH = 3
"""Failures, and different configurations that failed where there are as many, before it stops."""


class CircuitBreaker:
    """Trips once every experiment so far has failed alike; one success disarms it for good.

    Args:
        configurations: Distinct configurations of the study.
    """

    def __init__(self, configurations: int) -> None:
        self._needed = min(ENOUGH, configurations)
        self._ways: set[tuple[str, str | None, str]] = set()
        self._failed: set[int] = set()
        self._count = 0
        self._armed = True

    def succeeded(self) -> None:
        """Note a success."""
        self._armed = False

    def failed(self, configuration: int, failure: FailedExperiment) -> None:
        """Note a failure.

        Raises:
            StudyError: Nothing else is to be expected of the rest.
        """
        self._ways.add(way_of_failing(failure))
        self._failed.add(configuration)
        self._count += 1
        alike = self._armed and len(self._ways) == 1
        if alike and self._count >= ENOUGH and len(self._failed) >= self._needed:
            raise StudyError(
                f"stopped: all {self._count} experiments failed the same way, in phase "
                f"'{failure.phase}': {failure.message}\n"
                "  mend that first: the others would fail as well",
                where=failure.phase,
            )


def way_of_failing(failure: FailedExperiment) -> tuple[str, str | None, str]:
    """Tell failures apart by code, phase and the words of their first line, figures aside."""
    line = failure.message.partition("\n")[0]
    return failure.code, failure.phase, re.sub(r"\d+", "#", line)
