"""A loaded TensorRT-LLM engine: every pass is handed over at once, and the engine schedules it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Batch, EngineReport, Progress, Request
from llenergymeasure.core.backends.shared.nvml_devices import MemoryUse, memory_use
from llenergymeasure.core.backends.tensorrt import problems
from llenergymeasure.core.backends.tensorrt.arguments import EngineTokens, sampling_arguments
from llenergymeasure.core.backends.tensorrt.errors import translated
from llenergymeasure.core.backends.tensorrt.library import TensorRTLibrary
from llenergymeasure.core.backends.tensorrt.processes import (
    MarkedProcesses,
    has_ended,
    stdout_spared,
)
from llenergymeasure.core.backends.tensorrt.trace import (
    BatchRecord,
    Shortfall,
    TensorRTTrace,
    shortfall,
)
from llenergymeasure.core.models import sources
from llenergymeasure.core.models.hub import CONFIG_FILE, Hub
from llenergymeasure.core.models.sources import ModelSource
from llenergymeasure.core.models.tokenizers import HFTokenizer
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import BackendError

_EQUAL_NOTE = (
    "TensorRT-LLM schedules requests as they fit (in-flight batching over its KV cache): batches, "
    "and with them the arithmetic's rounding, are not those of another engine"
)
_MEMORY_NOTE = (
    "device memory is what NVML shows over that before loading, read after loading and at the end, "
    "never inside the measured window; the KV cache is taken whole at load"
)


ReadMemory = Callable[[Sequence[str]], MemoryUse | None]


class LoadedEngine(NamedTuple):
    """What a loaded engine is made of.

    Attributes:
        library: It serves the model.
        tokenizer: The tokenizer of the model.
        processes: The processes of the engine.
        tokens: Tokens with a meaning of their own.
    """

    library: TensorRTLibrary
    tokenizer: HFTokenizer
    processes: MarkedProcesses
    tokens: EngineTokens


class DeviceMemory:
    """Memory that an engine takes on its GPUs.

    Args:
        gpu_uuids: The GPUs.
        before: What was in use before it was loaded.
        read: Reads what is in use.
    """

    def __init__(
        self, gpu_uuids: tuple[str, ...], before: MemoryUse | None, read: ReadMemory = memory_use
    ) -> None:
        self._gpu_uuids, self._before, self._read = gpu_uuids, before, read
        self._model_mb = self._taken_mb()
        self._peak_mb = self._model_mb

    def look(self) -> None:
        """Read once more."""
        known = [mb for mb in (self._peak_mb, self._taken_mb()) if mb is not None]
        self._peak_mb = max(known, default=None)

    def reading(self) -> MemoryReading:
        """Give the peak so far; the capacity is that of one GPU, the smallest."""
        if self._before is None or self._model_mb is None:
            return MemoryReading("none")
        return MemoryReading("device", self._peak_mb, self._model_mb, self._before.capacity_mb)

    def _taken_mb(self) -> float | None:
        now = self._read(self._gpu_uuids)
        if now is None or self._before is None:
            return None
        taken_mb = now.used_mb - self._before.used_mb
        return taken_mb if taken_mb > 0 else None  # others gave back more than we took


class TensorRTEngine:
    """Runs each batch of a plan as one crowd of requests; see the protocol for the contract.

    Args:
        config: What is measured.
        loaded: The engine.
        memory: What it takes.
    """

    def __init__(
        self, config: ExperimentConfig, loaded: LoadedEngine, memory: DeviceMemory
    ) -> None:
        self._config, self._loaded, self._memory = config, loaded, memory
        self.tokenizer = loaded.tokenizer
        self._settings = loaded.library.settings()
        self._workers = loaded.processes.workers()
        self._shortfalls: dict[int, Shortfall] = {}
        self._passes = 0

    def plan(self, requests: Sequence[Request]) -> tuple[Batch, ...]:
        """Hand everything over at once; the engine's max_batch_size bounds what runs together."""
        return (tuple(requests),) if requests else ()

    def run(self, batches: Sequence[Batch], pass_index: int, progress: Progress) -> TensorRTTrace:
        """Generate; returns when the last token is here, which is after the device's work.

        Nothing empties TensorRT-LLM's prefix cache; a salt of its own keeps a pass from finding
        what an earlier one left there.
        """
        trace = TensorRTTrace(pass_index, time.monotonic_ns(), frozenset(self._loaded.tokens.ends))
        self._passes += 1
        with translated("generate", self._config), stdout_spared():
            for batch in batches:
                issued_ns = time.monotonic_ns()
                finished = self._loaded.library.generate(
                    [request.token_ids for request in batch],
                    [self._options(request) for request in batch],
                    f"pass {self._passes}",
                    progress,
                    self._check,
                )
                trace.records.append(BatchRecord(batch, issued_ns, finished))
        if pass_index >= 0:
            self._shortfalls[pass_index] = shortfall(trace)
        return trace

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        config = self._config
        source = sources.resolve(config.model, config.revision)
        architecture = sources.architecture_of(source)
        model_limit = architecture.context_limit if architecture else None
        self._memory.look()
        reused = [one.reused for one in self._shortfalls.values() if one.reused is not None]
        return EngineReport(
            resolved={
                **dict.fromkeys(TensorRTConfig.model_fields),
                **self._settings,
                "eos_token_ids": [] if config.ignores_eos else list(self._loaded.tokens.ends),
            },
            weights="random" if source.kind == "random" else "pretrained",
            memory=self._memory.reading(),
            architecture=architecture,
            model_commit=_commit(source),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=self._settings["max_seq_len"] or model_limit,
            compute_devices=problems.world_size(config),
            pads=False,
            prefix_cache_hits=sum(reused) if reused else None,
            own_weight_seed=source.kind == "random",
            notes=tuple(self._notes()),
        )

    def close(self) -> None:
        """End the executor and its workers, whatever state they are in."""
        try:
            with stdout_spared():
                self._loaded.library.shut_down()
        finally:
            self._loaded.processes.end()

    def _options(self, request: Request) -> dict[str, Any]:
        return sampling_arguments(
            self._config, self._loaded.tokens, request.max_new_tokens, request.index
        )

    def _check(self) -> None:
        dead = [worker.pid for worker in self._workers if has_ended(worker)]
        if dead:
            raise BackendError(
                f"a worker of TensorRT-LLM died (process {dead[0]}); what it printed says why\n"
                "    the system kills where memory runs out (see dmesg): lower "
                "tensorrt.max_batch_size or tensorrt.max_seq_len",
                where="generate",
            )

    def _notes(self) -> Iterator[str]:
        yield from (_EQUAL_NOTE, _MEMORY_NOTE)
        if self._settings["enable_block_reuse"]:
            yield (
                "prompts of a pass share KV-cache blocks of beginnings they have in common, never "
                "with another pass (cache_salt)"
            )
        if self._config.lora is not None:
            yield "FLOPs leave out the unmerged LoRA adapter"
        if untimed := sum(one.untimed for one in self._shortfalls.values()):
            yield (
                f"TensorRT-LLM told no times of {untimed} requests on this machine's clock: their "
                "TTFT, TPOT and E2E are null"
            )


def _commit(source: ModelSource) -> str | None:
    """Give the commit of a model on the Hub, where its ``config.json`` is in the cache."""
    if source.kind != "hub":
        return None
    found = Hub().cached(source.name, CONFIG_FILE, source.revision)
    return found.parent.name if found and found.parent.parent.name == "snapshots" else None
