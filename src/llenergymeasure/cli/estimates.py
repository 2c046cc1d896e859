"""What the plans of an experiment and of a study estimate: memory, and how long it takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psutil

from llenergymeasure.config.energy_sources import AUTO, energy_sources
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.memory_estimate import MemoryEstimate, estimate_memory
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.sources import read_config, resolve
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.exceptions import ConfigError
from llenergymeasure.study.limits import TimeLimits
from llenergymeasure.units import MIB


class _Room(NamedTuple):
    """Where the model would go.

    Attributes:
        device: Its name, for people.
        capacity_mb: What all of it has, MiB; ``None`` where that is not known.
        fits: Whether what is needed fits; ``None`` where that is not known.
    """

    device: str
    capacity_mb: float | None
    fits: bool | None


def memory_plan(
    config: ExperimentConfig,
    architecture: ModelArchitecture | None,
    gpus: Sequence[GPUInfo],
    environ: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """Hold the memory an experiment needs against what its devices have, MiB.

    Args:
        config: The experiment.
        architecture: Shape of its model; ``None`` where it is not known.
        gpus: What NVML sees; none for work on the CPU.
        environ: Variables that say which of them may be used.
    """
    if architecture is None:
        return {"unknown": _why_unknown(config)}
    estimate = estimate_memory(config, architecture)
    copies = getattr(config.section, "num_processes", None) or 1
    return {
        "copies": copies,
        "weights_mb": round(estimate.weights_mb, 1),
        "kv_cache_mb": round(estimate.kv_cache_mb, 1),
        "activations_mb": round(estimate.activations_mb, 1),
        "total_mb": round(copies * estimate.total_mb, 1),
        "rows": estimate.rows,
        "context_tokens": estimate.context_tokens,
        **_room(config, estimate, copies, _visible(gpus, environ))._asdict(),
    }


def may_be_measured(
    config: ExperimentConfig, settings: EffectiveSettings, limits: TimeLimits
) -> bool:
    """Whether baseline and thermal floor are likely to apply; only the run itself can tell."""
    named = config.energy_backend
    source = settings.config.measurement.energy_backend if named == AUTO else named
    on_gpu = limits.gpu_name(config) is not None
    if source == AUTO:
        return on_gpu
    return energy_sources()[source].kind == "measured"


def _why_unknown(config: ExperimentConfig) -> str:
    if not backend_entry(config.backend).runs_a_model:
        return f"the {config.backend} backend loads no model"
    try:
        if (found := read_config(resolve(config.model, config.revision))) is not None:
            ModelArchitecture.from_config(found)
    except ConfigError as error:
        return error.message
    return "the model's config.json is not on this machine yet"


def _visible(gpus: Sequence[GPUInfo], environ: Mapping[str, str]) -> list[GPUInfo]:
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    try:
        return [by_uuid[uuid] for uuid in visible_uuids(list(by_uuid), environ)]
    except LookupError:  # which ones cannot be told; all is a fair guess
        return list(gpus)


def _room(
    config: ExperimentConfig, estimate: MemoryEstimate, copies: int, gpus: Sequence[GPUInfo]
) -> _Room:
    if not gpus:
        capacity_mb = psutil.virtual_memory().total / MIB
        needed_mb = copies * estimate.total_mb
        return _Room("this machine's RAM", capacity_mb, needed_mb <= capacity_mb)
    used = _used(config, copies * estimate.shards, gpus)
    sizes_mb = [gpu.memory_mb for gpu in used if gpu.memory_mb is not None]
    if not sizes_mb or len(sizes_mb) < len(used):
        return _Room(_named(used) or "no such GPU", None, None)
    spread = getattr(config.section, "device_map", None) is not None
    fits = estimate.total_mb <= sum(sizes_mb) if spread else estimate.per_device_mb <= min(sizes_mb)
    return _Room(_named(used), sum(sizes_mb), fits)


def _used(config: ExperimentConfig, count: int, gpus: Sequence[GPUInfo]) -> Sequence[GPUInfo]:
    """Pick the GPUs that will do the work: one for each copy and shard, or all for a map."""
    if getattr(config.section, "device_map", None) is not None:
        return gpus
    _, _, number = str(getattr(config.section, "device", None) or "").partition(":")
    first = int(number) if number.isdecimal() else 0
    return gpus[first : first + count]


def _named(gpus: Sequence[GPUInfo]) -> str:
    names = Counter(gpu.name for gpu in gpus)
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items())
