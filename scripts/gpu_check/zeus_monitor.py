"""ZeusMonitor and this package around the same load."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import version
from typing import Any

from gpu_check import readings
from gpu_check.device import chosen_uuid, load_of, record
from gpu_check.plan import Outcome, Plan
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.samples import Window

SCALE_SHARE = 0.01
UNKNOWN_TICK_MS = 100.0


def check(plan: Plan) -> Outcome:
    """Measure a load with both; they may differ by a counter's tick at each edge."""
    if importlib.util.find_spec("zeus") is None:
        return Outcome("skipped", "Zeus is not installed", {})
    uuid = chosen_uuid(plan)
    window, recording, zeus_j, zeus_s = _measured(plan, uuid)
    allowed_j = allowance_j(recording, window)
    figures = {
        "zeus_version": version("zeus"),
        "zeus_j": zeus_j,
        "zeus_window_s": zeus_s,
        "allowed_j": allowed_j,
        "ours": readings.summary(recording, window),
    }
    return judged(zeus_j, recording.total_j, allowed_j, figures)


def judged(
    zeus_j: float, ours_j: float | None, allowed_j: float, figures: dict[str, Any]
) -> Outcome:
    """Say whether both figures agree."""
    if ours_j is None:
        return Outcome("failed", "this package gives no energy", figures)
    if abs(zeus_j - ours_j) > allowed_j:
        what = f"Zeus gives {zeus_j:.1f} J, this package {ours_j:.1f} J"
        return Outcome("failed", f"{what}; they may differ by {allowed_j:.1f} J", figures)
    return Outcome("ok", "", figures)


def allowance_j(recording: EnergyRecording, window: Window) -> float:
    """Give by how much both may differ: a tick at each edge, our interval, and 1 %."""
    energy_j = recording.total_j or 0.0
    tick_s = (recording.components[0].tick_ms or UNKNOWN_TICK_MS) / 1e3
    edges_j = 2 * tick_s * energy_j / window.seconds
    return edges_j + (recording.interval_j or 0.0) + SCALE_SHARE * energy_j


def _measured(plan: Plan, uuid: str) -> tuple[Window, EnergyRecording, float, float]:
    # Zeus takes this variable for numbers of NVML and fails on UUIDs.
    visible = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    monitor, index = _monitor(uuid)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    found: list[Any] = []

    def work() -> Window:
        monitor.begin_window("check", sync_execution=False)
        window = load.burst(plan.compare_s)
        found.append(monitor.end_window("check", sync_execution=False))
        return window

    with load_of(plan, uuid) as load:
        window, recording = record(uuid, work)
    return window, recording, float(found[0].gpu_energy[index]), float(found[0].time)


def _monitor(uuid: str) -> tuple[Any, int]:
    """Make a monitor of one GPU, and give the number it has for it."""
    import pynvml
    from zeus.device.gpu import get_gpus
    from zeus.monitor import ZeusMonitor

    shown = [str(pynvml.nvmlDeviceGetUUID(gpu.handle)) for gpu in get_gpus().gpus]
    index = shown.index(uuid)
    return ZeusMonitor(gpu_indices=[index], cpu_indices=[]), index
