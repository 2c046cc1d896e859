"""TensorRT-LLM: how a model is loaded, and the engine, which schedules requests itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, EngineReport, Progress
from llenergymeasure.core.backends.shared.answering import LOADING, WORKING, has_ended
from llenergymeasure.core.backends.shared.engines import (
    ServedTrace,
    flops_notes,
    scheduling_note,
)
from llenergymeasure.core.backends.shared.nvml_devices import (
    NvmlMemory,
    gpu_target,
    memory_use,
)
from llenergymeasure.core.backends.shared.problems import adapter_name
from llenergymeasure.core.backends.shared.processes import EngineProcesses, ended_on_failure
from llenergymeasure.core.backends.tensorrt import FACTS, problems
from llenergymeasure.core.backends.tensorrt.arguments import (
    WORDS,
    engine_arguments,
    sampling_arguments,
)
from llenergymeasure.core.backends.tensorrt.library import (
    ENVIRONMENT,
    Asked,
    TensorRTLibrary,
    checked,
    workers,
)
from llenergymeasure.core.models import sources, tokenizers
from llenergymeasure.core.models.tokenizers import HFTokenizer, end_tokens
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.samples import RequestSample
from llenergymeasure.exceptions import BackendError, ConfigError, Problem

_MEMORY_NOTE = (
    "device memory is what NVML shows over that before loading, read after loading and at the end, "
    "never inside the measured window; the KV cache is taken whole at load"
)


class TensorRTEngine:
    """Hands each request over when it is due and lets TensorRT-LLM schedule them.

    Args:
        config: What is measured.
        library: The loaded engine.
        tokenizer: The tokenizer of the model.
        processes: The processes of the engine.
        memory: What it takes.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        library: TensorRTLibrary,
        tokenizer: HFTokenizer,
        processes: EngineProcesses,
        memory: NvmlMemory,
    ) -> None:
        self._config, self._library, self._processes = config, library, processes
        self._source = sources.resolve(config.model, config.revision)
        self._memory, self.tokenizer = memory, tokenizer
        self._ends = end_tokens(self._source, tokenizer)
        shape = sources.architecture_of(self._source)
        self._token_rows = shape.vocabulary if shape else None
        self._pad = tokenizer.pad_id(self._ends, self._token_rows)
        self._settings = library.settings()
        self._workers = workers(processes)
        self._passes = 0
        self._measured: dict[int, ServedTrace] = {}

    def serve(
        self, arrivals: Sequence[Arrival], pass_index: int, progress: Progress
    ) -> ServedTrace:
        """Generate; returns when the last token is here, which is after the device's work.

        Nothing empties TensorRT-LLM's prefix cache; a salt of its own keeps a pass from finding
        what an earlier one left there. ``tensorrt.max_batch_size`` bounds what runs side by side.
        """
        self._passes += 1
        begun_ns = time.monotonic_ns()
        asked = [
            Asked(
                each.request,
                sampling_arguments(self._config, each.request, self._ends, self._pad),
                begun_ns + each.due_ns,
            )
            for each in arrivals
        ]
        pauses_s = max((each.due_ns for each in arrivals), default=0) / 1e9
        patience = WORKING._replace(idle_s=WORKING.idle_s + pauses_s)
        with (
            WORDS.translated("generate", self._config),
            self._processes.answering("generate", patience),
        ):
            finished = self._library.serve(asked, f"pass {self._passes}", progress, self._check)
        dues = [(each.request, each.due_ns) for each in asked]
        read = partial(checked, frozenset(self._ends))
        trace = ServedTrace("TensorRT-LLM", pass_index, dues, finished, read)
        if pass_index >= 0:
            self._measured[pass_index] = trace
        return trace

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        config, source = self._config, self._source
        architecture = sources.architecture_of(source)
        model_limit = architecture.context_limit if architecture else None
        self._memory.look()
        samples = [sample for trace in self._measured.values() for sample in trace.samples()]
        return EngineReport(
            resolved={
                **dict.fromkeys(TensorRTConfig.model_fields),
                **self._settings,
                "eos_token_ids": [] if config.ignores_eos else list(self._ends),
            },
            weights="random" if source.kind == "random" else "unknown",
            memory=self._memory.reading(),
            architecture=architecture,
            model_commit=sources.commit_of(source),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=self._settings["max_seq_len"] or model_limit,
            compute_devices=FACTS.shards(config.section),
            token_rows=self._token_rows,
            pads=False,
            own_weight_seed=source.kind == "random",
            notes=tuple(self._notes(samples)),
        )

    def close(self) -> None:
        """End the executor and its workers, whatever state they are in."""
        self._processes.close(self._library.shut_down)

    def _check(self) -> None:
        dead = [worker.pid for worker in self._workers if has_ended(worker)]
        if dead:
            raise BackendError(
                f"a worker of TensorRT-LLM died (process {dead[0]}); what it printed says why\n"
                "    the system kills where memory runs out (see dmesg): lower "
                "tensorrt.max_batch_size or tensorrt.max_seq_len",
                where="generate",
            )

    def _notes(self, samples: Sequence[RequestSample]) -> Iterator[str]:
        yield scheduling_note("TensorRT-LLM", "in-flight batching over its KV cache")
        yield _MEMORY_NOTE
        if self._source.kind != "random":
            yield "whether all weights were read is unknown: TensorRT-LLM does not tell"
        yield from flops_notes(self._config)
        yield from self.tokenizer.pad_notes(self._token_rows, self._pad)
        if self._settings["enable_block_reuse"]:
            yield (
                "prompts of a pass share KV-cache blocks of beginnings they have in common, never "
                "with another pass (cache_salt)"
            )
        if untimed := sum(sample.last_token_ns is None for sample in samples):
            yield (
                f"TensorRT-LLM told no times of {untimed} requests on this machine's clock: their "
                "TTFT, TPOT and E2E are null"
            )


class TensorRTBackend:
    """Loads a checkpoint into ``tensorrt_llm.LLM``."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports neither TensorRT-LLM nor torch."""
        return problems.found(config)

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work."""
        return gpu_target(config)

    def load(self, config: ExperimentConfig, cache_dir: Path) -> TensorRTEngine:
        """Load model, adapter and tokenizer; autotuning and graph capture are part of it.

        Raises:
            BackendError: Out of memory, or TensorRT-LLM cannot load it; the message names the field
                to change.
            ConfigError: The checkpoint, all of it here by now, is not of this precision.
        """
        source = sources.resolve(config.model, config.revision)
        processes = EngineProcesses("TensorRT-LLM", ENVIRONMENT)
        gpu_uuids = self.target(config).gpu_uuids
        before = memory_use(gpu_uuids)
        with (
            ended_on_failure(processes),
            WORDS.translated("load", config),
            processes.answering("load", LOADING),
        ):
            model = sources.reference(source, cache_dir)
            tokenizer = tokenizers.load_tokenizer(
                model, config.revision, config.trust_remote_code, config.apply_chat_template
            )
            with processes.starting():
                library = TensorRTLibrary(engine_arguments(config, model), adapter_name(config))
            for problem in problems.checkpoint_problems(config, is_here=True):
                raise ConfigError(f"{problem.what}\n    {problem.remedy}", where=problem.where)
            memory = NvmlMemory(gpu_uuids, before)
            return TensorRTEngine(config, library, tokenizer, processes, memory)
