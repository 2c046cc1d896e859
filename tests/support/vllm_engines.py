"""vLLM engines for tests: loading takes a quarter of a minute, so they are shared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, Request
from llenergymeasure.core.backends.shared.answering import WORKING, Patience
from llenergymeasure.core.backends.shared.engines import ServedTrace
from llenergymeasure.core.backends.shared.processes import EngineProcesses
from llenergymeasure.core.backends.vllm.engine import VLLMBackend, VLLMEngine
from llenergymeasure.core.models import sources
from llenergymeasure.core.models.tokenizers import end_tokens
from llenergymeasure.exceptions import LLEMError

QUICK = {
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": 4,
    "block_size": 32,
    "gpu_memory_utilization": 0.2,
}
"""A section under which nothing is compiled, small blocks, and little of the memory is taken."""

HEADS = {"hidden_size": 256, "intermediate_size": 256}
"""Fields of a tiny model whose heads are as wide as vLLM's kernels for CPUs need them."""


def vllm_config(**fields: Any) -> ExperimentConfig:
    """Make an experiment on vLLM, in fp32 unless told otherwise."""
    return ExperimentConfig(**{"backend": "vllm", "precision": "fp32", "vllm": QUICK, **fields})


class Impatient:
    """Processes of an engine that may not be idle for long."""

    def __init__(self, processes: EngineProcesses, idle_s: float) -> None:
        self._processes, self._idle_s = processes, idle_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processes, name)

    def answering(self, phase: str, patience: Patience = WORKING) -> AbstractContextManager[None]:
        return self._processes.answering(phase, patience._replace(idle_s=self._idle_s))


@contextmanager
def loaded(cache_dir: Path, **fields: Any) -> Iterator[VLLMEngine]:
    """Load an engine for the block; a wait for it ends where it does nothing for half a minute."""
    engine = VLLMBackend().load(vllm_config(**fields), cache_dir)
    engine._processes = Impatient(engine._processes, 30.0)  # type: ignore[assignment]
    # pytest shows the arguments of what failed, and vLLM asks an engine what to show of it.
    type(engine._library.llm).__repr__ = object.__repr__
    try:
        yield engine
    finally:
        engine.close()


class Shared:
    """An engine that tests share; one that has broken costs one test, and the next gets another.

    Args:
        cache_dir: Where models are kept.
        first: Called with each engine that is loaded, before any test has it.
        fields: Those of the experiment.

    Attributes:
        firsts: What ``first`` gave, one a load.
    """

    def __init__(
        self, cache_dir: Path, first: Callable[[VLLMEngine], Any] | None = None, **fields: Any
    ) -> None:
        self._cache_dir, self._first, self._fields = cache_dir, first, fields
        self._stack = ExitStack()
        self._engine: VLLMEngine | None = None
        self.firsts: list[Any] = []

    def get(self) -> VLLMEngine:
        """Give the engine, loaded if there is none."""
        if self._engine is None:
            self._engine = self._stack.enter_context(loaded(self._cache_dir, **self._fields))
            self.firsts += [self._first(self._engine)] if self._first else []
        return self._engine

    def look(self) -> None:
        """Let go of the engine if it does not answer; what a test that failed left, is worked off.

        Of a request that is left, the next pass would be told as of its own.
        """
        try:
            if self._engine is not None:
                work_off(self._engine)
                self._engine.inspect()
        except LLEMError as error:
            print(f"the engine is loaded anew: {error}")
            self.close()

    def close(self) -> None:
        """End the engine."""
        self._engine = None
        self._stack.close()


def as_if(engine: VLLMEngine, **fields: Any) -> VLLMEngine:
    """Give the same loaded engine under another configuration of what it is asked."""
    config = vllm_config(**{"model": engine._config.model, **fields})
    ends = end_tokens(sources.resolve(config.model), engine.tokenizer)
    with engine._asking():  # a new one asks the workers at once
        return VLLMEngine(config, engine._library, engine.tokenizer, engine._processes, ends)


def work_off(engine: VLLMEngine) -> None:
    """Have the engine do what it was asked, and forget it."""
    with engine._asking():
        while engine._library._engine.has_unfinished_requests():
            engine._library._engine.step()


def named(engine: VLLMEngine, name: str) -> list[psutil.Process]:
    """Find processes of an engine by what vLLM calls them: EngineCore, Worker."""
    found = engine._processes.running()
    return [process for process in found if process.name() == f"VLLM::{name}"]


def requests(prompts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[Request]:
    """Make requests of token ids, each with its own number of tokens."""
    return [
        Request(index, tuple(prompt), budget)
        for index, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True))
    ]


def run(engine: VLLMEngine, made: Sequence[Request], pass_index: int = 0) -> ServedTrace:
    """Run one pass."""
    return engine.serve([Arrival(request) for request in made], pass_index, lambda _: None)


def tokens(trace: ServedTrace) -> list[list[int]]:
    """Give the tokens of each request, in the order they were handed over."""
    return [list(done.token_ids) for done in trace.finished]


def save_plain_adapter(model: Path, folder: Path, *, rank: int = 4) -> Path:
    """Write a LoRA adapter of a Llama by hand, as peft's ``save_pretrained`` lays it out."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    weights: dict[str, Any] = {}
    for name, module in AutoModelForCausalLM.from_pretrained(model).named_modules():
        if name.endswith(("q_proj", "v_proj")):
            out_features, in_features = module.weight.shape
            stem = f"base_model.model.{name}"
            weights[f"{stem}.lora_A.weight"] = torch.randn(rank, in_features) * 0.2
            weights[f"{stem}.lora_B.weight"] = torch.randn(out_features, rank) * 0.2
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def save_merged(model: Path, adapter: Path, folder: Path) -> Path:
    """Write the model with the adapter added to its weights: W + alpha / r * B A."""
    import shutil

    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    settings = json.loads((adapter / "adapter_config.json").read_text())
    weights = load_file(adapter / "adapter_model.safetensors")
    merged = AutoModelForCausalLM.from_pretrained(model)
    for name, module in merged.named_modules():
        stem = f"base_model.model.{name}"
        if f"{stem}.lora_A.weight" in weights:
            change = weights[f"{stem}.lora_B.weight"] @ weights[f"{stem}.lora_A.weight"]
            module.weight.data += settings["lora_alpha"] / settings["r"] * change
    merged.save_pretrained(folder)
    for path in model.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder
