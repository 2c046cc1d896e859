"""What every energy source that reads in a sampling process has in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import replace

from llenergymeasure.core.energy.protocol import StepTimes, no_steps
from llenergymeasure.core.energy.sampler import Recorded, SamplerProcess
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError

PART_GUARD_NS = 2_000_000_000  # of readings on each side of a part: ticks, and a mean over 1 s


class SampledSource(ABC):
    """An energy source around one :class:`SamplerProcess`.

    A subclass names itself, makes its sampler, and turns what was recorded into a recording.

    Attributes:
        name: What a configuration calls it.
        lead_s: How long readings go on before a window may begin, seconds.
        tail_s: How long readings go on after it ended, seconds.
    """

    name: str
    lead_s = 0.0
    tail_s = 0.0

    def __init__(self, sampler: SamplerProcess) -> None:
        self._sampler = sampler
        self._failure: str | None = None
        self._last: Recorded | None = None

    @abstractmethod
    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Turn what the sampler recorded into the energy of a window."""

    def start(self) -> None:
        """Start the sampler; return once the first reading is in.

        Raises:
            BackendError: Another source runs, or this one does not answer.
        """
        self._failure = None
        self._sampler.start()

    def open_window(self) -> None:
        """Return when a window may begin; a failure waits for :meth:`close_window`."""
        self._last = None
        try:
            self._sampler.begin()
        except BackendError as error:
            self._failure = self._failure or error.message
            return
        time.sleep(self.lead_s)

    def close_window(self, window: Window, step_times: StepTimes = no_steps) -> EnergyRecording:
        """Give what was recorded over a window that just ended; never raises, never zero."""
        if self._failure is None:
            time.sleep(self.tail_s)
            try:
                recorded = self._sampler.end()
            except BackendError as error:
                self._failure = error.message
            else:
                self._last = replace(recorded, step_times_ns=step_times())
                return self.recording(self._last, window)
        return EnergyRecording(source=self.name, notes=(self._failure,))

    def part(self, window: Window) -> EnergyRecording | None:
        """Give the energy of a part of the window that was closed last, from the same readings.

        ``None`` where that window has no readings.
        """
        if self._last is None:
            return None
        readings = self._last.readings
        first = bisect_left(readings, window.t0_ns - PART_GUARD_NS, key=lambda r: r.after_ns)
        last = bisect_left(readings, window.t1_ns + PART_GUARD_NS, key=lambda r: r.after_ns)
        return self.recording(replace(self._last, readings=readings[first:last]), window)

    def stop(self) -> None:
        """End the sampler; safe to call twice and after a failure."""
        self._sampler.stop()
