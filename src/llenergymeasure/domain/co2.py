"""Carbon dioxide from energy; only where a carbon intensity is known."""

from __future__ import annotations

from pydantic import Field

from llenergymeasure.domain import Record
from llenergymeasure.units import JOULES_PER_KWH


class CO2Estimate(Record):
    """Emissions of the measured window."""

    co2_grams: float | None = Field(
        description="energy_kwh x PUE x carbon intensity, gCO2e (operational emissions, as in the "
        "Software Carbon Intensity specification, ISO/IEC 21031:2024); null without an intensity."
    )
    carbon_intensity_gco2_kwh: float | None = Field(description="Grid carbon intensity used.")
    carbon_intensity_source: str | None = Field(description="Where that figure came from.")
    datacenter_pue: float = Field(description="Power usage effectiveness used.")
    datacenter_pue_source: str = Field(description="Where that figure came from.")
    codecarbon_grams: float | None = Field(
        None,
        description="CodeCarbon's own figure, where it was the source; never mixed in. Offline it "
        "has to assume a country: the average grid of the USA.",
    )


def estimate_co2(
    energy_j: float | None,
    intensity_gco2_kwh: float | None,
    intensity_source: str | None,
    pue: float,
    pue_source: str,
) -> CO2Estimate:
    """Estimate emissions: ``energy_kwh x PUE x carbon intensity``, in grams of CO2 equivalent."""
    known = energy_j is not None and intensity_gco2_kwh is not None
    grams = energy_j / JOULES_PER_KWH * pue * intensity_gco2_kwh if known else None  # type: ignore[operator]
    return CO2Estimate(
        co2_grams=grams,
        carbon_intensity_gco2_kwh=intensity_gco2_kwh,
        carbon_intensity_source=intensity_source,
        datacenter_pue=pue,
        datacenter_pue_source=pue_source,
    )
