"""How the PyTorch backend loads a model, and what it refuses before and while it does."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.models import (
    SHAPE,
    generated,
    load_engine,
    requests,
    run,
    save_adapter,
    save_model,
)

from llenergymeasure import run_experiment
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.pytorch import PyTorchBackend
from llenergymeasure.core.backends.pytorch_engine import generating_model
from llenergymeasure.exceptions import BackendError, ConfigError, Problem

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="asks what happens without CUDA")
TEXTS = ["A river", "The second of two prompts is longer than the first", "Three"]
TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<answer>"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def adapter(model, tmp_path_factory) -> Path:
    return save_adapter(model, tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture
def load(tmp_path):
    """Load engines that are closed after the test."""
    loaded = []

    def make(model: Path | str, **fields: Any):
        loaded.append(load_engine(tmp_path, model=str(model), **fields))
        return loaded[-1]

    yield make
    for engine in loaded:
        engine.close()


def problems(model: Path | str = "random:tiny-llama", **fields: Any) -> dict[str, Problem]:
    config = ExperimentConfig(model=str(model), **fields)
    return {problem.where: problem for problem in PyTorchBackend().problems(config)}


def logits(engine) -> torch.Tensor:
    with torch.inference_mode():
        return engine._model(torch.tensor([[5, 6, 7, 8]])).logits  # (1, 4, vocabulary)


def answers(engine, n: int = 8) -> dict[int, list[int]]:
    return generated(run(engine, requests(engine, TEXTS, [n] * len(TEXTS))))


# Defaults and what is in force


def test_null_fields_are_resolved_in_the_result(model):
    result = run_experiment(
        model=str(model), precision="fp32", n=2, max_new_tokens=2, energy_backend="none"
    )
    resolved = result.resolved.backend

    assert resolved["batch_size"] == 1
    assert resolved["batching_strategy"] == "static"
    assert resolved["attn_implementation"] == "sdpa"
    assert resolved["torch_compile"] is False
    assert resolved["load_in_4bit"] is False
    assert resolved["load_in_8bit"] is False
    assert resolved["num_processes"] == 1
    assert resolved["num_threads"] == torch.get_num_threads()
    assert resolved["compute_dtype"] == "float32"
    assert result.config.pytorch is None


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_kernel_is_the_one_asked_for(load, model, attention):
    engine = load(model, pytorch={"attn_implementation": attention})

    assert engine.inspect().resolved["attn_implementation"] == attention
    assert answers(engine) == answers(load(model))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("fp32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ],
)
@pytest.mark.parametrize("source", ["directory", "random"])
def test_precision_is_the_type_of_every_weight(load, model, source, precision, dtype):
    engine = load(model if source == "directory" else f"random:{model}", precision=precision)

    assert {parameter.dtype for parameter in engine._model.parameters()} == {dtype}
    assert engine.inspect().resolved["compute_dtype"] == str(dtype).removeprefix("torch.")


def test_threads_are_set_while_the_engine_lives(load, model):
    load(model)
    assert torch.get_num_threads() == 1
    engine = load(model, pytorch={"num_threads": 2})

    assert torch.get_num_threads() == 2
    assert engine.inspect().resolved["num_threads"] == 2
    engine.close()
    assert torch.get_num_threads() == 1


def test_dynamic_batching_answers_the_same_with_less_padding(load, model):
    texts = ["Short", "A prompt of many more words than that, " * 4, "Brief", "Tiny", "Wee"]
    waste = {}
    for strategy in ("static", "dynamic"):
        engine = load(model, pytorch={"batch_size": 2, "batching_strategy": strategy})
        trace = run(engine, requests(engine, texts, [6] * 5))
        waste[strategy] = sum(s.padded_input_tokens - s.input_tokens for s in trace.samples())
        waste[f"{strategy} tokens"] = generated(trace)
        assert engine.inspect().resolved["batching_strategy"] == strategy

    assert waste["dynamic"] < waste["static"]
    assert waste["dynamic tokens"] == waste["static tokens"]


def test_a_compiled_model_answers_as_the_plain_one_does(load, tmp_path):
    small = save_model(tmp_path / "small", num_hidden_layers=1)
    engine = load(small, pytorch={"torch_compile": True})
    made = requests(engine, TEXTS[:1], [4])
    compiled = generated(run(engine, made))

    assert engine._model._compiled_call_impl is not None
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert engine.inspect().resolved["torch_compile"] is True
    assert compiled == generated(run(load(small), made))


# Random weights


def test_random_weights_follow_the_seed(load):
    first = load("random:tiny-llama", random_seed=3)
    same = load("random:tiny-llama", random_seed=3)
    other = load("random:tiny-llama", random_seed=4)

    assert torch.equal(logits(first), logits(same))
    assert not torch.equal(logits(first), logits(other))


def test_random_weights_are_not_those_in_the_directory_that_gives_the_shape(load, model):
    engine = load(f"random:{model}")

    assert engine.inspect().weights == "random"
    assert engine.inspect().architecture == load(model).inspect().architecture
    assert not torch.equal(logits(engine), logits(load(model)))


def test_the_report_describes_the_model(load, model):
    report = load(model).inspect()

    assert report.weights == "pretrained"
    assert report.architecture.vocabulary == SHAPE["vocab_size"]
    assert report.context_limit == SHAPE["max_position_embeddings"]
    assert report.tokenizer_sha256 == sha256((model / "tokenizer.json").read_bytes()).hexdigest()


def test_a_revision_means_nothing_for_a_directory(load, model):
    assert torch.equal(logits(load(model, revision="v1.0")), logits(load(model)))


# Adapters


def test_an_adapter_changes_the_model_and_merging_it_changes_nothing_more(load, model, adapter):
    lora = {"adapter_path": str(adapter)}
    base, apart = load(model), load(model, lora=lora)
    merged = load(model, lora={**lora, "merge_weights": True})

    assert not torch.allclose(logits(apart), logits(base), atol=1e-2)
    assert torch.allclose(logits(apart), logits(merged), atol=1e-3)
    assert answers(apart) == answers(merged) != answers(base)


def test_only_an_adapter_that_stays_apart_is_noted(load, model, adapter):
    lora = {"adapter_path": str(adapter)}

    assert any("adapter" in note for note in load(model, lora=lora).inspect().notes)
    assert load(model, lora={**lora, "merge_weights": True}).inspect().notes == ()


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


def test_an_adapter_may_lie_in_the_home_directory(load, model, adapter, monkeypatch):
    monkeypatch.setenv("HOME", str(adapter.parent))
    lora = {"adapter_path": f"~/{adapter.name}"}

    assert problems(model, lora=lora) == {}
    assert not torch.equal(logits(load(model, lora=lora)), logits(load(model)))


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


# Chat templates


def test_a_chat_template_wraps_every_prompt(load, tmp_path):
    folder = save_model(tmp_path / "chat")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    plain, chat = load(folder), load(folder, apply_chat_template=True)

    assert chat.tokenizer.encode("Hello") == plain.tokenizer.encode("<user>Hello<answer>")


def test_a_model_without_a_chat_template_cannot_apply_one(load, model):
    with pytest.raises(ConfigError, match="apply_chat_template: false"):
        load(model, apply_chat_template=True)


# The escape hatch


@pytest.mark.parametrize("source", ["directory", "random"])
def test_passthrough_arguments_reach_the_model(load, model, source):
    name = model if source == "directory" else f"random:{model}"
    engine = load(name, passthrough_kwargs={"rms_norm_eps": 0.5})

    assert engine._model.config.rms_norm_eps == 0.5
    assert engine._model.model.norm.variance_epsilon == 0.5


@pytest.mark.parametrize("source", ["directory", "random"])
def test_a_passthrough_argument_that_the_model_refuses_is_named(load, model, source):
    name = model if source == "directory" else f"random:{model}"
    with pytest.raises(BackendError, match=r"(?s)flux_capacity.*passthrough_kwargs"):
        load(name, passthrough_kwargs={"flux_capacity": 3})


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("dtype", "precision"),
        ("torch_dtype", "precision"),
        ("attn_implementation", "pytorch.attn_implementation"),
        ("device_map", "pytorch.device_map"),
        ("revision", "revision"),
        ("trust_remote_code", "trust_remote_code"),
    ],
)
def test_a_passthrough_argument_never_overrules_a_field(name, field):
    found = problems(passthrough_kwargs={name: "x"})

    assert field in found[f"passthrough_kwargs.{name}"].remedy


# Broken models


def test_code_of_the_models_own_needs_trust(load, tmp_path):
    folder = save_model(tmp_path / "custom")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(BackendError, match="set trust_remote_code: true"):
        load(folder)


def test_damaged_weights_are_an_error_of_the_backend(load, tmp_path):
    folder = save_model(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    with pytest.raises(BackendError, match="PyTorch failed to load"):
        load(folder)


def test_missing_weights_are_an_error_of_the_backend(load, tmp_path):
    folder = save_model(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackendError, match="PyTorch failed to load"):
        load(folder)


# What this machine lacks


@no_cuda
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_cuda_device_that_is_not_there_is_a_problem(device):
    found = problems(pytorch={"device": device})

    assert "no CUDA device" in found["pytorch.device"].what
    assert "remove pytorch.device" in found["pytorch.device"].remedy


@no_cuda
def test_layers_cannot_be_spread_over_no_gpus(model):
    assert (
        "no CUDA device"
        in problems(model, pytorch={"device_map": "auto"})["pytorch.device_map"].what
    )


def test_a_device_map_that_is_no_strategy_is_a_problem(model):
    config = ExperimentConfig(model=str(model), pytorch={"device_map": "cuda:0"})
    found = PyTorchBackend().problems(config)

    assert any("a single device goes to pytorch.device" in problem.remedy for problem in found)


def test_random_weights_cannot_be_spread():
    found = PyTorchBackend().problems(
        ExperimentConfig(model="random:tiny-llama", pytorch={"device_map": "auto"})
    )

    assert any("random weights" in problem.what for problem in found)


@no_cuda
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised_loading_needs_cuda_and_bitsandbytes(model, precision):
    config = ExperimentConfig(model=str(model), precision=precision)
    found = PyTorchBackend().problems(config)

    assert {problem.where for problem in found} == {"precision"}
    assert any("CUDA" in problem.what for problem in found)


def test_random_weights_cannot_be_quantised():
    assert "random weights" in "".join(
        problem.what
        for problem in PyTorchBackend().problems(
            ExperimentConfig(model="random:tiny-llama", precision="int8")
        )
    )


@no_cuda
@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3"])
def test_flash_attention_is_refused_with_the_line_that_installs_it(model, kernel):
    config = ExperimentConfig(model=str(model), pytorch={"attn_implementation": kernel})
    found = PyTorchBackend().problems(config)

    assert {problem.where for problem in found} == {"pytorch.attn_implementation"}
    assert any(problem.remedy.startswith("pip install flash-attn") for problem in found)


def test_more_than_one_process_is_refused():
    assert (
        "num_processes: 1" in problems(pytorch={"num_processes": 2})["pytorch.num_processes"].remedy
    )
    assert problems(pytorch={"num_processes": 1}) == {}


def test_a_draft_model_that_is_not_there_is_a_problem(model, tmp_path):
    decoder = {"speculative_decoding": True, "draft_model": str(tmp_path / "nowhere")}
    (only,) = PyTorchBackend().problems(ExperimentConfig(model=str(model), decoder=decoder))

    assert only.where == "decoder.draft_model"


@no_cuda
def test_without_a_gpu_the_cpu_does_the_work(model):
    target = PyTorchBackend().target(ExperimentConfig(model=str(model)))

    assert (target.kind, target.gpu_uuids) == ("cpu", ())
