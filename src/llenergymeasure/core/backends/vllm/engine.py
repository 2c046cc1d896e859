"""vLLM's offline engine: how a model is loaded, and its passes, handed over whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, Batch, EngineReport, Progress, Request
from llenergymeasure.core.backends.shared.answering import CLOSING, LOADING
from llenergymeasure.core.backends.shared.engines import flops_notes, understood
from llenergymeasure.core.backends.shared.memory import ResidentSet
from llenergymeasure.core.backends.shared.nvml_devices import gpu_target
from llenergymeasure.core.backends.shared.problems import adapter_name, adapter_rank
from llenergymeasure.core.backends.shared.processes import EngineProcesses, ended_on_failure
from llenergymeasure.core.backends.vllm import problems
from llenergymeasure.core.backends.vllm.arguments import (
    ModelFiles,
    beam_arguments,
    engine_arguments,
    sampling_arguments,
)
from llenergymeasure.core.backends.vllm.errors import Witness, translated
from llenergymeasure.core.backends.vllm.library import ENVIRONMENT, VLLMLibrary
from llenergymeasure.core.backends.vllm.trace import (
    BatchRecord,
    VLLMTrace,
    cached_prompts,
)
from llenergymeasure.core.backends.vllm.worker import check_workers, device_memory
from llenergymeasure.core.models import quantised, sources, tokenizers
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.tokenizers import HFTokenizer, end_tokens
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError, ConfigError, Problem

_EQUAL_NOTE = (
    "vLLM schedules requests as they fit (continuous batching over a paged KV cache): batches, "
    "and with them the arithmetic's rounding, are not those of another engine"
)
_SAMPLING_NOTE = (
    "sampled tokens come from one random stream of the engine, as vLLM deploys: a repeat draws the "
    "same tokens only where requests are scheduled in the same steps, and each pass draws others"
)
_CACHE_IN_USE = (
    "vLLM could not empty its prefix cache: KV blocks of earlier requests are in use\n"
    "    set vllm.enable_prefix_caching: false, or remove what keeps blocks (kv_transfer_config) "
    "from passthrough_kwargs"
)
_TRIES = 10  # each waits for a step of the engine


class VLLMEngine:
    """Hands all requests over at once and lets vLLM schedule them; see the protocol's contract.

    Args:
        config: What is measured.
        library: The loaded engine.
        tokenizer: The tokenizer of the model.
        processes: The processes of the engine.
        ends: Ids that end a sequence.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        library: VLLMLibrary,
        tokenizer: HFTokenizer,
        processes: EngineProcesses,
        ends: tuple[int, ...],
    ) -> None:
        self._ends = () if config.ignores_eos else ends
        self._config, self._library, self._processes = config, library, processes
        self.tokenizer, self._decoding = tokenizer, config.decoder.decoding_strategy
        self._witness = Witness(processes.printed, processes.exit_codes)
        processes.on_death(library.end_waiting)
        self._loaded = self._facts = library.worker_facts(reset_peak=True)
        on_cpu = any("device_mb" not in worker for worker in self._facts)
        pids = [process.pid for process in processes.running()] if on_cpu else []
        self._resident = ResidentSet(pids) if on_cpu else None
        self._cached: dict[int, frozenset[int]] = {}

    def serve(self, arrivals: Sequence[Arrival], pass_index: int, progress: Progress) -> VLLMTrace:
        """Generate; returns when the last token is here, which is after the device's work.

        ``vllm.max_num_seqs`` bounds what runs side by side.
        """
        if any(arrival.due_ns for arrival in arrivals):
            raise BackendError(
                "vLLM is handed every request at once here; it cannot serve a load whose requests "
                "are due at different times",
                where="generate",
            )
        requests = tuple(arrival.request for arrival in arrivals)
        with self._asking():
            # A step of the engine that is under way may hold blocks a while.
            if not any(self._library.empty_prefix_cache() for _ in range(_TRIES)):
                raise BackendError(_CACHE_IN_USE, where="generate")
            trace = VLLMTrace(pass_index, time.monotonic_ns())
            trace.records.extend(self._records(requests, progress))
        if pass_index >= 0:
            self._cached[pass_index] = cached_prompts(trace.records)
        return trace

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        with self._asking():
            self._facts = self._library.worker_facts()
        settings, shape = self._resolved(), self._library.shape()
        architecture, beam = understood(shape.to_dict()), self._decoding == "beam"
        is_random = self._config.model.startswith("random:")
        return EngineReport(
            resolved=settings,
            weights="random" if is_random else "pretrained",
            memory=self._resident.reading()
            if self._resident
            else device_memory(self._loaded, self._facts),
            architecture=architecture,
            model_commit=getattr(shape, "_commit_hash", None),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=settings["max_model_len"],
            compute_devices=len(self._facts),
            pads=False,
            # Every step of a beam search is a request that finds its own past there.
            prefix_cache_hits=None if beam else sum(map(len, self._cached.values())),
            own_weight_seed=is_random,
            notes=tuple(self._notes(architecture)),
        )

    def close(self) -> None:
        """End the engine core and its workers, whatever state they are in."""
        try:
            with self._processes.answering("close", CLOSING):
                self._library.shut_down()
        except BackendError as error:  # nothing is lost: it has done its work
            print(error.message)  # noqa: T201 - into log.txt
        finally:
            self._processes.end()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Have what goes wrong with the engine inside the block told in our words, and end."""
        with (
            translated("generate", self._config, self._witness),
            self._processes.answering("generate"),
        ):
            yield

    def _records(self, batch: Batch, progress: Progress) -> Iterator[BatchRecord]:
        if self._decoding == "beam":
            yield from self._searched(batch, progress)
            return
        crowd = self._library.generate(
            [request.token_ids for request in batch],
            [
                {
                    **sampling_arguments(self._config, request.max_new_tokens),
                    "stop_token_ids": list(self._ends),
                }
                for request in batch
            ],
            progress,
        )
        yield BatchRecord(batch, crowd.finished, crowd.steps)

    def _searched(self, batch: Batch, progress: Progress) -> Iterator[BatchRecord]:
        """Search in crowds of requests that ask for equally many tokens, as one search must."""
        ordered = sorted(batch, key=_budget)
        for budget, crowd in groupby(ordered, key=_budget):
            requests = tuple(crowd)
            options = beam_arguments(self._config.decoder, budget, self._config.ignores_eos)
            prompts = [request.token_ids for request in requests]
            finished = self._library.beam_search(prompts, options)
            progress(len(requests))
            yield BatchRecord(requests, finished)

    def _resolved(self) -> dict[str, Any]:
        import torch

        kernels = {str(worker["attention_backend"]) for worker in self._facts}
        return {
            **self._library.settings(),
            "attention_backend": ", ".join(sorted(kernels)),
            "worker_threads": [worker["threads"] for worker in self._facts],
            "client_threads": torch.get_num_threads(),
            "eos_token_ids": list(self._ends_in_force()),
        }

    def _ends_in_force(self) -> tuple[int, ...]:
        """Give the ids that end a sequence; vLLM's beam search knows the tokenizer's alone."""
        if self._decoding != "beam":
            return self._ends
        return tuple(each for each in self._ends if each == self.tokenizer.inner.eos_token_id)

    def _notes(self, architecture: ModelArchitecture | None) -> Iterator[str]:
        yield _EQUAL_NOTE
        yield from flops_notes(self._config, architecture)
        if self._decoding == "sampling":
            yield _SAMPLING_NOTE
        if self._decoding == "beam":
            yield (
                "vLLM tells no times of beam search: TTFT, TPOT, ITL and E2E are null; every step "
                "of a search is a request of its own, which reuses the prefix cache"
            )
        if ignored := sorted({*self._ends} - {*self._ends_in_force()}):
            yield (
                "vLLM's beam search ends at the tokenizer's end of sequence only; the model has "
                f"further ones: {', '.join(map(str, ignored))}"
            )


def _budget(request: Request) -> int:
    return request.max_new_tokens


class VLLMBackend:
    """Loads a model into ``vllm.LLM``, with its engine core in a process of its own."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports neither vLLM nor torch."""
        section = config.vllm or VLLMConfig()
        return problems.found(config, section, on_cpu=problems.is_cpu_build())

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work, or the CPU."""
        if problems.is_cpu_build():
            return DeviceTarget("cpu")
        return gpu_target(config)

    def load(self, config: ExperimentConfig, cache_dir: Path) -> VLLMEngine:
        """Load model, adapter and tokenizer; compilation and graph capture are part of it.

        Raises:
            BackendError: Out of memory, or vLLM cannot load it; the message names the field to
                change.
            ConfigError: The checkpoint is of another precision.
            ExperimentError: It works on other GPUs than those whose energy is read.
        """
        source, draft = sources.resolve(config.model, config.revision), config.decoder.draft_model
        stated = quantised.of_model(config.model, config.revision)
        files = ModelFiles(
            model=sources.reference(source, cache_dir),
            is_random=source.kind == "random",
            quantised_as=stated and stated.method,
            draft=draft and sources.reference(sources.resolve(draft, None), cache_dir),
            lora_rank=adapter_rank(config),
        )
        processes = EngineProcesses("vLLM", ENVIRONMENT)
        witness = Witness(processes.printed, processes.exit_codes)
        with (
            ended_on_failure(processes),
            translated("load", config, witness),
            processes.answering("load", LOADING),
        ):
            tokenizer = tokenizers.load_tokenizer(
                files.model, config.revision, config.trust_remote_code, config.apply_chat_template
            )
            with processes.starting():
                library = VLLMLibrary(engine_arguments(config, files), adapter_name(config))
            # Looked at again, where all files of a model on the Hub are here.
            stated = quantised.of_model(config.model, config.revision)
            if problem := quantised.disagreement(stated, config.precision):
                raise ConfigError(f"{problem.what}\n    {problem.remedy}", where=problem.where)
            if (target := self.target(config)).kind == "gpu":
                check_workers(library.worker_facts(), target.gpu_uuids)
            ends = end_tokens(source, tokenizer)
            return VLLMEngine(config, library, tokenizer, processes, ends)
