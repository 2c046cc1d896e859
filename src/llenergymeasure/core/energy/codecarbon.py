"""CodeCarbon as an energy source: its own figures, each labelled measured or modelled."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.core.energy.gpus import (
    CHECK,
    beside,
    covered,
    sliced,
    with_state,
    working_uuids,
)
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.sampled_source import SampledSource
from llenergymeasure.core.energy.sampler import ReaderSpec, Recorded, SamplerProcess
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import Window

READER = ReaderSpec("llenergymeasure.core.energy.codecarbon_reader:CodeCarbonReader")
POWERCAP = Path("/sys/class/powercap")
SPAN_TOLERANCE = 0.02
GPUS = "the GPUs that do the work"

NO_UNCERTAINTY = "CodeCarbon states no uncertainty, so its figures have no interval"


class CodeCarbonSource(SampledSource):
    """CodeCarbon's offline tracker in the sampling process."""

    name = "codecarbon"

    def __init__(
        self,
        target: DeviceTarget,
        rates: SamplingRates,
        sampler: SamplerProcess | None = None,
    ) -> None:
        super().__init__(sampler or SamplerProcess(beside(READER, target, rates)))
        self._target = target
        self._wanted = target.gpu_uuids or working_uuids(target)

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        """Say what CodeCarbon would tell of these devices; it is not imported for that."""
        return gpu_coverage(target.gpu_uuids) if target.kind == "gpu" else cpu_coverage(POWERCAP)

    def recording(self, recorded: Recorded, window: Window) -> EnergyRecording:
        """Label CodeCarbon's figures; a part that it could not read is unknown, never zero.

        They are of the time between its own two marks, which is longer than the window. A part of
        constant power has that power in the window too; the others are given as they are.
        """
        parts, seconds = recorded.summary["parts"], recorded.summary["seconds"]
        components = tuple(
            EnergyComponent(
                name=part["name"],
                energy_j=_in_window(part, window),
                kind="unmeasurable" if part["energy_j"] is None else part["kind"],
                method=f"CodeCarbon: {part['method']}",
                in_scope=self._in_scope(part),
                model=part["method"] if part["kind"] == "modelled" else None,
            )
            for part in parts
        )
        in_scope = [part for part in parts if self._in_scope(part)]
        reset = any(part["reset"] for part in in_scope)
        longer = seconds - window.seconds > SPAN_TOLERANCE * window.seconds
        whole = longer and any(part["power_w"] is None for part in in_scope)
        made = EnergyRecording(
            source=self.name,
            components=components,
            readings=recorded.readings,
            cost=recorded.cost,
            stretch_s=seconds if whole else None,
            notes=tuple(self._notes(recorded, window, components, whole=whole)),
            flags=("counter_reset",) if reset else (),
            codecarbon_grams=recorded.summary["grams"],
        )
        if self._target.kind == "cpu":
            return made
        return with_state(made, recorded.summary.get("state"), window)

    def part(self, window: Window) -> None:
        """Give nothing: CodeCarbon's figures are of a whole window."""

    def _in_scope(self, part: dict[str, Any]) -> bool:
        if part["gpu"]:
            named = not self._wanted or part["name"] in self._wanted
            return self._target.kind == "gpu" and named
        return self._target.kind == "cpu"

    def _notes(
        self,
        recorded: Recorded,
        window: Window,
        components: Iterable[EnergyComponent],
        *,
        whole: bool,
    ) -> Iterable[str]:
        yield NO_UNCERTAINTY
        if whole:
            yield (
                f"CodeCarbon's figures cover {recorded.summary['seconds']:.3f} s around a window "
                f"of {window.seconds:.3f} s, so nothing is related to the work in the window"
            )
        for part in components:
            if part.energy_j is None:
                yield f"CodeCarbon could not read {part.name} all the time, so it is unknown"
        for message in recorded.summary["messages"]:
            yield f"CodeCarbon warned: {message}"


def _in_window(part: Mapping[str, Any], window: Window) -> float | None:
    """Give a part's energy: of the window where power is constant, else of the stretch."""
    energy_j: float | None = part["energy_j"]
    if energy_j is None or part["power_w"] is None:
        return energy_j
    return float(part["power_w"]) * window.seconds


def cpu_coverage(powercap: Path) -> Coverage:
    """Say what CodeCarbon would tell of the CPU; with RAM it is a model on any machine."""
    cpu = "measured by RAPL" if rapl_readable(powercap) else "modelled from its load"
    return Coverage("modelled", f"CPU and RAM of the machine; CPU {cpu}, RAM modelled as constant")


def rapl_readable(powercap: Path) -> bool:
    """Tell whether any package's energy counter under powercap can be read."""
    counters = powercap.glob("intel-rapl:*/energy_uj")
    return any(os.access(counter, os.R_OK) for counter in counters)


def gpu_coverage(
    uuids: tuple[str, ...], survey_gpus: Callable[[], GPUSurvey] = survey_gpus
) -> Coverage:
    """Say whether CodeCarbon would read these GPUs, or those visible when none is named."""
    if (slices := sliced(uuids, GPUSurvey())) is not None:
        return slices
    if importlib.util.find_spec("amdsmi") and shutil.which("rocm-smi"):
        return Coverage("measured", GPUS)
    if shutil.which("nvidia-smi") is None:  # that is how CodeCarbon decides to look for GPUs
        return Coverage(
            None, "CodeCarbon finds no GPU: nvidia-smi is not on the PATH", "install the GPU driver"
        )
    survey = survey_gpus()
    if not survey.gpus:
        return Coverage(None, f"CodeCarbon cannot read the GPU: {survey.note}", CHECK)
    return covered(uuids, survey, os.environ, lambda _: Coverage("measured", GPUS))
