"""What every energy source that reads in a sampling process has in common."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

from llenergymeasure.core.energy.sampler import Recorded, SamplerProcess
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.samples import Window
from llenergymeasure.exceptions import BackendError


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
        try:
            self._sampler.begin()
        except BackendError as error:
            self._failure = self._failure or error.message
            return
        time.sleep(self.lead_s)

    def close_window(self, window: Window) -> EnergyRecording:
        """Give what was recorded over a window that just ended; never raises, never zero."""
        if self._failure is None:
            time.sleep(self.tail_s)
            try:
                return self.recording(self._sampler.end(), window)
            except BackendError as error:
                self._failure = error.message
        return EnergyRecording(source=self.name, notes=(self._failure,))

    def stop(self) -> None:
        """End the sampler; safe to call twice and after a failure."""
        self._sampler.stop()
