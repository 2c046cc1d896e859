"""Which results may be pooled: those of one board, or of boards that did the work together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from llenergymeasure.domain.results import ExperimentResult

Devices = tuple[str, ...]


def devices_of(result: ExperimentResult) -> Devices:
    """Name what did the work: GPUs by UUID, or the CPU; empty where that is not known."""
    if result.multi_gpu is not None:
        return tuple(sorted(result.multi_gpu.devices))
    gpus = {gpu.uuid for gpu in result.environment.gpus}
    used = {part.name for part in result.energy.components if part.in_scope} & gpus
    used = used or {state.device for state in result.device_state}
    if not used and result.memory.kind == "device":
        used = gpus if len(gpus) == 1 else set()
    if used or result.memory.kind == "device":
        return tuple(sorted(used))
    return (result.environment.cpu_model,) if result.environment.cpu_model else ()


def stations(used: Iterable[tuple[int, Devices]]) -> Mapping[Devices, Hashable]:
    """Tell which sets of devices are one place to compare configurations in.

    A configuration on one GPU and one on that GPU and its neighbour are compared: each is what the
    machine costs when so used. Sets that have no device in common are different boards. So are all
    sets as soon as one configuration moved from one to another, since boards would then pass for
    noise.

    Args:
        used: Configuration and devices of each result.

    Returns:
        For each set of devices, the place it belongs to.
    """
    seen = set(used)
    sets = list(dict.fromkeys(devices for _, devices in sorted(seen)))
    if len({one for one, _ in seen}) < len(seen):
        return {devices: devices for devices in sets}
    places: list[set[str]] = []
    for devices in sets:
        joined = [place for place in places if place & set(devices)]
        places = [place for place in places if place not in joined]
        places.append(set(devices).union(*joined))
    return {
        devices: next((tuple(sorted(p)) for p in places if p >= set(devices)), devices)
        for devices in sets
    }
