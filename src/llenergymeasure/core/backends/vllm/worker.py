"""What is asked inside vLLM's workers, which are processes of their own, and what it tells.

vLLM adds this class to its worker (``worker_extension_cls``), so no name may clash with one there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llenergymeasure.core.models.counted import Counted, count
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import ExperimentError
from llenergymeasure.units import MIB


class WorkerFacts:
    """Mixed into a worker; called through ``LLM.collective_rpc`` by name."""

    model_runner: Any

    def llenergymeasure_facts(self, reset_peak: bool = False) -> dict[str, Any]:
        """Tell threads, attention kernel, parameters, device and its memory (MiB) of one worker.

        Args:
            reset_peak: Begin the peak of memory anew, after telling.
        """
        import torch

        # vLLM does not show the kernels of the layers everywhere.
        groups = getattr(self.model_runner, "attn_groups", None) or []
        backends = [getattr(group, "backend", None) for row in groups for group in row]
        names = {backend.get_name() for backend in backends if backend is not None}
        facts: dict[str, Any] = {
            "threads": torch.get_num_threads(),
            "attention_backend": ", ".join(sorted(names)) or None,
            "parameters": count(self.model_runner.get_model()),
        }
        if torch.cuda.is_available():
            facts["device_mb"] = torch.cuda.memory_allocated() / MIB
            facts["device_peak_mb"] = torch.cuda.max_memory_allocated() / MIB
            device = torch.cuda.get_device_properties(torch.cuda.current_device())
            facts["device_capacity_mb"] = device.total_memory / MIB
            facts["device_uuid"] = f"GPU-{device.uuid}"
            if reset_peak:
                torch.cuda.reset_peak_memory_stats()
        return facts

    def llenergymeasure_parameters(self) -> list[str]:
        """Name the parameters of this worker's share of the model, as checkpoints have them.

        What vLLM packs into one matrix has several names there (``packed_modules_mapping``), and
        what it wraps for an adapter has another (``base_layer``).
        """
        model, names = self.model_runner.get_model(), []
        packed: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", None) or {}
        for whole, _ in model.named_parameters():
            *head, module, last = f".{whole}".replace(".base_layer.", ".").split(".")
            parts = packed.get(module, [module])
            names += [".".join((*head, part, last)).strip(".") for part in parts]
        return names


def counted_by(facts: Sequence[Mapping[str, Any]]) -> Counted | None:
    """Give the parameters of a model that one worker holds whole; shards are not added up.

    Shards overlap: norms, and heads of keys where there are fewer than workers, are in several.
    """
    counts = facts[0]["parameters"] if len(facts) == 1 else None
    return counts and Counted(*counts)


def check_workers(facts: Sequence[Mapping[str, Any]], uuids: Sequence[str]) -> None:
    """Make sure that the workers run on the GPUs whose energy is read, one on each.

    Args:
        facts: What the workers say.
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
