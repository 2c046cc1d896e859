"""What a study says of itself as a whole: on what its figures rest, and how far to trust them."""

from __future__ import annotations

from pydantic import Field

from llenergymeasure.domain import Record
from llenergymeasure.domain.warnings import Level


class EnergyOrigin(Record):
    """Where the energy of some results came from."""

    source: str = Field(description="Energy source that was read.")
    kind: str = Field(description="measured, modelled or unmeasurable.")
    count: int = Field(description="Results of it.")


class StudySubject(Record):
    """What was measured, on what and when, by all results of a study together."""

    models: tuple[str, ...] = Field(description="Models, as configurations name them.")
    datasets: tuple[str, ...] = Field(description="Datasets, by name or path.")
    n: tuple[int, ...] = Field(description="Prompts used of each of them.")
    machines: tuple[str, ...] = Field(description="CPU, how many logical ones, and memory.")
    boards: tuple[str, ...] = Field(
        description="GPUs that did the work, by product name and UUID; empty for work on CPUs."
    )
    energy: tuple[EnergyOrigin, ...] = Field(
        description="Source and kind of the energy figures; several are never pooled in silence."
    )
    versions: dict[str, tuple[str, ...]] = Field(
        description="Versions by name: llenergymeasure, python, the engines that ran, driver."
    )
    inputs: dict[str, tuple[str, ...]] = Field(
        description="Identities of inputs, by the field that names each; as resolved.inputs."
    )
    first: str = Field(description="When the first window began, wall clock, ISO 8601.")
    last: str = Field(description="When the last one began.")


class TrustCount(Record):
    """One finding, over all results of a study."""

    code: str = Field(description="Stable code.")
    level: Level = Field(description="How much it weighs: invalid, caution or info.")
    count: int = Field(description="Results in which it was found.")
    of: int = Field(description="Results that there are.")
    configurations: tuple[int, ...] = Field(description="ids of the configurations it met.")
    counts: tuple[int, ...] = Field(description="Results of each of these in which it was found.")
    lowest: float | None = Field(
        None, description="Least figure that goes with it; null where it has none."
    )
    highest: float | None = Field(None, description="Greatest figure that goes with it.")
    unit: str = Field("", description="Unit of the figure, and what it is of.")
    remedy: str = Field(description="What to do about it.")

    @property
    def found(self) -> str:
        """Say where it was found, e.g. ``cpu_shared in 7 of 12 runs (84 to 87 % of CPU time)``."""
        runs = f"{self.code} in {self.count:,} of {self.of:,} {'run' if self.of == 1 else 'runs'}"
        if self.lowest is None or self.highest is None:
            return runs
        low, high = f"{self.lowest:.3g}", f"{self.highest:.3g}"
        return f"{runs} ({low if low == high else f'{low} to {high}'} {self.unit})"
