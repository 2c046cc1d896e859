"""Power without work, measured through the energy source of an experiment."""

from __future__ import annotations

import time
from collections.abc import Callable

from llenergymeasure.config.models import BaselineConfig
from llenergymeasure.core.energy.parts import idle_power
from llenergymeasure.core.energy.selection import Selection
from llenergymeasure.core.energy.stored import SPOT_S, BaselineCache, confirmed
from llenergymeasure.domain.energy import Idle
from llenergymeasure.domain.results import BaselineResult
from llenergymeasure.domain.samples import Window, WindowName, WindowReadings


class Baseline:
    """Measures idle power twice: before the model is there, and with it.

    Args:
        config: What was asked for.
        selection: The energy source, started before anything is measured.
        sleep: Waits, seconds.
        clock_ns: The clock of windows.

    Attributes:
        skipped: Why nothing is measured, or ``None``.
        windows: What was read, window by window.
    """

    def __init__(
        self,
        config: BaselineConfig,
        selection: Selection,
        sleep: Callable[[float], None] = time.sleep,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config, self._source = config, selection.source
        self._sleep, self._clock_ns = sleep, clock_ns
        kind = selection.coverage.kind
        self.skipped = None if kind == "measured" else f"energy is {kind}, not measured"
        if not config.enabled:
            self.skipped = "baseline.enabled is false"
        self.windows: list[WindowReadings] = []
        self._device: Idle | None = None
        self._device_age_s: float | None = None
        self._loaded: Idle | None = None

    def measure_device(self, cache: BaselineCache | None = None) -> None:
        """Measure the device before the model is loaded, or confirm what is known of it.

        Args:
            cache: Idle power of the same devices from before, or ``None`` to measure afresh.
        """
        duration_s = self._config.duration_seconds
        if cache and duration_s > 2 * SPOT_S and (stored := cache.find(duration_s)):
            spot = self._measure("device_idle_check", SPOT_S)
            if spot is not None and confirmed(stored, spot):
                self._device = Idle(stored.power_w, stored.interval95_w, steady=True)
                self._device_age_s = cache.age_s(stored)
                return
        self._device = self._measure("device_idle", duration_s)
        if cache and self._device is not None:
            cache.keep(self._device, duration_s)

    def measure_loaded(self) -> None:
        """Measure the device with the model resident and nothing to do."""
        self._loaded = self._measure("loaded_idle", self._config.duration_seconds)

    def result(self) -> BaselineResult:
        """Give what was measured, or why nothing was."""
        device, loaded = self._device, self._loaded
        nothing = None if device or loaded else "the energy source gave no figure"
        skipped = self.skipped or nothing
        return BaselineResult(
            device_idle_w=device.power_w if device else None,
            loaded_idle_w=loaded.power_w if loaded else None,
            device_idle_interval95_w=device.interval95_w if device else None,
            loaded_idle_interval95_w=loaded.interval95_w if loaded else None,
            device_idle_steady=device.steady if device else None,
            loaded_idle_steady=loaded.steady if loaded else None,
            device_idle_age_s=self._device_age_s,
            duration_s=None if skipped else self._config.duration_seconds,
            skipped=skipped,
        )

    def _measure(self, name: WindowName, duration_s: float) -> Idle | None:
        self._source.open_window()
        t0_ns = self._clock_ns()
        self._sleep(duration_s)
        window = Window(t0_ns, self._clock_ns())
        recording = self._source.close_window(window)
        self.windows.append(WindowReadings(name, window, recording.readings))
        return idle_power(self._source, window, recording)
