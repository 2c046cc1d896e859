"""The state of NVIDIA GPUs, read beside a source that does not tell it, or beside none.

Heat, limits and foreign processes bear on times as well as on energy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from llenergymeasure.core.energy.nvml_coverage import sliced
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.sampler import ReaderSpec
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.domain.target import DeviceTarget

NVML = "llenergymeasure.core.energy.nvml_reader:NVMLReader"
BESIDE = "llenergymeasure.core.energy.state_reader:StateBeside"


def beside(reader: ReaderSpec, target: DeviceTarget, rates: SamplingRates) -> ReaderSpec:
    """Read the state beside a reader, where NVML tells it."""
    state = state_spec(target, rates)
    if state is None:
        return reader
    arguments = {"reader": reader.path, "arguments": dict(reader.arguments)}
    return ReaderSpec(BESIDE, {**arguments, "state": dict(state.arguments)})


def state_spec(target: DeviceTarget, rates: SamplingRates) -> ReaderSpec | None:
    """Say how the state of the devices that do the work is read; ``None`` where NVML has none."""
    uuids = working_uuids(target)
    if not uuids:
        return None
    every_s = rates.power_poll_ms / 1e3
    arguments = {"counter_poll_s": every_s, "power_poll_s": every_s, "energy": False}
    return ReaderSpec(NVML, {"uuids": list(uuids), **arguments})


def working_uuids(target: DeviceTarget) -> tuple[str, ...]:
    """Name the NVIDIA GPUs that do the work; empty where NVML does not tell."""
    return told_by_nvml(target, survey_gpus(), os.environ) if target.kind == "gpu" else ()


def told_by_nvml(
    target: DeviceTarget, survey: GPUSurvey, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Name the GPUs that do the work, if all of them are whole ones that NVML shows."""
    shown = [gpu.uuid for gpu in survey.gpus]
    try:
        wanted = target.gpu_uuids or visible_uuids(shown, environ)
    except LookupError:
        return ()
    whole = sliced(wanted, survey) is None and set(wanted) <= set(shown)
    return tuple(wanted) if whole else ()
