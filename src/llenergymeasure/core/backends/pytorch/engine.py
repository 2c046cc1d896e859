"""A loaded transformers model that generates batch by batch."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from llenergymeasure.config.backend_configs import PyTorchConfig
from llenergymeasure.config.models import DecoderConfig, ExperimentConfig
from llenergymeasure.core.allowance import allowance
from llenergymeasure.core.backends.protocol import Batch, EngineReport, Progress, Request
from llenergymeasure.core.backends.pytorch.trace import (
    BatchTrace,
    BudgetCriterion,
    BurstClock,
    CudaStamps,
    ForwardCount,
    HostStamps,
    PyTorchTrace,
    TokenClock,
)
from llenergymeasure.core.backends.shared import errors
from llenergymeasure.core.backends.shared.engines import (
    dynamic_batches,
    flops_notes,
    sampling_options,
    static_batches,
    understood,
)
from llenergymeasure.core.backends.shared.errors import OUT_OF_MEMORY, Words, first_lines
from llenergymeasure.core.backends.shared.memory import CudaMemory, ResidentSet
from llenergymeasure.core.models.config_json import ConfigReader
from llenergymeasure.core.models.counted import Counted
from llenergymeasure.core.models.tokenizers import HFTokenizer
from llenergymeasure.exceptions import BackendError


class PyTorchEngine:
    """Runs each batch as one ``generate`` call; see the protocol for the contract.

    Args:
        config: What is measured.
        model: The loaded model.
        tokenizer: Its tokenizer.
        draft: The drafting model, or ``None``.
        ends: Ids that end a sequence.
        counted: Parameters of the model; ``None`` where that is not known.
        weights: Where the weights of the model are from, as its loader says.
    """

    def __init__(  # noqa: PLR0913 - what the loader made, each of its own kind
        self,
        config: ExperimentConfig,
        model: Any,
        tokenizer: HFTokenizer,
        draft: Any,
        ends: tuple[int, ...],
        *,
        counted: Counted | None = None,
        weights: Literal["pretrained", "random"],
    ) -> None:
        import torch
        from transformers import GenerationConfig

        self._torch = torch
        section = config.pytorch or PyTorchConfig()
        self._config, self._section = config, section
        self._model, self.tokenizer, self._draft = model, tokenizer, draft
        self._counted = counted
        self._threads_before = torch.get_num_threads()
        if section.num_threads is not None:
            torch.set_num_threads(section.num_threads)
        self._eos_ids = frozenset(() if config.ignores_eos else ends)
        self._weights, self._token_rows = weights, model.get_input_embeddings().weight.shape[0]
        self._pad_id = self.tokenizer.pad_id(self._eos_ids, self._token_rows)
        for loaded in filter(None, (model, draft)):
            # What a model ships as generation_config is no part of the workload. peft's wrapper
            # hands its own to the model inside, or does not, depending on its kind.
            inner = generating_model(loaded)
            loaded.generation_config = inner.generation_config = GenerationConfig()
        self._searches = config.decoder.decoding_strategy == "beam"
        self._drafts = ForwardCount()
        if draft is not None:
            draft.register_forward_hook(self._drafts)
        self._gpus = sorted(name for name in self._used_devices() if name.startswith("cuda"))
        for gpu in self._gpus:  # loading ends when the weights are there
            torch.cuda.synchronize(gpu)
        self._memory = CudaMemory(torch, self._gpus) if self._gpus else ResidentSet()

    def plan(self, requests: Sequence[Request]) -> tuple[Batch, ...]:
        """Group requests into static or dynamic batches."""
        group = dynamic_batches if self._section.batching_strategy == "dynamic" else static_batches
        return group(requests, self._section.batch_size or 1)

    def run(self, batches: Sequence[Batch], pass_index: int, progress: Progress) -> PyTorchTrace:
        """Generate batch after batch; returns with the device synchronised.

        Every pass begins with the same seed, so that sampled passes are alike and do not depend on
        how long the warm-up took.
        """
        self._torch.manual_seed(self._config.random_seed)
        trace = PyTorchTrace(pass_index, time.monotonic_ns(), self._eos_ids, self._searches)
        with translated("generate", self._config), self._torch.inference_mode():
            for batch in batches:
                trace.batches.append(self._generate(batch))
                progress(len(batch))
            for gpu in self._gpus:
                self._torch.cuda.synchronize(gpu)
        return trace

    def inspect(self) -> EngineReport:
        """Report settings in force, memory, and the shape of the model."""
        shape = self._model.config.get_text_config()
        architecture = understood(self._model.config.to_dict())
        notes = [
            *flops_notes(self._config),
            *self.tokenizer.pad_notes(self._token_rows, self._pad_id),
        ]
        if self._searches:
            notes.append(
                "TTFT and ITL are of search steps, since no token is final before a search ends; "
                "E2E goes on until then, and TPOT is null"
            )
        quota, threads = allowance().cpu_quota, self._torch.get_num_threads()
        if quota is not None and threads > quota:
            notes.append(f"{threads} threads share a quota of {quota:g} CPUs (pytorch.num_threads)")
        return EngineReport(
            resolved=self._resolved(),
            weights=self._weights,
            memory=self._memory.reading(),
            architecture=architecture,
            counted=self._counted,
            model_commit=getattr(self._model.config, "_commit_hash", None),
            tokenizer_sha256=self.tokenizer.sha256,
            context_limit=ConfigReader.of(shape.to_dict()).context_limit,
            token_rows=self._token_rows,
            compute_devices=len(self._used_devices()),
            pads=True,
            notes=tuple(notes),
        )

    def close(self) -> None:
        """Drop the model and give its memory back."""
        self._model = self._draft = None
        if self._section.torch_compile:
            from torch._inductor.async_compile import shutdown_compile_workers

            shutdown_compile_workers()  # inductor's processes would live as long as this one
        self._torch.set_num_threads(self._threads_before)
        gc.collect()
        if self._gpus:
            self._torch.cuda.empty_cache()

    def _generate(self, batch: Batch) -> BatchTrace:
        from transformers import GenerationConfig

        place = self._input_device()
        stamps = CudaStamps(self._torch, place) if place.type == "cuda" else HostStamps()
        ids, mask = self._inputs(batch)  # (batch, longest prompt)
        most = max(request.max_new_tokens for request in batch)
        chosen = decoding_options(self._config.decoder)
        if self._eos_ids and any(request.full_length for request in batch):
            chosen["min_new_tokens"] = most
        options = GenerationConfig(
            max_new_tokens=most,
            pad_token_id=self._pad_id,
            eos_token_id=sorted(self._eos_ids) or None,
            use_cache=True,
            **chosen,
        )
        clock: TokenClock | BurstClock = (
            BurstClock(stamps.stamp) if self._draft is not None else TokenClock(stamps.stamp)
        )
        drafted_before = self._drafts.passes
        output = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=options,
            **self._hooks(batch, clock, ids.shape[1]),
        ).cpu()  # (batch, longest prompt + new tokens)
        drafted = None if self._draft is None else self._drafts.passes - drafted_before
        return BatchTrace(batch, stamps, clock, ids.shape[1], output, time.monotonic_ns(), drafted)

    def _inputs(self, batch: Batch) -> tuple[Any, Any]:
        """Pad on the left, so that every row's last prompt token stands beside its first answer."""
        longest = max(len(request.token_ids) for request in batch)
        pads = [longest - len(request.token_ids) for request in batch]
        rows = [
            [self._pad_id] * pad + list(request.token_ids)
            for pad, request in zip(pads, batch, strict=True)
        ]
        mask = [[0] * pad + [1] * (longest - pad) for pad in pads]
        place = {"device": self._input_device(), "dtype": self._torch.long}
        return self._torch.tensor(rows, **place), self._torch.tensor(mask, **place)

    def _hooks(self, batch: Batch, clock: TokenClock | BurstClock, longest: int) -> dict[str, Any]:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        criteria = StoppingCriteriaList()
        budgets = [request.max_new_tokens for request in batch]
        if min(budgets) < max(budgets):
            tensor = self._torch.tensor(budgets, device=self._input_device())
            criteria.append(BudgetCriterion(longest, tensor))
        if isinstance(clock, BurstClock):
            criteria.append(clock)
            return {"stopping_criteria": criteria, "assistant_model": self._draft}
        return {"stopping_criteria": criteria, "logits_processor": LogitsProcessorList([clock])}

    def _input_device(self) -> Any:
        return self._model.get_input_embeddings().weight.device

    def _used_devices(self) -> set[str]:
        models = [model for model in (self._model, self._draft) if model is not None]
        return {str(parameter.device) for model in models for parameter in model.parameters()}

    def _resolved(self) -> dict[str, Any]:
        section = self._section
        return {
            "batch_size": section.batch_size or 1,
            "batching_strategy": section.batching_strategy or "static",
            "attn_implementation": self._model.config._attn_implementation,
            "torch_compile": bool(section.torch_compile),
            "load_in_4bit": self._config.precision == "int4",
            "load_in_8bit": self._config.precision == "int8",
            "num_processes": 1,
            "device": ", ".join(sorted(self._used_devices())),
            "device_map": section.device_map,
            "num_threads": self._torch.get_num_threads(),
            "compute_dtype": str(self._model.dtype).removeprefix("torch."),
            "eos_token_ids": sorted(self._eos_ids),
        }


def decoding_options(decoder: DecoderConfig) -> dict[str, Any]:
    """Map the decoder section to ``GenerationConfig`` arguments; null becomes neutral."""
    options: dict[str, Any] = {
        "do_sample": decoder.decoding_strategy == "sampling",
        "num_beams": decoder.num_beams or 1,
        "repetition_penalty": decoder.repetition_penalty or 1.0,
    }
    if decoder.min_new_tokens is not None:
        options["min_new_tokens"] = decoder.min_new_tokens
    return {**options, **sampling_options(decoder)}


def generating_model(model: Any) -> Any:
    """Give the transformers model that runs ``generate``: that inside, where peft wraps it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


_WORDS = Words(
    "PyTorch",
    remedies=(
        ("unexpected keyword argument", "check passthrough_kwargs: the model does not take it"),
        ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
        ("does not support an attention", "choose another pytorch.attn_implementation"),
        ("target modules", "check that lora names an adapter of this model"),
        ("size mismatch", "check that lora or decoder.draft_model belongs to this model"),
        ("assistant", "decoder.draft_model must share the model's vocabulary"),
        ("c++ compiler", "install gcc, or set pytorch.torch_compile: false"),
    ),
)


def translated(phase: str, config: ExperimentConfig) -> AbstractContextManager[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        phase: What was going on: ``load``, or ``generate``.
        config: The experiment, for the values that the message names.
    """

    def tell(error: Exception) -> BackendError:
        said = first_lines(error)
        if isinstance(error, MemoryError) or any(mark in said.lower() for mark in OUT_OF_MEMORY):
            return _out_of_memory(phase, config)
        return _WORDS.error(phase, config, said)

    return errors.translated(tell)


def _out_of_memory(phase: str, config: ExperimentConfig) -> BackendError:
    batch_size = (config.pytorch.batch_size if config.pytorch else None) or 1
    if phase == "load":
        remedy = "choose a smaller model, a smaller precision, or pytorch.device_map: auto"
    elif batch_size == 1:
        remedy = "lower max_input_tokens or max_new_tokens"
    else:
        remedy = "lower pytorch.batch_size (or max_input_tokens, max_new_tokens)"
    return BackendError(
        f"out of memory during {phase} with pytorch.batch_size {batch_size}, "
        f"max_input_tokens {config.max_input_tokens}, max_new_tokens {config.max_new_tokens}; "
        f"{remedy}",
        where=phase,
    )
