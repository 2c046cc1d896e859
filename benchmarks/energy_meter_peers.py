"""Zeus and CodeCarbon as meters of ``energy_realtime.py``, at their best documented settings.

Run in an environment of its own (``energy-peer-requirements.txt``):
``python energy_meter_peers.py METHOD TICK_S``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import energy_meter
from energy_meter import Told

JOULES_PER_KWH = 3.6e6
QUEUE_S = 0.2  # for power samples on their way from PowerMonitor's process


class ZeusWindows:
    """``ZeusMonitor``: counter readings at the begin and end of a window.

    - ``gpu_indices``, ``cpu_indices``: only what is measured is read, so nothing else delays it.
    - ``approx_instant_energy=True``: what its documentation and its warning recommend for windows
      that are shorter than the counter's update period
      (``zeus.monitor.energy.ZeusMonitor``, release notes of v0.6.1).
    - ``sync_execution=False``: there is no framework whose work would have to be waited for.
    - One monitor for all windows (its maintainer, ml-energy/zeus discussion 74).
    """

    def __init__(self) -> None:
        from zeus.monitor import ZeusMonitor

        self._monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[], approx_instant_energy=True)
        self._told: Any = None

    def prepare(self) -> None:
        """Do nothing."""

    def begin(self) -> None:
        """Read the counter."""
        self._monitor.begin_window("window", sync_execution=False)

    def end(self) -> None:
        """Read it again."""
        self._told = self._monitor.end_window("window", sync_execution=False)

    def tell(self, t0_ns: int, t1_ns: int) -> Told:
        """Give the difference."""
        return Told(float(self._told.gpu_energy[0]))

    def close(self) -> None:
        """Do nothing."""


class ZeusPower:
    """Zeus's ``PowerMonitor``: power polled in a process of its own, integrated by trapezoid.

    - ``update_period``: half the sensor's period, "to ensure that the counter is polled at least
      twice per update period" (``zeus.monitor.power.infer_counter_update_period``). Given rather
      than inferred: in Zeus 0.16 the inferred period starts as a minimum with 0 and stays 0.
    - ``power_domains``: the one that ``get_energy`` integrates, so no other process competes.
    """

    def __init__(self, tick_s: float) -> None:
        from zeus.monitor.power import PowerMonitor

        self._monitor = PowerMonitor(
            gpu_indices=[0], update_period=tick_s / 2, power_domains=["device_instant"]
        )
        self._began_s = self._ended_s = 0.0

    def prepare(self) -> None:
        """Do nothing: it samples all the time."""

    def begin(self) -> None:
        """Note the time, on the clock that ``get_energy`` is documented to take."""
        self._began_s = time.time()

    def end(self) -> None:
        """Note the time."""
        self._ended_s = time.time()

    def tell(self, t0_ns: int, t1_ns: int) -> Told:
        """Integrate."""
        time.sleep(QUEUE_S)
        found = self._monitor.get_energy(self._began_s, self._ended_s)
        return Told(None if found is None else float(found[0]))

    def close(self) -> None:
        """End its process."""
        self._monitor.stop()


def _tracker() -> Any:
    """Make CodeCarbon's offline tracker.

    - ``measure_power_secs=1``: documented default 15 s, any number of seconds is admitted
      (``codecarbon.emissions_tracker.BaseEmissionsTracker``). Its GPU figure is the difference of
      counters over each stretch, so shorter stretches would not make it finer.
    - ``allow_multiple_runs=True``: several run beside one another here.
    """
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",
        measure_power_secs=1,
        save_to_file=False,
        log_level="error",
        allow_multiple_runs=True,
    )
    # Public since 3.0: it looks for hardware now rather than within the window.
    tracker.get_detected_hardware()
    return tracker


class CodeCarbonRuns:
    """CodeCarbon from ``start`` to ``stop``, a tracker a window, made before the window begins."""

    def __init__(self) -> None:
        self._tracker = _tracker()

    def prepare(self) -> None:
        """Make a tracker: each is for one run."""
        self._tracker = _tracker()

    def begin(self) -> None:
        """Start."""
        self._tracker.start()

    def end(self) -> None:
        """Stop."""
        self._tracker.stop()

    def tell(self, t0_ns: int, t1_ns: int) -> Told:
        """Give the GPU's part, kWh as joules."""
        return Told(self._tracker.final_emissions_data.gpu_energy * JOULES_PER_KWH)

    def close(self) -> None:
        """Do nothing."""


class CodeCarbonTasks:
    """CodeCarbon's tasks, its way to measure a part of a program: one tracker, a task a window."""

    def __init__(self) -> None:
        self._tracker = _tracker()
        self._count = 0
        self._told: Any = None

    def prepare(self) -> None:
        """Do nothing."""

    def begin(self) -> None:
        """Start a task."""
        self._count += 1
        self._tracker.start_task(f"window-{self._count}")

    def end(self) -> None:
        """Stop it."""
        self._told = self._tracker.stop_task(f"window-{self._count}")

    def tell(self, t0_ns: int, t1_ns: int) -> Told:
        """Give the GPU's part, kWh as joules."""
        return Told(self._told.gpu_energy * JOULES_PER_KWH)

    def close(self) -> None:
        """Do nothing."""


def main(method: str, tick_s: float) -> None:
    """Serve as one of the meters."""
    made: dict[str, Callable[[], energy_meter.Meter]] = {
        "zeus_monitor": ZeusWindows,
        "zeus_power_monitor": lambda: ZeusPower(tick_s),
        "codecarbon": CodeCarbonRuns,
        "codecarbon_task": CodeCarbonTasks,
    }
    energy_meter.serve(made[method]())


if __name__ == "__main__":  # PowerMonitor spawns a process, which imports this module again
    main(sys.argv[1], float(sys.argv[2]))
