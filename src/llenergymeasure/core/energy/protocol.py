"""The contract of an energy source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from llenergymeasure.domain.energy import EnergyRecording, Reading
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

REST_S = 0.5  # after a warm-up batch whose end is looked at: some ticks, and rest behind them


@dataclass(frozen=True, slots=True)
class SamplingRates:
    """How often a source is read, in milliseconds.

    Attributes:
        counter_poll_ms: Between polls of a counter, and of power beside it or in its place.
        power_poll_ms: Between polls of what asks for no such haste: state, and slow power meters.
    """

    counter_poll_ms: float = 5.0
    power_poll_ms: float = 20.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether a source can tell the energy of some devices.

    Attributes:
        kind: The kind of figure it would give, or ``None`` when it cannot.
        scope: What its total would cover, in words; or why it cannot be used.
        remedy: What to type so that it can be used; empty when it can.
    """

    kind: Literal["measured", "modelled", "unmeasurable"] | None
    scope: str
    remedy: str = ""


StepTimes = Callable[[], Sequence[int]]
"""Gives when each step of a load began (tokens, batches), ns of the monotonic clock."""


def no_steps() -> Sequence[int]:
    """Tell no step."""
    return ()


class EnergyBackend(Protocol):
    """One reader of energy, for one experiment.

    Calls come in the order ``start``, then any number of ``open_window`` and ``close_window``
    pairs, then ``stop``. Readings are taken in a process of their own.
    """

    name: str

    def start(self) -> None:
        """Begin reading; return once the first reading is in.

        Raises:
            BackendError: The source does not answer.
        """
        ...

    def open_window(self) -> None:
        """Return when a window may begin: enough has been read before it."""
        ...

    def close_window(self, window: Window, step_times: StepTimes = no_steps) -> EnergyRecording:
        """Give what was recorded over a window that just ended, after reading on for a while.

        A source that failed meanwhile gives an unmeasurable recording with the reason in its
        notes; it never raises and never gives zero.

        Args:
            window: The window.
            step_times: Asked once reading is over, so that finding out disturbs nothing. A load
                that keeps step with a sensor shows in them alone.
        """
        ...

    def stop(self) -> None:
        """End reading and its process; safe to call twice and after a failure."""
        ...


@runtime_checkable
class DivisibleSource(Protocol):
    """A source that can tell parts of a window apart, from the readings of the whole."""

    def part(self, window: Window) -> EnergyRecording | None:
        """Give the energy of a part of the window that was closed last.

        ``None`` where this source, or what it recorded, cannot tell.
        """
        ...


@runtime_checkable
class EndWatcher(Protocol):
    """A source that learns from ends of other work what the device draws after work.

    Calls come in pairs, outside any window: ``before_end``, the work, ``after_end``.
    """

    def before_end(self, lasts_s: float | None, share: float) -> None:
        """Begin to read before work, and wait so that it ends at a wished place of a tick.

        Args:
            lasts_s: How long the work will take; ``None`` where nobody knows, for no wait.
            share: How long before a tick it is to end, as a share of the tick.
        """
        ...

    def after_end(self, at_ns: int) -> Sequence[Reading]:
        """Read on while the device rests; give every reading.

        Args:
            at_ns: When the work ended, monotonic clock.
        """
        ...


class EnergySourceType(Protocol):
    """How a source is made: what every implementation's class offers."""

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        """Say what the source would tell of these devices on this machine."""
        ...

    def __call__(self, target: DeviceTarget, rates: SamplingRates) -> EnergyBackend:
        """Make the source for these devices."""
        ...
