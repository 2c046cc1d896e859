"""vLLM's offline engine: how a model is loaded, and its passes, handed over whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import RANDOM_PREFIX
from llenergymeasure.core.backends.protocol import Arrival, EngineReport, Progress, Request
from llenergymeasure.core.backends.shared.answering import LOADING
from llenergymeasure.core.backends.shared.engines import (
    ServedTrace,
    flops_notes,
    scheduling_note,
    understood,
)
from llenergymeasure.core.backends.shared.errors import check_fit
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
from llenergymeasure.core.backends.vllm.errors import translated
from llenergymeasure.core.backends.vllm.library import (
    ENVIRONMENT,
    Crowd,
    VLLMLibrary,
    with_gaps,
)
from llenergymeasure.core.backends.vllm.worker import (
    check_workers,
    counted_by,
    device_memory,
)
from llenergymeasure.core.models import loadable, quantised, sources, tokenizers
from llenergymeasure.core.models.config_json import ConfigReader
from llenergymeasure.core.models.tokenizers import HFTokenizer, end_tokens
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import BackendError, ConfigError, Problem

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
        doubt: Why it cannot be told whether all weights are those of the checkpoint, or ``None``.
    """

    def __init__(  # noqa: PLR0913 - what the loader made, each of its own kind
        self,
        config: ExperimentConfig,
        library: VLLMLibrary,
        tokenizer: HFTokenizer,
        processes: EngineProcesses,
        ends: tuple[int, ...],
        *,
        doubt: str | None = None,
    ) -> None:
        self._doubt, self._ends = doubt, () if config.ignores_eos else ends
        self._config, self._library, self._processes = config, library, processes
        self.tokenizer, self._decoding = tokenizer, config.decoder.decoding_strategy
        processes.on_death(library.end_waiting)
        self._loaded = self._facts = library.worker_facts(reset_peak=True)
        on_cpu = any("device_mb" not in worker for worker in self._facts)
        pids = [process.pid for process in processes.running()] if on_cpu else []
        self._resident = ResidentSet(pids) if on_cpu else None

    def serve(
        self, arrivals: Sequence[Arrival], pass_index: int, progress: Progress
    ) -> ServedTrace:
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
            begun_ns = time.monotonic_ns()
            crowds = list(self._crowds(requests, progress))
        asked = [(request, begun_ns) for crowd in crowds for request in crowd.requests]
        finished = [done for crowd in crowds for done in crowd.finished]
        read = partial(with_gaps, [step for crowd in crowds for step in crowd.steps])
        return ServedTrace("vLLM", pass_index, asked, finished, read)

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        with self._asking():
            self._facts = self._library.worker_facts()
        settings, shape = self._resolved(), self._library.shape()
        is_random = self._config.model.startswith(RANDOM_PREFIX)
        return EngineReport(
            resolved=settings,
            weights="random" if is_random else "unknown" if self._doubt else "pretrained",
            memory=self._resident.reading()
            if self._resident
            else device_memory(self._loaded, self._facts),
            architecture=understood(shape.to_dict()),
            counted=counted_by(self._facts),
            model_commit=getattr(shape, "_commit_hash", None),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=settings["max_model_len"],
            compute_devices=len(self._facts),
            pads=False,
            own_weight_seed=is_random,
            notes=tuple(self._notes()),
        )

    def close(self) -> None:
        """End the engine core and its workers, whatever state they are in."""
        self._processes.close(self._library.shut_down)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Have what goes wrong with the engine inside the block told in our words, and end."""
        with (
            translated("generate", self._config, self._processes),
            self._processes.answering("generate"),
        ):
            yield

    def _crowds(self, requests: Sequence[Request], progress: Progress) -> Iterator[Crowd]:
        """Work requests off, all together; a search, those that ask for equally many tokens."""
        config = self._config
        if self._decoding != "beam":
            stop = {"stop_token_ids": list(self._ends)}
            full = {"ignore_eos": True, "stop_token_ids": []}
            options = [
                {
                    **sampling_arguments(config, request.max_new_tokens),
                    **(full if request.full_length else stop),
                }
                for request in requests
            ]
            yield self._library.generate(requests, options, progress)
            return
        for (budget, is_full), crowd in groupby(sorted(requests, key=_length), key=_length):
            ignores = config.ignores_eos or is_full
            found = self._library.beam_search(
                list(crowd), beam_arguments(config.decoder, budget, ignores)
            )
            progress(len(found.requests))
            yield found

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

    def _notes(self) -> Iterator[str]:
        yield scheduling_note("vLLM", "continuous batching over a paged KV cache")
        yield from flops_notes(self._config)
        yield from filter(None, [self._doubt])
        if self._decoding == "sampling":
            yield _SAMPLING_NOTE
        if self._decoding == "beam":
            yield (
                "vLLM tells no times of the steps of a beam search: TTFT, TPOT and ITL are null, "
                "and E2E goes on until it hands back all answers of the same length; every step is "
                "a request of its own, which reuses the prefix cache"
            )
        if ignored := sorted({*self._ends} - {*self._ends_in_force()}):
            yield (
                "vLLM's beam search ends at the tokenizer's end of sequence only; the model has "
                f"further ones: {', '.join(map(str, ignored))}"
            )


def weights_note(
    names: Iterable[str],
    checkpoint: Collection[str] | None,
    model: str,
    *,
    values_are_keys: bool = False,
) -> str | None:
    """Say why it cannot be told whether all weights came from the checkpoint; ``None`` if they did.

    vLLM refuses tensors that it has no place for. Of those that are missing it sees few: what is
    not read stays as the memory was.

    Args:
        names: Parameters of the model.
        checkpoint: Names of the checkpoint's tensors, ``None`` if unknown.
        model: What the user calls it.
        values_are_keys: Whether layers may have no values of their own, for which vLLM takes the
            keys (``attention_k_eq_v`` of Gemma 4).

    Raises:
        BackendError: The checkpoint lacks some, though it has their like in other layers.
    """
    if checkpoint is None:
        return "whether all weights were read is unknown: no safetensors files say what there is"
    if values_are_keys:
        names = [
            name
            for name in names
            if name in checkpoint or name.replace(".v_proj.", ".k_proj.") not in checkpoint
        ]
    missing, elsewhere = loadable.compared(names, checkpoint)
    check_fit(
        f"the weights of '{model}' do not fit its config.json",
        {"missing": missing},
        "name a checkpoint that was saved with this config.json",
    )
    if elsewhere:
        return (
            f"whether all weights were read is unknown: vLLM has {len(elsewhere)} parameters under "
            f"other names than the checkpoint, such as {elsewhere[0]}"
        )
    return None


def _length(request: Request) -> tuple[int, bool]:
    return request.max_new_tokens, request.full_length


class VLLMBackend:
    """Loads a model into ``vllm.LLM``, with its engine core in a process of its own."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports neither vLLM nor torch."""
        return problems.found(config, on_cpu=problems.is_cpu_build())

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
        with (
            ended_on_failure(processes),
            translated("load", config, processes),
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
            doubt = None
            if source.kind != "random":
                text = ConfigReader.of(library.shape().to_dict())
                doubt = weights_note(
                    library.parameters(),
                    loadable.tensors(source),
                    config.model,
                    values_are_keys=text.flag("attention_k_eq_v"),
                )
            ends = end_tokens(source, tokenizer)
            return VLLMEngine(config, library, tokenizer, processes, ends, doubt=doubt)
