"""How long the rest of a study takes, learned from the experiments that have finished."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable


class TimeLeft:
    """What the rest of a study takes: its experiments, as those before them took, and its pauses.

    A configuration that has run takes its mean; another one the mean of all that have. Sums are
    kept as they go, so an answer costs the same in every study.

    Args:
        rest: Configuration, and pause before it in seconds, of each experiment, in order.
    """

    def __init__(self, rest: Iterable[tuple[int, float]] = ()) -> None:
        self._rest = deque(rest)
        self._pauses_s = sum(pause_s for _, pause_s in self._rest)
        self._wanted = Counter(configuration for configuration, _ in self._rest)
        self._unseen = len(self._rest)
        self._seen: dict[int, tuple[int, float]] = {}
        self._means_s = 0.0
        self._known_s = 0.0

    def learn(self, configuration: int, seconds: float) -> None:
        """Take in one that ran to its end."""
        count, mean_s = self._seen.get(configuration, (0, 0.0))
        changed_s = mean_s + (seconds - mean_s) / (count + 1)
        wanted = self._wanted[configuration]
        if not count:
            self._unseen -= wanted
        self._seen[configuration] = (count + 1, changed_s)
        self._means_s += changed_s - mean_s
        self._known_s += wanted * (changed_s - mean_s)

    def begin(self) -> None:
        """Take the next experiment, and the pause before it, off the rest."""
        configuration, pause_s = self._rest.popleft()
        self._pauses_s -= pause_s
        self._wanted[configuration] -= 1
        if configuration in self._seen:
            self._known_s -= self._seen[configuration][1]
        else:
            self._unseen -= 1

    def seconds(self) -> float | None:
        """Say how long the rest takes.

        Returns:
            Seconds, ``None`` while nothing has finished.
        """
        if not self._seen:
            return None
        if not self._rest:
            return 0.0  # exactly: the running sums end within a rounding of it
        typical_s = self._means_s / len(self._seen)
        return self._known_s + self._unseen * typical_s + self._pauses_s
