"""A powercap tree in a directory, with counters that rise at a known rate."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

INTEL_RANGE_UJ = 262_143_328_850
EPYC_RANGE_UJ = 65_532_610_987
DIGITS = 20  # a counter of fixed width is overwritten in one piece


def make_zone(
    parent: Path, zone: str, name: str, value_uj: int = 0, range_uj: int = INTEL_RANGE_UJ
) -> Path:
    """Make one zone; gives its counter."""
    directory = parent / zone
    directory.mkdir(parents=True)
    (directory / "name").write_text(f"{name}\n")
    (directory / "max_energy_range_uj").write_text(f"{range_uj}\n")
    counter = directory / "energy_uj"
    counter.write_text(f"{value_uj:0{DIGITS}d}\n")
    return counter


def make_package(
    root: Path, number: int, *inner: str, range_uj: int = INTEL_RANGE_UJ
) -> list[Path]:
    """Make a package and zones inside it; gives all their counters."""
    zone = f"intel-rapl:{number}"
    counters = [make_zone(root, zone, f"package-{number}", 1_000_000, range_uj)]
    for index, name in enumerate(inner):
        inside = make_zone(root / zone, f"{zone}:{index}", name, 2_000_000, range_uj)
        counters.append(inside)
    return counters


class Meter:
    """Raises counters from a thread, and remembers every value it ever wrote.

    Args:
        power_w: Power of each counter file, W.
        start_uj: Where each counter starts.
        range_uj: After which each starts again: the value is taken modulo this.
        tick_s: Time between two values.
    """

    def __init__(
        self,
        power_w: Mapping[Path, float],
        start_uj: int,
        range_uj: int,
        tick_s: float = 0.001,
    ) -> None:
        self.power_w = dict(power_w)
        self.written: dict[Path, list[int]] = {path: [] for path in self.power_w}
        self._start_uj, self._range_uj, self._tick_s = start_uj, range_uj, tick_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Meter:
        self._from_ns = time.monotonic_ns()
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._tick_s):
            self._write()

    def _write(self) -> None:
        for path, watts in self.power_w.items():
            passed_ns = time.monotonic_ns() - self._from_ns
            total_uj = self._start_uj + round(watts * passed_ns / 1000)
            if overwrite(path, total_uj % self._range_uj):
                self.written[path].append(total_uj)


def overwrite(path: Path, value_uj: int) -> bool:
    """Set a counter in one piece; tells whether its file was still there."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return False
    os.pwrite(descriptor, f"{value_uj:0{DIGITS}d}\n".encode(), 0)
    os.close(descriptor)
    return True
