"""A loaded TensorRT-LLM engine: every pass is handed over at once, and the engine schedules it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Batch, EngineReport, Progress, Request
from llenergymeasure.core.backends.shared.nvml_devices import MemoryUse, memory_use
from llenergymeasure.core.backends.tensorrt.arguments import EngineTokens, sampling_arguments
from llenergymeasure.core.backends.tensorrt.cache import CachedEngine
from llenergymeasure.core.backends.tensorrt.errors import translated
from llenergymeasure.core.backends.tensorrt.facts import EngineFacts
from llenergymeasure.core.backends.tensorrt.library import TensorRTLibrary
from llenergymeasure.core.backends.tensorrt.model import commit
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
from llenergymeasure.core.models.tokenizers import HFTokenizer
from llenergymeasure.domain.samples import MemoryReading
from llenergymeasure.exceptions import BackendError

_EQUAL_NOTE = (
    "TensorRT-LLM schedules requests as they fit (in-flight batching over its KV cache): batches, "
    "and with them the arithmetic's rounding, are not those of another engine"
)
_CACHE_NOTE = (
    "reuse of KV-cache blocks between requests is off, as nothing empties a TensorRT engine's "
    "prefix cache between passes"
)
_MEMORY_NOTE = (
    "device memory is what NVML shows over that before loading, read after loading and at the end, "
    "never inside the measured window; the KV cache is taken whole at load"
)


ReadMemory = Callable[[Sequence[str]], MemoryUse | None]


class LoadedEngine(NamedTuple):
    """What a loaded engine is made of.

    Attributes:
        library: It serves the engine.
        tokenizer: The tokenizer of the model.
        processes: The processes of the engine.
        facts: What the engine's files say.
        cached: Where it came from.
        tokens: Tokens with a meaning of their own.
        gpu_uuids: The GPUs it runs on.
    """

    library: TensorRTLibrary
    tokenizer: HFTokenizer
    processes: MarkedProcesses
    facts: EngineFacts
    cached: CachedEngine
    tokens: EngineTokens
    gpu_uuids: tuple[str, ...]


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
        self._workers = loaded.processes.workers()
        self._shortfalls: dict[int, Shortfall] = {}

    def plan(self, requests: Sequence[Request]) -> tuple[Batch, ...]:
        """Hand everything over at once; the engine's max_batch_size bounds what runs together."""
        return (tuple(requests),) if requests else ()

    def run(self, batches: Sequence[Batch], pass_index: int, progress: Progress) -> TensorRTTrace:
        """Generate; returns when the last token is here, which is after the device's work."""
        ends = frozenset(self._loaded.tokens.ends)
        trace = TensorRTTrace(pass_index, time.monotonic_ns(), ends)
        engine = str(self._loaded.cached.directory)
        with translated("generate", self._config, engine), stdout_spared():
            for batch in batches:
                trace.records.append(self._record(batch, progress))
        if pass_index >= 0:
            self._shortfalls[pass_index] = shortfall(trace)
        return trace

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        config, facts = self._config, self._loaded.facts
        source = sources.resolve(config.model, config.revision)
        self._memory.look()
        return EngineReport(
            resolved=self._resolved(),
            weights="random" if source.kind == "random" else "pretrained",
            memory=self._memory.reading(),
            architecture=sources.architecture_of(source),
            model_commit=commit(source),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=facts.max_seq_len,
            compute_devices=facts.world_size,
            pads=False,
            prefix_cache_hits=self._prefix_cache_hits(),
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

    def _record(self, batch: Batch, progress: Progress) -> BatchRecord:
        config, tokens = self._config, self._loaded.tokens
        issued_ns = time.monotonic_ns()
        finished = self._loaded.library.generate(
            [request.token_ids for request in batch],
            [
                sampling_arguments(config, tokens, request.max_new_tokens, request.index)
                for request in batch
            ],
            progress,
            self._check,
        )
        return BatchRecord(batch, issued_ns, finished)

    def _check(self) -> None:
        dead = [worker.pid for worker in self._workers if has_ended(worker)]
        if dead:
            raise BackendError(
                f"a worker of TensorRT-LLM died (process {dead[0]}); what it printed says why\n"
                "    the system kills where memory runs out (see dmesg): lower "
                "tensorrt.max_batch_size or tensorrt.max_seq_len",
                where="generate",
            )

    def _resolved(self) -> dict[str, Any]:
        facts, cached = self._loaded.facts, self._loaded.cached
        return {
            "max_batch_size": facts.max_batch_size,
            "tp_size": facts.tp_size,
            "pp_size": facts.pp_size,
            "max_seq_len": facts.max_seq_len,
            "kv_cache_type": facts.kv_cache_type,
            "quantization": facts.quant_algo,
            "builder_opt_level": None,
            "engine_path": str(cached.directory),
            "compute_dtype": facts.dtype,
            "max_input_len": facts.max_input_len,
            "max_num_tokens": facts.max_num_tokens,
            "built_with": facts.version,
            "build_seconds": cached.build_s,
            "built_now": cached.built_now,
            "eos_token_ids": [] if self._config.ignores_eos else list(self._loaded.tokens.ends),
        }

    def _prefix_cache_hits(self) -> int | None:
        known = [one.reused for one in self._shortfalls.values() if one.reused is not None]
        return sum(known) if known else None

    def _notes(self) -> Iterator[str]:
        yield from (_EQUAL_NOTE, _CACHE_NOTE, _MEMORY_NOTE)
        yield self._build_note()
        if self._config.lora is not None:
            yield "FLOPs leave out the unmerged LoRA adapter"
        yield from self._shortfall_notes()

    def _build_note(self) -> str:
        cached = self._loaded.cached
        if cached.build_s is None:
            return "the engine was built beforehand (tensorrt.engine_path); its weights are its own"
        if cached.built_now:
            return (
                f"the engine was built in {cached.build_s:.1f} s, before it was loaded: part of a "
                "measured load, never of the measured window; it is in the cache from now on"
            )
        return f"the engine comes from the cache; its build took {cached.build_s:.1f} s then"

    def _shortfall_notes(self) -> Iterator[str]:
        passes = self._shortfalls.values()
        untimed = sum(one.untimed for one in passes)
        if untimed:
            yield (
                f"TensorRT-LLM told no times of {untimed} requests on this machine's clock: their "
                "TTFT, TPOT and E2E are null"
            )
