"""What is asked inside vLLM's workers, which are processes of their own.

vLLM adds this class to its worker (``worker_extension_cls``), so no name may clash with one there.
"""

from __future__ import annotations

from typing import Any

from llenergymeasure.units import MIB


class WorkerFacts:
    """Mixed into a worker; called through ``LLM.collective_rpc`` by name."""

    model_runner: Any

    def llenergymeasure_facts(self, reset_peak: bool = False) -> dict[str, Any]:
        """Tell threads, attention kernel, device and its memory (MiB) of one worker.

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
