"""NVIDIA GPUs, whichever source reads them: whether it can, and their state over a window.

Whether it can is found out without reading on. Heat, limits and foreign processes bear on times as
well as on energy. They are read beside a source that does not tell them, or beside none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llenergymeasure.core.energy.nvml_reader import (
    CLOCK_EVENTS,
    DEFAULT_POWER_LIMIT,
    PERSISTENCE,
    POWER_LIMIT,
    PROCESSES,
    SM_CLOCK,
    TEMPERATURE,
    DeviceOffer,
    find_handles,
    refusal,
)
from llenergymeasure.core.energy.protocol import Coverage, SamplingRates
from llenergymeasure.core.energy.sampler import ReaderSpec
from llenergymeasure.core.gpu_survey import GPUSurvey, opened_nvml, survey_gpus
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.domain.energy import EnergyRecording, Reading
from llenergymeasure.domain.environment import DeviceState, DeviceTarget, count_events
from llenergymeasure.domain.samples import Window

NVML = "llenergymeasure.core.energy.nvml_reader:NVMLReader"
BESIDE = "llenergymeasure.core.energy.nvml_reader:StateBeside"

CHECK = "check nvidia-smi -L"
_MIG = "a slice has no energy of its own, and the GPU's energy is that of all its slices"

Grouped = Mapping[tuple[str, str], Sequence[Reading]]
Sensors = Callable[[Sequence[str]], Coverage]
Offer = Callable[[Any, Any], dict[str, str | None]]


def by_channel(readings: Sequence[Reading]) -> dict[tuple[str, str], list[Reading]]:
    """Group readings by channel and device, in their order."""
    grouped: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        grouped.setdefault((reading.channel, reading.device), []).append(reading)
    return grouped


def with_state(
    made: EnergyRecording, summary: Mapping[str, Any] | None, window: Window
) -> EnergyRecording:
    """Add the state of the devices, as far as NVML told it beside their source."""
    if summary is None:
        note = "clocks, limits and other processes are not known: only NVML tells them"
        return replace(made, notes=(*made.notes, note), flags=(*made.flags, "processes_unknown"))
    states = device_states(by_channel(made.readings), summary, window)
    notes, flags = list(made.notes), list(made.flags)
    for state in states:
        if state.foreign_pids is None:
            notes.append(f"{state.device}: it can't be seen whether others computed on it")
        elif state.foreign_pids:
            pids = ", ".join(map(str, state.foreign_pids))
            notes.append(f"{state.device}: others computed on it as well (process {pids})")
    if any(state.foreign_pids for state in states):
        flags.append("foreign_process")
    if any(state.foreign_pids is None for state in states):
        flags.append("processes_unknown")
    return replace(made, device_state=states, notes=tuple(notes), flags=tuple(flags))


def device_states(
    taken: Grouped, summary: Mapping[str, Any], window: Window
) -> tuple[DeviceState, ...]:
    """Tell the state of every device.

    Args:
        taken: Readings by channel and device.
        summary: What :class:`~.nvml_reader.NVMLReader` made of the window.
        window: Its start and end.
    """
    return tuple(_state(uuid, taken, summary, window) for uuid in summary["offered"])


def _state(uuid: str, taken: Grouped, summary: Mapping[str, Any], window: Window) -> DeviceState:
    def values(channel: str) -> list[float]:
        return [reading.value for reading in taken.get((channel, uuid), ())]

    def inside(channel: str) -> list[float]:
        return [
            reading.value
            for reading in taken.get((channel, uuid), ())
            if reading.after_ns >= window.t0_ns and reading.before_ns <= window.t1_ns
        ]

    temperatures = taken.get((TEMPERATURE, uuid), ())
    clocks, events = inside(SM_CLOCK), inside(CLOCK_EVENTS)
    persistence = values(PERSISTENCE)
    return DeviceState(
        device=uuid,
        start_c=_nearest(temperatures, window.t0_ns),
        end_c=_nearest(temperatures, window.t1_ns),
        clock_sm_mhz=sum(clocks) / len(clocks) if clocks else None,
        state_samples=len(events),
        clock_events=count_events(map(int, events)),
        power_limit_w=min(values(POWER_LIMIT), default=None),
        power_limit_default_w=min(values(DEFAULT_POWER_LIMIT), default=None),
        persistence_mode=all(persistence) if persistence else None,
        foreign_pids=foreign_pids(uuid, summary),
    )


def foreign_pids(uuid: str, summary: Mapping[str, Any]) -> tuple[int, ...] | None:
    """List the processes on a device that are not the experiment's, guard time included.

    In a namespace of its own, the list means something only where the experiment's own processes
    are in it: otherwise ids are the host's, or hidden.

    Returns:
        Their ids, or ``None`` where it can't be told.
    """
    hidden = PROCESSES in {**summary["refused"][uuid], **summary["failing"][uuid]}
    seen = summary["processes"].get(uuid)
    if hidden or seen is None:
        return None
    if not summary["host_pids"] and all(kin != "own" for _, kin in seen):
        return None
    return tuple(sorted(pid for pid, kin in seen if kin != "own"))


def _nearest(rows: Sequence[Reading], at_ns: int) -> float | None:
    """Give the reading nearest to a time."""
    if not rows:
        return None
    return min(rows, key=lambda row: abs(row.before_ns + row.after_ns - 2 * at_ns)).value


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


def gpu_coverage(uuids: Sequence[str], nvml: Any = None) -> Coverage:
    """Say what NVML would tell of these GPUs, or of those that CUDA would see when none is named.

    Args:
        uuids: The GPUs.
        nvml: A module with the functions of ``pynvml``; by default that one.
    """
    survey = survey_gpus(nvml)
    if not survey.gpus:
        remedy = "install the GPU driver" if survey.driver_version is None else CHECK
        return Coverage(None, f"NVML shows no GPU: {survey.note}", remedy)
    return covered(uuids, survey, os.environ, lambda wanted: _sensors(nvml, wanted, _offer))


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
    return _sensors(None, wanted, _zeus_offer)


def _sensors(nvml: Any, wanted: Sequence[str], offer: Offer) -> Coverage:
    """Say what these devices are read by."""
    try:
        with opened_nvml(nvml) as library:
            handles = find_handles(library, wanted)
            offers = {uuid: offer(library, handle) for uuid, handle in handles.items()}
    except LookupError as error:
        why = error.__cause__ or error
        return Coverage(None, f"NVML does not answer for {', '.join(wanted)}: {why}", CHECK)
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
