"""Energy sources by name: one row says all that the rest of this package knows of a source.

Other packages add theirs through an entry point; nothing about a source is known elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Literal

from pydantic import AfterValidator, ValidationInfo, WithJsonSchema

from llenergymeasure.config.base import wrong_value
from llenergymeasure.config.plugins import PluginEntry, offered

FIELD = "energy_backend"
AUTO = "auto"
SOURCE_ENTRY_POINTS = "llenergymeasure.energy_sources"

DeviceKind = Literal["gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class EnergySourceFacts(PluginEntry):
    """One energy source.

    Attributes:
        title: What a report calls it; by default its name.
        kind: What its figures are, as far as that is known before it looks at a machine.
        auto: Its place in the order of ``auto`` for each kind of device that it can read: the
            lowest that can tell something is taken. Measured sources go before modelled ones.
        calibrated: Whether it can be told what is known of its devices' sensors
            (``CalibratedSourceType``).
    """

    title: str = ""
    kind: Literal["measured", "modelled", "unmeasurable"] = "measured"
    auto: Mapping[DeviceKind, int] = field(default_factory=dict)
    calibrated: bool = False


_CORE = "llenergymeasure.core.energy"

ENERGY_SOURCES: dict[str, EnergySourceFacts] = {
    facts.name: facts
    for facts in (
        EnergySourceFacts(
            name="nvml",
            title="NVML",
            implementation=f"{_CORE}.nvml:NVMLSource",
            package="nvidia-ml-py",
            module="pynvml",
            minimum="12.560",
            install="pip install 'nvidia-ml-py>=12.560'",
            auto={"gpu": 20},
            calibrated=True,
        ),
        EnergySourceFacts(
            name="zeus",
            title="Zeus",
            implementation=f"{_CORE}.zeus:ZeusSource",
            package="zeus",
            module="zeus",
            minimum="0.13",
            install="pip install 'llenergymeasure[zeus]'",
            auto={"gpu": 10},  # before NVML, because both must never read at once
            calibrated=True,
        ),
        EnergySourceFacts(
            name="rapl",
            title="RAPL",
            implementation=f"{_CORE}.rapl:RaplSource",
            auto={"cpu": 10},
        ),
        EnergySourceFacts(
            name="codecarbon",
            title="CodeCarbon",
            implementation=f"{_CORE}.codecarbon:CodeCarbonSource",
            package="codecarbon",
            module="codecarbon",
            minimum="3.0",
            install="pip install 'llenergymeasure[codecarbon]'",
            kind="modelled",
            auto={"gpu": 80, "cpu": 80},
        ),
        EnergySourceFacts(
            name="none",
            implementation=f"{_CORE}.none:NoSource",
            kind="unmeasurable",
            auto={"gpu": 100, "cpu": 100},
        ),
    )
}


@cache
def plugin_sources() -> dict[str, EnergySourceFacts]:
    """Collect the energy sources that installed packages add through the entry-point group.

    Raises:
        ConfigError: A package offers something that is no energy source.
    """
    return offered(SOURCE_ENTRY_POINTS, EnergySourceFacts, "energy source", FIELD)


def energy_sources() -> dict[str, EnergySourceFacts]:
    """Give what every energy source says about itself; built-in ones come first, and stay."""
    return ENERGY_SOURCES | plugin_sources() | ENERGY_SOURCES


def auto_order(
    device: DeviceKind, sources: Mapping[str, EnergySourceFacts] | None = None
) -> tuple[str, ...]:
    """List the sources that ``auto`` tries for a kind of device, in order."""
    rows = energy_sources() if sources is None else sources
    able = {name: facts.auto[device] for name, facts in rows.items() if device in facts.auto}
    return tuple(sorted(able, key=lambda name: able[name]))


def other_sources(device: DeviceKind) -> str:
    """Say which sources can be set instead, where one does not read a kind of device."""
    sources = energy_sources()
    names = [name for name in auto_order(device) if sources[name].kind != "unmeasurable"]
    return f"set {FIELD}: {_one_of(names)}"


def _one_of(names: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _known(name: str, info: ValidationInfo) -> str:
    # What was measured once stays readable where the package of its source is not installed.
    stored = (info.context or {}).get("stored")
    if name == AUTO or name in ENERGY_SOURCES or stored:
        return name
    if name not in energy_sources():
        names = [f"'{one}'" for one in (AUTO, *energy_sources())]
        raise wrong_value(
            f"must be {_one_of(names)}; a source that another package adds needs that package "
            "installed here"
        )
    return name


EnergyBackendName = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"type": "string", "enum": [AUTO, *ENERGY_SOURCES]}),
]
"""``auto``, or the name of a source: a built-in one or one that an installed package adds."""
