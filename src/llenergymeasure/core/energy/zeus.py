"""Zeus as an energy source: raw readings through its device layer, so that AMD works as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from llenergymeasure.config.energy_sources import other_sources
from llenergymeasure.core.energy.estimator import DeviceReadings
from llenergymeasure.core.energy.gpus import Sensors, covered, sliced, zeus_sensors
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER
from llenergymeasure.core.energy.protocol import Coverage
from llenergymeasure.core.energy.sampled_source import GPUSource
from llenergymeasure.core.energy.zeus_reader import Device, hidden_by
from llenergymeasure.core.gpu_survey import GPUSurvey, survey_gpus
from llenergymeasure.domain.environment import DeviceTarget

READER = "llenergymeasure.core.energy.zeus_reader:ZeusReader"
LEAD_S = 0.6  # half a second of level and a tick before the window
TAIL_S = 0.8  # the same after it, and what comes in late
ASK_LIMIT_S = 60.0

_ASK = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from llenergymeasure.lifeline import die_with; die_with(int(sys.argv[2])); "
    "from llenergymeasure.core.energy.zeus_reader import print_devices; print_devices()"
)
NO_GPU = "Zeus is read for GPUs here, and covers no device that did the work: the CPU did"


class ZeusSource(GPUSource):
    """Zeus's device layer, read in the sampling process."""

    name = "zeus"
    reader = READER
    lead_s = LEAD_S
    tail_s = TAIL_S

    @staticmethod
    def coverage(target: DeviceTarget) -> Coverage:
        """Say what Zeus would tell of these devices on this machine."""
        if target.kind == "gpu":
            return gpu_coverage(target.gpu_uuids, survey_gpus())
        return Coverage(None, NO_GPU, other_sources(target.kind))

    def fault(self, readings: DeviceReadings, summary: Mapping[str, Any], uuid: str) -> str | None:
        """Say why what the energy rests on could not be read at last."""
        needed = _needed(summary, uuid)
        return needed and f"it no longer answered when the window ended ({needed})"

    def notes(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Say what is missing, what no longer answered, and whose readings these are."""
        for name, refused in summary["refused"].items():
            if COUNTER in refused:
                why = refused[COUNTER]
                yield f"{name}: no energy counter ({why}), so power is integrated instead"
            if AVERAGE_POWER in refused:
                yield f"{name}: no power reading ({refused[AVERAGE_POWER]})"
        for name, failing in summary["failing"].items():
            if failing and _needed(summary, name) is None:
                yield f"{name}: power no longer answered ({'; '.join(failing.values())})"
        for name, what in summary["shared"].items():
            yield f"{name}: the readings are those of {what}"


def gpu_coverage(
    uuids: tuple[str, ...],
    survey: GPUSurvey,
    environ: Mapping[str, str] = os.environ,
    sensors: Sensors = zeus_sensors,
) -> Coverage:
    """Say whether Zeus would read these GPUs, or those that can be seen when none is named.

    Zeus asks NVML first, and AMD's library only where NVML does not answer.

    Args:
        uuids: The GPUs.
        survey: What NVML shows.
        environ: Environment variables.
        sensors: Tries the sensors of NVIDIA's devices.
    """
    if survey.gpus:
        return covered(uuids, survey, environ, sensors)
    if (slices := sliced(uuids, survey)) is not None:
        return slices
    answer = _ask_zeus()
    if "error" in answer:
        what = f"Zeus sees no GPU: {answer['error']} ({survey.note})"
        return Coverage(None, what, "install the GPU driver")
    return _seen(
        uuids, [Device(name, tuple(also), None) for name, *also in answer["devices"]], environ
    )


def _seen(uuids: tuple[str, ...], devices: list[Device], environ: Mapping[str, str]) -> Coverage:
    if not uuids and (hidden := hidden_by(environ)):
        return Coverage(None, f"it can't be told which GPU works: {hidden}", f"unset {hidden}")
    if len(uuids) == len(devices):
        uuids = ()  # all of them work, whatever they are called
    unseen = [uuid for uuid in uuids if not any(device.is_called(uuid) for device in devices)]
    if unseen or not devices:
        what = f"Zeus sees no such GPU: {', '.join(unseen) or 'none at all'}"
        return Coverage(None, what, "check amd-smi list")
    count = len(uuids or devices)
    which = "the GPU that does" if count == 1 else f"the {count} GPUs that do"
    return Coverage("measured", f"{which} the work")


def _ask_zeus() -> dict[str, Any]:
    """Let Zeus look for devices in a process of its own, which vendor libraries may spoil."""
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter and our own code
            [sys.executable, "-P", "-c", _ASK, json.dumps(sys.path), str(os.getpid())],
            capture_output=True,
            text=True,
            timeout=ASK_LIMIT_S,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return {"error": f"it did not answer ({error})"}
    return answer


def _needed(summary: Mapping[str, Any], name: str) -> str | None:
    """Say why what the energy rests on could not be read at last: the counter, or else power."""
    failing: dict[str, str] = summary["failing"][name]
    refused = summary["refused"].get(name, {})
    if COUNTER not in refused:
        return failing.get(COUNTER)
    return "; ".join(failing.values()) or None
