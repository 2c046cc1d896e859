"""Whether the energy of some NVIDIA GPUs can be told, found out without reading on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llenergymeasure.core.energy.nvml_reader import DeviceOffer, find_handles, load_pynvml, refusal
from llenergymeasure.core.energy.protocol import Coverage
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.core.visible_gpus import visible_uuids

Sensors = Callable[[Sequence[str]], Coverage]
Offer = Callable[[Any, Any], dict[str, str | None]]

CHECK = "check nvidia-smi -L"
_MIG = "a slice has no energy of its own, and the GPU's energy is that of all its slices"


def gpu_coverage(uuids: Sequence[str], nvml: Any = None) -> Coverage:
    """Say what NVML would tell of these GPUs, or of those that CUDA would see when none is named.

    Args:
        uuids: The GPUs.
        nvml: A module with the functions of ``pynvml``; by default that one.
    """
    library = load_pynvml() if nvml is None else nvml
    survey = survey_gpus(library)
    if not survey.gpus:
        remedy = "install the GPU driver" if survey.driver_version is None else CHECK
        return Coverage(None, f"NVML shows no GPU: {survey.note}", remedy)
    return covered(uuids, survey, os.environ, lambda wanted: _sensors(library, wanted, _offer))


def covered(
    uuids: Sequence[str], survey: GPUSurvey, environ: Mapping[str, str], sensors: Sensors
) -> Coverage:
    """Say what can be told of GPUs that NVML shows, by whichever library reads them.

    Args:
        uuids: The GPUs; of none named, those that CUDA would see.
        survey: What NVML shows.
        environ: Environment variables.
        sensors: Tries the sensors of those that can be read at all.
    """
    try:
        wanted = uuids or visible_uuids([gpu.uuid for gpu in survey.gpus], environ)
    except LookupError as error:
        return Coverage(None, f"it can't be told which GPU works: {error}", CHECK)
    return sliced(wanted, survey) or _absent(wanted, survey) or sensors(wanted)


def sliced(uuids: Sequence[str], survey: GPUSurvey) -> Coverage | None:
    """Say why slices, and GPUs that are cut into them, can't be read; ``None`` for whole GPUs."""
    slices = [uuid for uuid in uuids if uuid.removeprefix("GPU-").startswith("MIG-")]
    slices += [gpu.uuid for gpu in survey.gpus if gpu.mig_mode and gpu.uuid in uuids]
    if not slices:
        return None
    what = f"MIG is on ({', '.join(slices)}): {_MIG}"
    return Coverage(None, what, "use a GPU without MIG (sudo nvidia-smi -mig 0)")


def _absent(wanted: Sequence[str], survey: GPUSurvey) -> Coverage | None:
    shown = {gpu.uuid: gpu.name for gpu in survey.gpus}
    absent = [uuid for uuid in wanted if uuid not in shown]
    if not absent:
        return None
    seen = ", ".join(f"{uuid} ({name})" for uuid, name in shown.items())
    what = f"NVML shows no such GPU: {', '.join(absent)}; it shows {seen}"
    return Coverage(None, f"{what}{'; ' + survey.note if survey.note else ''}", CHECK)


def zeus_sensors(wanted: Sequence[str]) -> Coverage:
    """Say what Zeus reads these devices by: the counter, or fields of power that not all have."""
    return _sensors(load_pynvml(), wanted, _zeus_offer)


def _sensors(nvml: Any, wanted: Sequence[str], offer: Offer) -> Coverage:
    """Say what these devices are read by."""
    try:
        nvml.nvmlInit()
        try:
            offers = {uuid: offer(nvml, one) for uuid, one in find_handles(nvml, wanted).items()}
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError as error:
        return Coverage(None, f"NVML does not answer for {', '.join(wanted)}: {error}", CHECK)
    silent = {uuid: tried["power"] for uuid, tried in offers.items() if all(tried.values())}
    if silent:
        said = ", ".join(f"{uuid} ({reason})" for uuid, reason in silent.items())
        return Coverage(None, f"neither energy nor power can be read of {said}", CHECK)
    which = "the GPU that does" if len(offers) == 1 else f"the {len(offers)} GPUs that do"
    without = [uuid for uuid, tried in offers.items() if tried["counter"]]
    by = f", by power readings where there is no counter ({', '.join(without)})" if without else ""
    return Coverage("measured", f"{which} the work{by}")


def _offer(nvml: Any, handle: Any) -> dict[str, str | None]:
    """Say why a device tells neither of two things, or ``None`` where it does."""
    return {
        "counter": refusal(nvml, lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
        "power": refusal(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle)),
    }


def _zeus_offer(nvml: Any, handle: Any) -> dict[str, str | None]:
    """Say the same where power is asked for by field only."""
    refused = [refusal(nvml, one.read) for one in DeviceOffer(nvml, "", handle).power()]
    power = None if None in refused else refused[0]
    return {**_offer(nvml, handle), "power": power}
