"""How the PyTorch backend loads a model, and what it refuses before and while it does."""

from __future__ import annotations

import json
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
import torch

from llenergymeasure import run_experiment
from llenergymeasure.core.models import tokenizer_files
from llenergymeasure.core.models.counted import count
from llenergymeasure.exceptions import BackendError, ConfigError
from tests.support.models import (
    SHAPE,
    generated,
    requests,
    run,
    save_model,
)

TEXTS = ["A river", "The second of two prompts is longer than the first", "Three"]
TEMPLATE = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}<answer>"


@pytest.fixture(scope="module")
def model(engines) -> Path:
    return engines.model


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


def test_a_model_of_an_unknown_type_is_measured_without_flops(tmp_path):
    from transformers import BioGptConfig, BioGptForCausalLM

    shape = {"vocab_size": 1024, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    model = BioGptForCausalLM(BioGptConfig(**shape, num_attention_heads=4))
    model.save_pretrained(tmp_path)
    for path in tokenizer_files.own_files(tokenizer_files.packaged()):
        shutil.copy(path, tmp_path)
    result = run_experiment(
        model=str(tmp_path),
        precision="fp32",
        n=1,
        max_input_tokens=8,
        max_new_tokens=2,
        energy_backend="none",
    )

    assert result.throughput.output_tokens > 0
    assert result.flops is None
    assert result.resolved.model.parameters == count(model).total
    assert any("FLOPs, MFU and MBU are null" in note for note in result.reproducibility_notes)


def test_the_commit_of_a_model_is_the_one_transformers_resolved(load, model):
    engine = load(model)
    assert engine.inspect().model_commit is None

    engine._model.config._commit_hash = "0123abcd"  # as for a model of the Hub
    assert engine.inspect().model_commit == "0123abcd"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_kernel_is_the_one_asked_for(engines, model, attention):
    engine = engines.get(model, pytorch={"attn_implementation": attention})

    assert engine.inspect().resolved["attn_implementation"] == attention
    assert answers(engine) == answers(engines.get(model))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("fp32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ],
)
@pytest.mark.parametrize("source", ["directory", "random"])
def test_precision_is_the_type_of_every_weight(engines, model, source, precision, dtype):
    name = model if source == "directory" else f"random:{model}"
    engine = engines.get(name, precision=precision)

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


@pytest.mark.skipif(
    " " in tempfile.gettempdir(), reason="torch hands g++ the path of TMPDIR without quotes"
)
def test_a_compiled_model_answers_as_the_plain_one_does(load, tmp_path):
    small = save_model(tmp_path / "small", num_hidden_layers=1)
    engine = load(small, pytorch={"torch_compile": True})
    made = requests(engine, TEXTS[:1], [2])  # a prompt, and a step after it
    compiled = generated(run(engine, made))

    assert engine._model._compiled_call_impl is not None
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert engine.inspect().resolved["torch_compile"] is True
    assert compiled == generated(run(load(small), made))
    engine.close()
    alive = [c for c in psutil.Process().children() if c.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in alive if "compile_worker" in str(child.cmdline())]


# Random weights


def test_random_weights_follow_the_seed(load):
    first = load("random:tiny-llama", random_seed=3)
    same = load("random:tiny-llama", random_seed=3)
    other = load("random:tiny-llama", random_seed=4)

    assert torch.equal(logits(first), logits(same))
    assert not torch.equal(logits(first), logits(other))


def test_random_weights_are_not_those_in_the_directory_that_gives_the_shape(engines, model):
    engine = engines.get(f"random:{model}")

    assert engine.inspect().weights == "random"
    assert engine.inspect().architecture == engines.get(model).inspect().architecture
    assert not torch.equal(logits(engine), logits(engines.get(model)))


def test_the_report_describes_the_model(engines, model):
    report = engines.get(model).inspect()

    assert report.weights == "pretrained"
    assert report.architecture.vocabulary == SHAPE["vocab_size"]
    assert report.counted.total == report.architecture.parameters
    assert report.doubt is None
    assert report.context_limit == SHAPE["max_position_embeddings"]
    assert report.tokenizer_sha256 == sha256((model / "tokenizer.json").read_bytes()).hexdigest()


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
