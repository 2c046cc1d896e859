"""The three states of an experiment and the ways between them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from llenergymeasure.exceptions import ExperimentError


class ExperimentState(StrEnum):
    """Where an experiment stands."""

    INITIALISING = "initialising"  # pre-flight, baseline, model load, warm-up
    MEASURING = "measuring"  # the measured window
    DONE = "done"  # complete or failed


_NEXT = {
    ExperimentState.INITIALISING: (ExperimentState.MEASURING, ExperimentState.DONE),
    ExperimentState.MEASURING: (ExperimentState.DONE,),
    ExperimentState.DONE: (),
}

Listener = Callable[[ExperimentState, str], None]


class StateMachine:
    """Follows one experiment; each phase belongs to one state.

    Attributes:
        state: Where the experiment stands.
        phase: What it is doing, in a word.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.state = ExperimentState.INITIALISING
        self.phase = "start"
        self._listener = listener

    def enter(self, phase: str, state: ExperimentState | None = None) -> None:
        """Go on to a phase, of the same state or of a later one.

        Raises:
            ExperimentError: The state cannot follow the present one.
        """
        target = state or self.state
        if target is not self.state and target not in _NEXT[self.state]:
            raise ExperimentError(
                f"an experiment that is {self.state.value} cannot become {target.value}",
                where=phase,
            )
        self.state, self.phase = target, phase
        if self._listener:
            self._listener(target, phase)
