"""Tiny models with real files: weights, configuration, tokenizer, and adapters for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import InferenceEngine, Request
from llenergymeasure.core.backends.pytorch.engine import PyTorchEngine
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.core.backends.pytorch.trace import PyTorchTrace
from llenergymeasure.core.models import tokenizer_files

SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,  # far-apart logits: padding must not flip a greedy choice
    "bos_token_id": 0,
    "pad_token_id": 2,
    "eos_token_id": 1,
}
OFTEN = list(range(5, 1024, 12))  # ids that end a sequence, so that about one token in twelve does


def save_model(
    folder: Path, *, seed: int = 0, shipped: dict[str, Any] | None = None, **shape: Any
) -> Path:
    """Write a Llama with the packaged tokenizer.

    Args:
        folder: Where to.
        seed: Seed of the weights.
        shipped: Added to its ``generation_config.json``.
        shape: Fields of its configuration, over ``SHAPE``.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _use_one_thread()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **shape}))
    with_packaged_tokenizer(model, folder)
    _update(folder / "generation_config.json", shipped or {})
    return folder


def save_adapter(
    model: Path, folder: Path, *, seed: int = 1, task: str | None = "CAUSAL_LM"
) -> Path:
    """Write a LoRA adapter of a model whose weights are random and large enough to change it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model)
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj", "down_proj"],
        init_lora_weights=False,
        task_type=task,
    )
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def _use_one_thread() -> None:
    """Let go of the other cores: models this small are slower on several."""
    import torch

    torch.set_num_threads(1)


def _update(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load_engine(cache_dir: Path, **fields: Any) -> PyTorchEngine:
    """Load the PyTorch engine of an experiment, in fp32 unless told otherwise."""
    _use_one_thread()
    config = ExperimentConfig(**{"precision": "fp32", **fields})
    engine = PyTorchBackend().load(config, cache_dir)
    assert isinstance(engine, PyTorchEngine)
    return engine


def requests(
    engine: InferenceEngine, texts: Sequence[str], budgets: Sequence[int]
) -> list[Request]:
    """Make requests of texts, each with its own number of tokens."""
    return [
        Request(index, tuple(engine.tokenizer.encode(text)), budget)
        for index, (text, budget) in enumerate(zip(texts, budgets, strict=True))
    ]


def run(engine: PyTorchEngine, made: Sequence[Request], pass_index: int = 0) -> PyTorchTrace:
    """Run one pass."""
    return engine.run(engine.plan(made), pass_index, lambda _: None)


def generated(trace: PyTorchTrace) -> dict[int, list[int]]:
    """Give each request's own tokens, by its index."""
    counts = {sample.request: sample.output_tokens for sample in trace.samples()}
    return {
        request.index: row[batch.prompt_length :][: counts[request.index]]
        for batch in trace.batches
        for request, row in zip(batch.batch, batch.output.tolist(), strict=True)
    }


def greedy_tokens(
    folder: Path, prompts: Sequence[Sequence[int]], budgets: Sequence[int], eos_ids: Sequence[int]
) -> list[list[int]]:
    """Continue prompts one by one with nothing but forward passes, as an independent reference."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for prompt, budget in zip(prompts, budgets, strict=True):
        tokens = list(prompt)
        while len(tokens) < len(prompt) + budget and (
            len(tokens) == len(prompt) or tokens[-1] not in eos_ids
        ):
            with torch.no_grad():
                logits = model(torch.tensor([tokens]), use_cache=False).logits  # (1, length, vocab)
            tokens.append(int(logits[0, -1].argmax()))
        answers.append(tokens[len(prompt) :])
    return answers


def mixed_prompts(n: int) -> list[str]:
    """Give the first prompts of the packaged dataset."""
    path = files("llenergymeasure.datasets") / "builtin" / "mixed-1k.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line["prompt"] for line in lines if "prompt" in line][:n]


def save_encoder_decoder(folder: Path) -> Path:
    """Write a BART with the packaged tokenizer."""
    from transformers import BartConfig, BartForConditionalGeneration

    widths = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "d_model": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    shape = BartConfig(vocab_size=1024, max_position_embeddings=64, **widths, **layers, **heads)
    return with_packaged_tokenizer(BartForConditionalGeneration(shape), folder)


def save_encoder(folder: Path) -> Path:
    """Write a BERT with the packaged tokenizer."""
    from transformers import BertConfig, BertForMaskedLM

    shape = BertConfig(
        vocab_size=1024,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return with_packaged_tokenizer(BertForMaskedLM(shape), folder)


def with_packaged_tokenizer(model: Any, folder: Path) -> Path:
    """Write a model, and the packaged tokenizer beside it."""
    model.save_pretrained(folder)
    for path in tokenizer_files.own_files(tokenizer_files.packaged()):
        shutil.copy(path, folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> Path:
    """Change fields of a model's ``config.json``."""
    _update(folder / "config.json", changes)
    return folder


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Change the tensors of a checkpoint, by name."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return folder
