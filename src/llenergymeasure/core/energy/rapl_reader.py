"""RAPL's energy counters inside the sampling process.

Found under powercap (Documentation/power/powercap in the Linux sources): a zone ``intel-rapl:N``
whose ``name`` begins with ``package-`` is a processor package, on AMD too; its ``dram`` zone is the
memory behind it. ``core`` and ``uncore`` are parts of the package, ``psys`` holds the package:
counting them as well would count twice. ``intel-rapl-mmio`` shows the same packages again.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.core.energy.sampled import Quantity, SampledReader

CHANNEL = "cpu_energy_uj"
MOST_W = 2000.0  # more than any package draws
COUNTER = "energy_uj"

_ZONE = re.compile(r"intel-rapl:\d+")
_PACKAGE = re.compile(r"package-(?P<socket>\d+)")


class Domain(NamedTuple):
    """One energy counter.

    Attributes:
        name: ``package-0``, ``dram-0`` and so on.
        counter: Path of its ``energy_uj``.
        range_uj: Its largest value, µJ; after it the counter starts again.
    """

    name: str
    counter: str
    range_uj: int

    @property
    def is_package(self) -> bool:
        """Whether it counts a package; otherwise it counts memory."""
        return self.name.startswith("package-")


def find_domains(root: str | Path) -> tuple[Domain, ...]:
    """Find the counters of every package and of its memory, packages first.

    Args:
        root: The directory of powercap.

    Raises:
        OSError: A zone cannot be looked at.
        ValueError: Its range is no positive number.
    """
    zones = [zone for zone in Path(root).glob("intel-rapl:*") if _ZONE.fullmatch(zone.name)]
    zones.sort(key=lambda zone: int(zone.name.rpartition(":")[2]))
    packages: dict[str, Path] = {}
    for zone in zones:
        name = _text(zone / "name")
        if _PACKAGE.match(name):
            packages.setdefault(name, zone)
    found = [_domain(name, zone) for name, zone in packages.items()]
    for name, package in packages.items():
        memory = [zone for zone in _children(package) if _text(zone / "name") == "dram"]
        found += [_domain(name.replace("package", "dram", 1), zone) for zone in memory[:1]]
    return tuple(found)


def sockets(domains: tuple[Domain, ...]) -> int:
    """Count the sockets; a socket may hold several dies, each with a counter of its own."""
    matches = (_PACKAGE.match(domain.name) for domain in domains)
    return len({match["socket"] for match in matches if match})


def read_uj(counter: str) -> int:
    """Read a counter, µJ.

    Raises:
        OSError: It is not there, or may not be read.
        ValueError: It says no number.
    """
    descriptor = os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, 64))
    finally:
        os.close(descriptor)


class RaplReader(SampledReader):
    """Reads every counter at every poll.

    Args:
        root: The directory of powercap.
        poll_s: Time between polls; shorter where a counter might wrap twice in between.

    Raises:
        OSError: There is no counter, or one may not be read.
    """

    def __init__(self, root: str, poll_s: float) -> None:
        domains = find_domains(root)
        if not domains:
            raise FileNotFoundError(f"no RAPL counters under {root}")
        super().__init__((domain.name for domain in domains), (OSError, ValueError))
        self._range_uj = {domain.name: domain.range_uj for domain in domains}
        self.period_s = min(poll_s, min(self._range_uj.values()) / 1e6 / MOST_W / 2)
        self.quantities = [
            Quantity(CHANNEL, domain.name, partial(read_uj, domain.counter)) for domain in domains
        ]
        for one in self.quantities:
            one.read()

    def end(self) -> dict[str, Any]:
        """End the window; give also every counter's range."""
        return {**super().end(), "range_uj": self._range_uj}


def _domain(name: str, zone: Path) -> Domain:
    range_uj = int(_text(zone / "max_energy_range_uj"))
    if range_uj <= 0:
        raise ValueError(f"{zone} has a range of {range_uj} µJ")
    return Domain(name, str(zone / COUNTER), range_uj)


def _children(package: Path) -> list[Path]:
    """List the zones inside a package, which sysfs shows in it and beside it."""
    pattern = f"{package.name}:*"
    inside = {zone.name: zone for zone in package.parent.glob(pattern)}
    inside |= {zone.name: zone for zone in package.glob(pattern)}
    return [inside[name] for name in sorted(inside)]


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
