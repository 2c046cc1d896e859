"""Models whose files do not fit each other: told by name, and never measured as something else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from llenergymeasure import run_experiment
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.core.models import loadable, sources, tokenizers
from llenergymeasure.exceptions import BackendError, PreFlightError, Problem
from llenergymeasure.orchestration import preflight
from tests.support.architectures import CONFIGS
from tests.support.models import (
    edit_config,
    edit_weights,
    generated,
    requests,
    run,
    save_adapter,
    save_encoder,
    save_encoder_decoder,
    save_model,
    with_packaged_tokenizer,
)
from tests.support.scripted_run import make_order

TEXTS = ["A river", "The second of two prompts is longer than the first"]
UP, DOWN = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"


def config(model: Path, **fields: Any) -> ExperimentConfig:
    return ExperimentConfig(**{"model": str(model), "precision": "fp32", "n": 2, **fields})


def refusal(load, model: Path, **fields: Any) -> str:
    with pytest.raises(BackendError) as caught:
        load(model, **fields)
    assert caught.value.where == "load"
    return caught.value.message


def problems(model: Path, folder: Path, **fields: Any) -> dict[str, Problem]:
    order = make_order(config(model, **fields), folder, energy_backend="none")
    return {problem.where: problem for problem in preflight.problems([order])}


# Weights are what was loaded


def test_tensors_under_other_names_are_refused_by_name(load, tmp_path):
    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("layers.1", "blocks.1"): one for name, one in tensors.items()}

    said = refusal(load, edit_weights(save_model(tmp_path / "m"), renamed))

    assert "do not fit its config.json: 9 tensors are missing, such as model.layers.1." in said
    assert "9 tensors are without a place in the model, such as model.blocks.1." in said
    assert "name a checkpoint that was saved with this config.json" in said


def test_a_single_tensor_that_is_missing_is_refused_by_name(load, tmp_path):
    def without(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in tensors.items() if name != UP}

    said = refusal(load, edit_weights(save_model(tmp_path / "m"), without))

    assert f"1 tensor is missing, such as {UP}" in said


@pytest.mark.parametrize(
    ("depth", "part"),
    [(3, "tensors are missing, such as model.layers.2."), (1, "without a place in the model")],
)
def test_a_checkpoint_of_another_depth_is_refused(load, tmp_path, depth, part):
    said = refusal(load, edit_config(save_model(tmp_path / "m"), num_hidden_layers=depth))

    assert part in said
    assert "num_hidden_layers" in said


def test_tensors_of_another_size_are_refused_with_both_sizes(load, tmp_path):
    said = refusal(load, edit_config(save_model(tmp_path / "m"), intermediate_size=96))

    assert "6 tensors are of another size" in said
    assert "(64 x 128 for 64 x 96)" in said


def test_an_output_matrix_that_is_not_there_is_missing_unless_it_is_tied(load, tmp_path):
    def without_head(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in tensors.items() if name != "lm_head.weight"}

    tied = save_model(tmp_path / "tied", tie_word_embeddings=True)
    assert load(tied).inspect().weights == "pretrained"
    loose = edit_weights(save_model(tmp_path / "loose"), without_head)
    assert "1 tensor is missing, such as lm_head.weight" in refusal(load, loose)


def test_what_is_computed_and_layers_that_only_draft_may_be_in_a_checkpoint(load, tmp_path):
    def with_more(tensors: dict[str, Any]) -> dict[str, Any]:
        return {
            **tensors,
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
            "model.layers.0.attn.masked_bias": torch.ones(1),
            "model.layers.2.eh_proj.weight": torch.ones(4, 4),
        }

    folder = edit_weights(save_model(tmp_path / "m"), with_more)

    assert "model.layers.2.eh_proj" in refusal(load, folder)
    assert load(edit_config(folder, num_nextn_predict_layers=1)).inspect().weights == "pretrained"


def test_the_language_model_of_a_checkpoint_for_images_is_taken_alone(load, tmp_path):
    def with_towers(tensors: dict[str, Any]) -> dict[str, Any]:
        more = ("vision_model.layernorm_post.bias", "multi_modal_projector.linear_1.weight")
        return {**tensors, **{name: torch.ones(4) for name in more}}

    folder = edit_weights(save_model(tmp_path / "m"), with_towers)

    assert load(folder).inspect().weights == "pretrained"


def test_where_weights_are_from_is_what_the_loader_did(load, tmp_path):
    folder = save_model(tmp_path / "random:weights")

    assert load(folder).inspect().weights == "pretrained"
    assert load(f"random:{folder}").inspect().weights == "random"


def test_an_adapter_of_another_depth_is_refused_in_the_same_words(load, tmp_path):
    deep = save_model(tmp_path / "deep", num_hidden_layers=3)
    adapter = save_adapter(deep, tmp_path / "adapter")

    said = refusal(load, save_model(tmp_path / "m"), lora={"adapter_path": str(adapter)})

    assert "does not fit the model: 6 tensors are without a place in the model, such as" in said
    assert "check that lora names an adapter of this model" in said


def test_an_adapter_among_the_files_of_a_model_is_refused(tmp_path):
    folder = save_model(tmp_path / "m")
    adapter = save_adapter(folder, tmp_path / "adapter")
    for path in adapter.glob("adapter_*"):
        path.rename(folder / path.name)

    assert "adapter_config.json" in problems(folder, tmp_path)["model"].what


# Kinds of models


def test_half_a_model_is_not_measured(tmp_path):
    found = problems(save_encoder_decoder(tmp_path / "bart"), tmp_path, max_new_tokens=8)

    assert "'bart' is an encoder-decoder model" in found["model"].what
    assert found["model"].kind == "model"


def test_an_encoder_does_not_generate(tmp_path):
    folder = save_encoder(tmp_path / "bert")

    assert "'bert' is an encoder" in problems(folder, tmp_path)["model"].what
    assert problems(edit_config(folder, is_decoder=True), tmp_path) == {}


def test_a_refusal_is_told_once_for_a_study(tmp_path):
    folder = save_encoder(tmp_path / "bert")
    orders = [
        make_order(config(folder, max_new_tokens=tokens), tmp_path, energy_backend="none")
        for tokens in (4, 8, 16)
    ]

    assert [one.where for one in preflight.problems(orders)] == ["model"]


def test_a_model_that_drafts_has_to_continue_text_as_well(tmp_path):
    drafts = {"speculative_decoding": True, "draft_model": str(save_encoder(tmp_path / "bert"))}
    found = problems(save_model(tmp_path / "m"), tmp_path, decoder=drafts)

    assert "'bert' is an encoder" in found["decoder.draft_model"].what


def test_code_of_a_models_own_is_asked_for_before_anything_loads(tmp_path):
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    folder = edit_config(save_model(tmp_path / "m"), model_type="own", auto_map=own)

    found = problems(folder, tmp_path)
    assert "set trust_remote_code: true if you trust it" in found["trust_remote_code"].remedy
    assert problems(folder, tmp_path, trust_remote_code=True) == {}
    native = edit_config(folder, model_type="llama")
    assert problems(native, tmp_path) == {}, "transformers has that type itself"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("vit", "no causal language model of the type 'vit'"),
        ("zzz", "does not know the model type"),
    ],
)
def test_a_type_that_no_causal_loader_takes(tmp_path, kind, said):
    folder = edit_config(save_model(tmp_path / "m"), model_type=kind)

    assert said in problems(folder, tmp_path)["model"].what


def test_the_tables_that_are_read_are_those_of_transformers():
    from transformers.models.auto import configuration_auto, modeling_auto

    types = loadable.known_types()
    assert types is not None
    assert types.causal == {*modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    assert types.seq2seq == {*modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
    assert types.masked == {*modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES}
    assert types.known | types.causal >= {*configuration_auto.CONFIG_MAPPING_NAMES}


def test_the_context_counts_by_whatever_name_it_goes(tmp_path):
    folder = save_model(tmp_path / "m")
    shape = json.loads((folder / "config.json").read_text())
    del shape["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps({**shape, "max_seq_len": 64}))

    assert set(problems(folder, tmp_path, max_new_tokens=64)) == {"max_new_tokens"}
    assert problems(folder, tmp_path, max_new_tokens=63) == {}


# Tokens


def pad_outside(folder: Path) -> Path:
    """Give a tokenizer a padding token beyond the model's table, as many checkpoints have."""
    entries = json.loads((folder / "tokenizer.json").read_text())
    entries["added_tokens"].append(
        {"id": 1000, "content": "<|more|>", "special": True, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
    )  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(entries))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<|more|>"}))
    return folder


def test_padding_outside_the_table_is_put_inside_and_said(load, tmp_path):
    plain = save_model(tmp_path / "plain", vocab_size=1000)
    beyond = pad_outside(save_model(tmp_path / "beyond", vocab_size=1000))
    assert problems(beyond, tmp_path) == {}
    answers = []
    for folder in (plain, beyond):
        engine = load(folder, pytorch={"batch_size": 2})
        answers.append(generated(run(engine, requests(engine, TEXTS, [6, 6]))))

    assert answers[0] == answers[1]
    notes = [note for note in engine.inspect().notes if "pads with token" in note]
    assert len(notes) == 1
    assert "1000 embeddings" in notes[0]


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder = save_model(tmp_path / "m", vocab_size=512)

    found = problems(folder, tmp_path)

    assert "table of 512 embeddings" in found["model"].what


def test_a_text_with_a_token_beyond_the_table_is_told_by_its_number(tmp_path):
    folder = pad_outside(save_model(tmp_path / "m", vocab_size=1000))
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "good"}\n{"prompt": "bad <|more|>"}\n')

    with pytest.raises(Exception, match=r"prompt 2 of the dataset has token \d+, which the model"):
        run_experiment(config(folder, dataset=str(prompts), energy_backend="none"))


# Chat templates

SYSTEM_FIRST = (
    "{% if messages[0]['role'] != 'system' %}{{ raise_exception('System role required') }}"
    "{% endif %}{{ messages[1]['content'] }}"
)
ENDLESS = "{% for a in range(99999) %}" * 6 + "{% endfor %}" * 6


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_template_that_wants_a_system_message_is_refused(tmp_path):
    folder = with_template(save_model(tmp_path / "m"), SYSTEM_FIRST)

    found = problems(folder, tmp_path, apply_chat_template=True)

    assert "System role required" in found["apply_chat_template"].what
    assert "lone user message" in found["apply_chat_template"].what


def test_a_template_longer_than_the_limit_is_refused(tmp_path):
    folder = with_template(save_model(tmp_path / "m"), "x y " * 40 + "{{ messages[0]['content'] }}")

    asked = {"apply_chat_template": True, "max_input_tokens": 32}
    found = problems(folder, tmp_path, **asked)

    assert "the chat template alone has" in found["max_input_tokens"].what
    assert problems(folder, tmp_path, **{**asked, "max_input_tokens": 400}) == {}


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{{ m.content }}{% endfor %}"
)


def chats(folder: Path, *roles: str) -> str:
    path = folder / "chats.jsonl"
    turns = [{"role": role, "content": "a river"} for role in roles]
    path.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": turns}) + "\n")
    return str(path)


def test_chats_need_a_model_with_a_template_and_no_setting(tmp_path):
    folder, dataset = save_model(tmp_path / "m"), chats(tmp_path, "user")

    found = problems(folder, tmp_path, dataset=dataset)

    assert "it holds chats, and the tokenizer of" in found["dataset"].what
    assert "instruction-tuned model, or name a column" in found["dataset"].remedy
    with_template(folder, NO_SYSTEM)
    assert problems(folder, tmp_path, dataset=dataset) == {}


def test_turns_that_a_template_does_not_take_are_refused_before_anything_loads(tmp_path):
    folder = with_template(save_model(tmp_path / "m"), NO_SYSTEM)

    found = problems(folder, tmp_path, dataset=chats(tmp_path, "system", "user"))
    assert "does not take turns of system, user: no system role" in found["dataset"].what
    asked = {"dataset": chats(tmp_path, "user", "assistant", "user"), "system_prompt": "be brief"}
    assert "no system role" in problems(folder, tmp_path, **asked)["system_prompt"].what


def test_a_system_prompt_on_plain_text_without_a_template_is_refused(tmp_path):
    folder = with_template(save_model(tmp_path / "m"), "{{ messages[-1].content }}")

    found = problems(folder, tmp_path, system_prompt="be brief")

    assert found["system_prompt"].remedy == "set apply_chat_template: true, or remove it"
    asked = {"system_prompt": "be brief " * 30_000, "apply_chat_template": True}
    assert problems(folder, tmp_path, **asked) == {}, "longer than an argument of a process"


def test_the_tokens_of_a_chat_are_what_the_template_makes_of_it(tmp_path):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    folder = with_template(save_model(tmp_path / "m"), template)
    dataset = chats(tmp_path, "user", "assistant", "user")

    asked = {"dataset": dataset, "system_prompt": "be brief", "max_new_tokens": 2}
    result = run_experiment(config(folder, energy_backend="none", **asked))

    tokenizer = tokenizers.load_tokenizer(str(folder))
    rendered = "[system]be brief[user]a river[assistant]a river[user]a river[answer]"
    tokens = tokenizer.inner.encode(rendered, add_special_tokens=False)
    assert result.throughput.input_tokens == 2 * len(tokens)
    assert result.resolved.dataset.column == "messages"


def test_a_template_is_tried_once_for_several_limits_and_anew_once_it_has_changed(tmp_path):
    folder = with_template(save_model(tmp_path / "m"), "x y " * 40 + "{{ messages[0]['content'] }}")

    def found(limit: int) -> list[Problem]:
        asked = config(folder, apply_chat_template=True, max_input_tokens=limit)
        return tokenizers.trial_problems(asked)

    assert [len(found(limit)) for limit in (8, 400)] == [1, 0]
    began_s = time.monotonic()
    assert [len(found(limit)) for limit in (8, 16, 24, 400, 500)] == [1, 1, 1, 0, 0]
    assert time.monotonic() - began_s < 0.5, "a process takes seconds"
    with_template(folder, "{{ messages[0]['content'] }}")
    assert found(8) == []


def test_a_template_that_wants_a_prompt_gets_one(tmp_path):
    template = """{% set text = messages[0]['content'] %}
{%- if not text %}{{ raise_exception('an empty message') }}{% endif %}{{ text }}"""
    folder = with_template(save_model(tmp_path / "m"), template)

    assert problems(folder, tmp_path, apply_chat_template=True, max_input_tokens=1) == {}


def test_a_template_that_does_not_end_is_refused_in_time(tmp_path):
    folder = with_template(save_model(tmp_path / "m"), ENDLESS)

    (found,) = tokenizers.trial_problems(config(folder, apply_chat_template=True), within_s=15)

    assert "does not end within 15 s" in found.what


# Memory


def test_weights_larger_than_the_memory_are_refused_before_anything_loads(tmp_path):
    huge = edit_config(
        save_model(tmp_path / "m"), hidden_size=65536, intermediate_size=262144,
        num_hidden_layers=400, num_attention_heads=512, num_key_value_heads=512,
    )  # fmt: skip

    found = PyTorchBackend().problems(config(Path(f"random:{huge}")))

    assert "alone take" in found[0].what
    assert "RAM" in found[0].what


def test_the_tensors_of_a_checkpoint_are_read_from_their_head(tmp_path):
    folder = save_model(tmp_path / "m")
    found = loadable.tensors(sources.resolve(str(folder)))

    assert found is not None
    assert found[UP] == loadable.Tensor("F32", (128, 64))
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert loadable.tensors(sources.resolve(str(folder))) is None


def test_every_problem_stops_the_run(tmp_path):
    with pytest.raises(PreFlightError, match="1 problem before anything was loaded"):
        run_experiment(config(save_encoder(tmp_path / "bert"), energy_backend="none"))


# What fits is never refused

SOME = ("llama tied", "gemma2", "gpt2", "bloom", "falcon", "mixtral", "deepseek_v3")


def loads(load, name: str, folder: Path) -> bool:
    """Tell whether a checkpoint that transformers itself saved is taken for what it is."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = CONFIG_MAPPING[name.partition(" ")[0]](**CONFIGS[name])
    saved = with_packaged_tokenizer(AutoModelForCausalLM.from_config(shape), folder)
    return bool(load(saved).inspect().weights == "pretrained")


@pytest.mark.parametrize("name", SOME)
def test_a_checkpoint_as_transformers_saves_it_is_taken(load, tmp_path, name):
    assert loads(load, name, tmp_path / "m")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CONFIGS if name not in SOME])
def test_every_checkpoint_as_transformers_saves_it_is_taken(load, tmp_path, name):
    assert loads(load, name, tmp_path / "m")
