"""Carbon dioxide from energy."""

from __future__ import annotations

from pydantic import Field

from llenergymeasure.domain import Record


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
