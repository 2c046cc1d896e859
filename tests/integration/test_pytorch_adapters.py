"""LoRA adapters on the PyTorch backend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.pytorch.engine import generating_model
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.exceptions import BackendError, Problem
from tests.support.models import (
    generated,
    requests,
    run,
    save_adapter,
    save_model,
)

TEXTS = ["A river", "The second of two prompts is longer than the first", "Three"]


@pytest.fixture(scope="module")
def model(engines) -> Path:
    return engines.model


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory) -> Path:
    return save_adapter(model, tmp_path_factory.mktemp("adapters") / "adapter")


def logits(engine) -> torch.Tensor:
    with torch.inference_mode():
        return engine._model(torch.tensor([[5, 6, 7, 8]])).logits  # (1, 4, vocabulary)


def answers(engine, n: int = 8) -> dict[int, list[int]]:
    return generated(run(engine, requests(engine, TEXTS, [n] * len(TEXTS))))


def problems(model: Path | str = "random:tiny-llama", **fields: Any) -> dict[str, Problem]:
    config = ExperimentConfig(model=str(model), **fields)
    return {problem.where: problem for problem in PyTorchBackend().problems(config)}


def test_an_adapter_changes_the_model_and_merging_it_changes_nothing_more(engines, model, adapter):
    lora = {"adapter_path": str(adapter)}
    base, apart = engines.get(model), engines.get(model, lora=lora)
    merged = engines.get(model, lora={**lora, "merge_weights": True})

    assert not torch.allclose(logits(apart), logits(base), atol=1e-2)
    assert torch.allclose(logits(apart), logits(merged), atol=1e-3)
    assert answers(apart) == answers(merged) != answers(base)


def test_only_an_adapter_that_stays_apart_is_noted(engines, model, adapter):
    lora = {"adapter_path": str(adapter)}

    assert any("adapter" in note for note in engines.get(model, lora=lora).inspect().notes)
    merged = engines.get(model, lora={**lora, "merge_weights": True})
    assert merged.inspect().notes == ()


def test_an_adapter_is_of_the_same_precision_as_the_model(load, model, adapter):
    engine = load(model, precision="bf16", lora={"adapter_path": str(adapter)})

    assert {parameter.dtype for parameter in engine._model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_a_shipped_generation_config_has_no_effect_under_an_adapter(load, model, tmp_path, task):
    shipped = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "max_length": 3}
    opinionated = save_model(tmp_path / "opinionated", shipped=shipped)
    lora = {"adapter_path": str(save_adapter(model, tmp_path / "adapter", task=task))}

    assert answers(load(opinionated, lora=lora), 20) == answers(load(model, lora=lora), 20)


def test_compiling_reaches_the_model_under_an_adapter(load, model, adapter):
    lora = {"adapter_path": str(adapter)}
    engine = load(model, lora=lora, pytorch={"torch_compile": True})

    assert generating_model(engine._model)._compiled_call_impl is not None


def test_an_adapter_may_lie_in_the_home_directory(engines, load, model, adapter, monkeypatch):
    monkeypatch.setenv("HOME", str(adapter.parent))
    lora = {"adapter_path": f"~/{adapter.name}"}

    assert problems(model, lora=lora) == {}
    assert not torch.equal(logits(load(model, lora=lora)), logits(engines.get(model)))


def test_a_missing_adapter_is_found_before_anything_loads(model, tmp_path):
    found = problems(model, lora={"adapter_path": str(tmp_path / "nowhere")})

    assert "adapter_config.json" in found["lora.adapter_path"].what


@pytest.mark.parametrize("shape", [{"hidden_size": 32}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_shape_is_an_error(load, adapter, tmp_path, shape):
    other = save_model(tmp_path / "other", **shape)
    with pytest.raises(BackendError, match="lora"):
        load(other, lora={"adapter_path": str(adapter)})


def test_an_adapter_of_another_architecture_is_an_error(load, model, adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    alien = tmp_path / "alien"
    alien.mkdir()
    (alien / "adapter_config.json").write_text(
        json.dumps({**config, "target_modules": ["query_key_value"]})
    )
    (alien / "adapter_model.safetensors").write_bytes(
        (adapter / "adapter_model.safetensors").read_bytes()
    )
    with pytest.raises(BackendError, match="check that lora"):
        load(model, lora={"adapter_path": str(alien)})
