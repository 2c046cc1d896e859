"""vLLM engines for tests: loading takes a quarter of a minute, so they are shared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, Request
from llenergymeasure.core.backends.vllm.engine import VLLMEngine
from llenergymeasure.core.backends.vllm.loader import VLLMBackend
from llenergymeasure.core.backends.vllm.trace import VLLMTrace
from llenergymeasure.core.models import sources
from llenergymeasure.core.models.ends import end_tokens

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


@contextmanager
def loaded(cache_dir: Path, **fields: Any) -> Iterator[VLLMEngine]:
    """Load an engine for the block."""
    engine = VLLMBackend().load(vllm_config(**fields), cache_dir)
    try:
        yield engine
    finally:
        engine.close()


def as_if(engine: VLLMEngine, **fields: Any) -> VLLMEngine:
    """Give the same loaded engine under another configuration of what it is asked."""
    config = vllm_config(**{"model": engine._config.model, **fields})
    ends = end_tokens(sources.resolve(config.model), engine.tokenizer)
    return VLLMEngine(config, engine._library, engine.tokenizer, engine._processes, ends)


def requests(prompts: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[Request]:
    """Make requests of token ids, each with its own number of tokens."""
    return [
        Request(index, tuple(prompt), budget)
        for index, (prompt, budget) in enumerate(zip(prompts, budgets, strict=True))
    ]


def run(engine: VLLMEngine, made: Sequence[Request], pass_index: int = 0) -> VLLMTrace:
    """Run one pass."""
    return engine.serve([Arrival(request) for request in made], pass_index, lambda _: None)


def tokens(trace: VLLMTrace) -> list[list[int]]:
    """Give the tokens of each request, in the order they were handed over."""
    return [list(done.token_ids) for record in trace.records for done in record.finished]


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
