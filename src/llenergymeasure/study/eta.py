"""How long the rest of a study takes, learned from the experiments that have finished."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean


class DurationsSeen:
    """Remembers how long experiments took, by configuration."""

    def __init__(self) -> None:
        self._seen: dict[int, list[float]] = {}

    def add(self, configuration: int, seconds: float) -> None:
        """Take in one that ran to its end."""
        self._seen.setdefault(configuration, []).append(seconds)

    def expected_s(self, configurations: Iterable[int]) -> float | None:
        """Add up what experiments of these configurations will take.

        A configuration that has run takes its mean; another one the mean of all that have.

        Returns:
            Seconds, ``None`` while nothing has finished.
        """
        if not self._seen:
            return None
        means = {configuration: fmean(seen) for configuration, seen in self._seen.items()}
        typical = fmean(means.values())
        return sum(means.get(configuration, typical) for configuration in configurations)
