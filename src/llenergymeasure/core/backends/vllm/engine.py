"""A loaded vLLM engine: every pass is handed over at once, and the engine schedules it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, Batch, EngineReport, Progress, Request
from llenergymeasure.core.backends.shared.answering import CLOSING
from llenergymeasure.core.backends.shared.batching import all_at_once
from llenergymeasure.core.backends.shared.processes import EngineProcesses
from llenergymeasure.core.backends.vllm.arguments import beam_arguments, sampling_arguments
from llenergymeasure.core.backends.vllm.errors import Witness, translated
from llenergymeasure.core.backends.vllm.library import VLLMLibrary
from llenergymeasure.core.backends.vllm.memory import DeviceMemory, HostMemory
from llenergymeasure.core.backends.vllm.trace import (
    BatchRecord,
    Finished,
    VLLMTrace,
    cached_prompts,
)
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.tokenizers import HFTokenizer
from llenergymeasure.exceptions import BackendError, ConfigError

_EQUAL_NOTE = (
    "vLLM schedules requests as they fit (continuous batching over a paged KV cache): batches, "
    "and with them the arithmetic's rounding, are not those of another engine"
)
_SAMPLING_NOTE = (
    "sampled tokens come from one random stream of the engine, as vLLM deploys: a repeat draws the "
    "same tokens only where requests are scheduled in the same steps, and each pass draws others"
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
        self.tokenizer = tokenizer
        self._witness = Witness(processes.printed, processes.exit_codes)
        processes.on_death(library.end_waiting)
        self._facts = library.worker_facts(reset_peak=True)
        self._memory = self._watched_memory()
        self._cached: dict[int, frozenset[int]] = {}

    def serve(self, arrivals: Sequence[Arrival], pass_index: int, progress: Progress) -> VLLMTrace:
        """Generate; returns when the last token is here, which is after the device's work.

        ``vllm.max_num_seqs`` bounds what runs side by side.
        """
        requests = all_at_once(arrivals, "vLLM")
        with self._asking():
            self._forget_prompts()
            trace = VLLMTrace(pass_index, time.monotonic_ns())
            trace.records.extend(self._records(requests, progress))
        if pass_index >= 0:
            self._cached[pass_index] = cached_prompts(trace.records)
        return trace

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        with self._asking():
            self._facts = self._library.worker_facts()
        settings, architecture = self._resolved(), self._architecture()
        is_random = self._config.model.startswith("random:")
        return EngineReport(
            resolved=settings,
            weights="random" if is_random else "pretrained",
            memory=self._memory.reading(self._facts),
            architecture=architecture,
            model_commit=getattr(self._library.shape(), "_commit_hash", None),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=settings["max_model_len"],
            compute_devices=len(self._facts),
            pads=False,
            prefix_cache_hits=self._prefix_cache_hits(),
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

    def _forget_prompts(self) -> None:
        """Empty the prefix cache; a step of the engine that is under way may hold blocks a while.

        Raises:
            BackendError: It stays as it is, and prompts would be found there.
        """
        if not any(self._library.empty_prefix_cache() for _ in range(_TRIES)):
            raise BackendError(
                "vLLM could not empty its prefix cache: KV blocks of earlier requests are in use\n"
                "    set vllm.enable_prefix_caching: false, or remove what keeps blocks "
                "(kv_transfer_config) from passthrough_kwargs",
                where="generate",
            )

    def _records(self, batch: Batch, progress: Progress) -> Iterator[BatchRecord]:
        if self._config.decoder.decoding_strategy == "beam":
            yield from self._searched(batch, progress)
            return
        issued_ns = time.monotonic_ns()
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
        yield BatchRecord(batch, issued_ns, crowd.finished, crowd.steps)

    def _searched(self, batch: Batch, progress: Progress) -> Iterator[BatchRecord]:
        """Search in crowds of requests that ask for equally many tokens, as one search must."""
        ordered = sorted(batch, key=_budget)
        for budget, crowd in groupby(ordered, key=_budget):
            requests, issued_ns = tuple(crowd), time.monotonic_ns()
            options = beam_arguments(self._config.decoder, budget, self._config.ignores_eos)
            prompts = [request.token_ids for request in requests]
            finished: list[Finished] = self._library.beam_search(prompts, options)
            progress(len(requests))
            yield BatchRecord(requests, issued_ns, finished)

    def _watched_memory(self) -> HostMemory | DeviceMemory:
        if all("device_mb" in worker for worker in self._facts):
            return DeviceMemory(self._facts)
        return HostMemory([process.pid for process in self._processes.running()])

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
        if self._config.decoder.decoding_strategy != "beam":
            return self._ends
        return tuple(each for each in self._ends if each == self.tokenizer.inner.eos_token_id)

    def _architecture(self) -> ModelArchitecture | None:
        # FLOPs are reference data: a shape that is not understood must not stop a measurement.
        try:
            return ModelArchitecture.from_config(self._library.shape().to_dict())
        except ConfigError:
            return None

    def _prefix_cache_hits(self) -> int | None:
        if self._config.decoder.decoding_strategy == "beam":
            return None  # every step of a search is a request that finds its own past there
        return sum(map(len, self._cached.values()))

    def _notes(self, architecture: ModelArchitecture | None) -> Iterator[str]:
        yield _EQUAL_NOTE
        if architecture is None:
            yield "parameters and FLOPs are unknown: the model is not a plain transformer"
        if self._config.decoder.draft_model is not None:
            yield "FLOPs leave out the drafting model and rejected drafts"
        if self._config.lora is not None:
            yield "FLOPs leave out the unmerged LoRA adapter"
        if self._config.decoder.decoding_strategy == "sampling":
            yield _SAMPLING_NOTE
        if self._config.decoder.decoding_strategy == "beam":
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
