"""Whether NVML can tell the energy of some GPUs, found out without reading on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llenergymeasure.core.energy.nvml_reader import find_handles, refusal
from llenergymeasure.core.energy.protocol import Coverage
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.core.visible_gpus import visible_uuids

CHECK = "check nvidia-smi -L"
_MIG = "a slice has no energy of its own, and the GPU's energy is that of all its slices"


def gpu_coverage(uuids: Sequence[str], nvml: Any = None) -> Coverage:
    """Say what NVML would tell of these GPUs, or of those that CUDA would see when none is named.

    Args:
        uuids: The GPUs.
        nvml: A module with the functions of ``pynvml``; by default that one.
    """
    library = _pynvml() if nvml is None else nvml
    survey = survey_gpus(library)
    if not survey.gpus:
        return Coverage(None, f"NVML shows no GPU: {survey.note}", _driver_remedy(survey))
    try:
        wanted = uuids or visible_uuids([gpu.uuid for gpu in survey.gpus], os.environ)
    except LookupError as error:
        return Coverage(None, f"it can't be told which GPU works: {error}", CHECK)
    return _refused(wanted, survey) or _sensors(library, wanted)


def _refused(wanted: Sequence[str], survey: GPUSurvey) -> Coverage | None:
    """Say why devices can't be read as they are: sliced, or not there."""
    slices = [uuid for uuid in wanted if uuid.removeprefix("GPU-").startswith("MIG-")]
    slices += [gpu.uuid for gpu in survey.gpus if gpu.mig_mode and gpu.uuid in wanted]
    if slices:
        what = f"MIG is on ({', '.join(slices)}): {_MIG}"
        return Coverage(None, what, "use a GPU without MIG (sudo nvidia-smi -mig 0)")
    shown = {gpu.uuid: gpu.name for gpu in survey.gpus}
    absent = [uuid for uuid in wanted if uuid not in shown]
    if not absent:
        return None
    seen = ", ".join(f"{uuid} ({name})" for uuid, name in shown.items())
    what = f"NVML shows no such GPU: {', '.join(absent)}; it shows {seen}"
    return Coverage(None, f"{what}{'; ' + survey.note if survey.note else ''}", CHECK)


def _sensors(nvml: Any, wanted: Sequence[str]) -> Coverage:
    """Say what these devices are read by."""
    try:
        nvml.nvmlInit()
        try:
            offers = {uuid: _offer(nvml, one) for uuid, one in find_handles(nvml, wanted).items()}
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        return Coverage(None, f"NVML does not answer for {', '.join(wanted)}: {error}", CHECK)
    silent = {uuid: offer["power"] for uuid, offer in offers.items() if all(offer.values())}
    if silent:
        said = ", ".join(f"{uuid} ({reason})" for uuid, reason in silent.items())
        return Coverage(None, f"NVML tells neither energy nor power of {said}", CHECK)
    return Coverage("measured", _scope(offers))


def _offer(nvml: Any, handle: Any) -> dict[str, str | None]:
    """Say why a device tells neither of two things, or ``None`` where it does."""
    return {
        "counter": refusal(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
        "power": refusal(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)),
    }


def _scope(offers: Mapping[str, Mapping[str, str | None]]) -> str:
    which = "the GPU that does" if len(offers) == 1 else f"the {len(offers)} GPUs that do"
    without = [uuid for uuid, offer in offers.items() if offer["counter"]]
    by = f", by power readings where there is no counter ({', '.join(without)})" if without else ""
    return f"{which} the work{by}"


def _driver_remedy(survey: GPUSurvey) -> str:
    return "install the GPU driver" if survey.driver_version is None else CHECK


def _pynvml() -> Any:
    import pynvml

    return pynvml
