"""Which models a causal loader takes, and what of a checkpoint an engine has read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.problems import room_problems
from llenergymeasure.core.backends.vllm.engine import weights_note
from llenergymeasure.core.backends.vllm.worker import WorkerFacts
from llenergymeasure.core.models import tokenizer_files
from llenergymeasure.core.models.config_json import ConfigReader
from llenergymeasure.core.models.loadable import (
    Compared,
    Types,
    compared,
    elements,
    kind_problem,
    tensors,
)
from llenergymeasure.core.models.sources import ModelSource
from llenergymeasure.exceptions import BackendError

TYPES = Types(
    known=frozenset({"llama", "bart", "bert", "t5", "vit", "qwen2_vl", "xlm"}),
    causal=frozenset({"llama", "bart", "bert", "xlm"}),
    seq2seq=frozenset({"bart", "t5"}),
    masked=frozenset({"bart", "bert", "distilbert", "xlm"}),
)
OWN = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}


def refused(*, trusted: bool = False, others: Any = (), **config: Any) -> str | None:
    """Give the field that a refusal names, or ``None``."""
    problem = kind_problem(config, TYPES, trusted=trusted, others=others)
    return problem and problem.where


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "bart"}, "model"),
        ({"model_type": "bart", "is_encoder_decoder": False}, None),
        ({"model_type": "t5", "is_encoder_decoder": True}, "model"),
        ({"model_type": "llama", "is_encoder_decoder": True}, "model"),
        ({"model_type": "bert"}, "model"),
        ({"model_type": "bert", "is_decoder": True}, None),
        ({"model_type": "xlm", "causal": True}, None),
        ({"model_type": "distilbert"}, "model"),
        ({"model_type": "vit"}, "model"),
        ({"model_type": "of-tomorrow"}, "model"),
        ({"model_type": "of-tomorrow", "auto_map": OWN}, "trust_remote_code"),
        ({"model_type": "llama", "auto_map": OWN}, None),
        ({}, None),
    ],
)
def test_a_model_is_taken_or_refused_by_its_type(config: dict[str, Any], where: str | None) -> None:
    assert refused(**config) == where


def test_code_that_may_run_decides_itself_what_it_is() -> None:
    assert refused(model_type="of-tomorrow", auto_map=OWN, trusted=True) is None


def test_an_engine_with_types_of_its_own_takes_those() -> None:
    vllm = {*TYPES.known, "chatglm"}
    assert refused(model_type="qwen2_vl") == "model"
    assert refused(model_type="qwen2_vl", others=vllm) is None
    assert refused(model_type="chatglm", others=vllm, auto_map=OWN) is None
    assert refused(model_type="of-tomorrow", others=vllm, auto_map=OWN) == "trust_remote_code"
    assert refused(model_type="of-a-plugin", others=vllm) is None
    assert refused(model_type="bert", others=vllm) == "model"
    assert refused(model_type="anything", others=None) is None


# What was read

NAMES = [f"model.layers.{n}.self_attn.{p}_proj.weight" for n in (0, 1) for p in "qkv"]


def test_a_tensor_that_other_layers_have_is_missing() -> None:
    assert compared(NAMES, NAMES) == Compared((), ())
    assert compared(NAMES, NAMES[:-1]) == Compared((NAMES[-1],), ())


def test_a_tensor_without_its_like_may_go_by_another_name() -> None:
    assert compared([*NAMES, "lm_head.weight"], NAMES) == Compared((), ("lm_head.weight",))


def test_weights_are_those_of_the_checkpoint_or_it_is_said_why_that_is_unknown() -> None:
    assert weights_note(NAMES, NAMES, "m") is None
    assert "no safetensors" in str(weights_note(NAMES, None, "m"))
    assert "such as lm_head.weight" in str(weights_note([*NAMES, "lm_head.weight"], NAMES, "m"))
    with pytest.raises(
        BackendError, match=r"1 tensor is missing, such as model\.layers\.1.*v_proj"
    ):
        weights_note(NAMES, NAMES[:-1], "m")


class Model:
    def __init__(self) -> None:
        self.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}

    def named_parameters(self) -> list[tuple[str, None]]:
        return [
            ("model.embed_tokens.weight", None),
            ("model.layers.0.self_attn.qkv_proj.base_layer.weight", None),
            ("scale", None),
        ]


class Runner:
    def get_model(self) -> Model:
        return Model()


def test_what_vllm_packs_goes_by_the_names_of_its_parts() -> None:
    facts = WorkerFacts()
    facts.model_runner = Runner()

    names = facts.llenergymeasure_parameters()

    assert names == ["model.embed_tokens.weight", *NAMES[:3], "scale"]


# Tokens, context, memory


def vocabulary(**entries: int) -> dict[str, Any]:
    return {"model": {"vocab": entries}, "added_tokens": [{"content": "<s>", "id": 9}]}


def test_tokens_of_text_have_to_be_in_the_table() -> None:
    assert tokenizer_files.outside(vocabulary(a=0, b=3), {}, 4) is None
    assert tokenizer_files.outside(vocabulary(a=0, b=4), {}, 4) == 4
    pieces = [[f"p{number}", 0.0] for number in range(6)]
    assert tokenizer_files.outside({"model": {"vocab": pieces}}, {}, 5) == 5


def test_an_added_token_may_lie_outside_unless_it_begins_every_prompt() -> None:
    assert tokenizer_files.outside(vocabulary(a=0), {}, 4) is None
    assert tokenizer_files.outside(vocabulary(a=0), {"bos_token": "<s>"}, 4) == 9
    assert tokenizer_files.outside(vocabulary(a=0), {"eos_token": {"content": "<s>"}}, 4) == 9


@pytest.mark.parametrize(
    "name",
    ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length",
     "max_sequence_length", "model_max_length"],
)  # fmt: skip
def test_the_context_goes_by_many_names(name: str) -> None:
    assert ConfigReader.of({name: 4096}).context_limit == 4096
    assert ConfigReader.of({"text_config": {name: 64}}).context_limit == 64
    assert ConfigReader.of({name: -1}).context_limit is None
    assert ConfigReader.of({name: 1e30}).context_limit is None


def test_weights_alone_have_to_fit() -> None:
    config = ExperimentConfig(model="random:llama-3.1-8b", precision="bf16")

    (found,) = room_problems(config, 12_000, "the GPU")
    assert "alone take 15,317 MiB as bf16, and the GPU has 12,000 MiB" in found.what
    assert found.where == "model"
    assert list(room_problems(config, 15_400, "the GPU")) == []
    assert list(room_problems(config, 12_000, "the GPU", copies=1 / 2)) == []
    assert list(room_problems(config, None, "the GPU")) == []


def test_arguments_of_the_engine_may_make_room() -> None:
    kept = ExperimentConfig(
        model="random:llama-3.1-8b", precision="bf16", passthrough_kwargs={"num_hidden_layers": 2}
    )
    assert list(room_problems(kept, 12_000, "the GPU")) == []


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 16_384),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, 8_192),
        (
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 4096,
                }
            },
            16_384,
        ),
        (
            {
                "rope_scaling": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 1024,
                }
            },
            4096,
        ),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 4096),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8}, "model_type": "gemma3_text"}, 4096),
        ({"rope_scaling": None}, 4096),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, 4096),
    ],
)
def test_stretched_positions_reach_further(fields: dict[str, Any], limit: int) -> None:
    assert ConfigReader.of({"max_position_embeddings": 4096, **fields}).context_limit == limit


def test_values_that_are_keys_are_not_missing() -> None:
    held = NAMES[:-1]
    assert weights_note(NAMES, held, "m", values_are_keys=True) is None
    with pytest.raises(
        BackendError, match=r"2 tensors are missing, such as .*1\.self_attn\.k_proj"
    ):
        weights_note(NAMES, NAMES[:-2], "m", values_are_keys=True)


def write_head(path: Path, tensors: Mapping[str, int]) -> None:
    entries = {name: {"dtype": "BF16", "shape": [2, size]} for name, size in tensors.items()}
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)


def test_the_heads_of_a_checkpoint_are_read_once_for_a_study(tmp_path: Path) -> None:
    """Of as many tensors as a large mixture of experts has, and anew once they have changed."""
    files = {f"{number}.safetensors": f"layers.{number}" for number in range(20)}
    names = {f"{layer}.{n}": file for file, layer in files.items() for n in range(1500)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    for file, layer in files.items():
        write_head(tmp_path / file, {f"{layer}.{n}": 8 for n in range(1500)})
    source = ModelSource("directory", "m", tmp_path)
    assert elements(source, ("BF16",)) == 30_000 * 16
    assert elements(source, ("F32",)) == 0

    began_s = time.process_time()
    again = [elements(source, ("BF16", "F16")) for _ in range(100)]
    spent_s = time.process_time() - began_s

    assert again == [30_000 * 16] * 100
    assert spent_s < 1.0, "read anew each time it takes 9 s"
    write_head(tmp_path / "0.safetensors", {"layers.0": 5})
    assert elements(source, ("BF16",)) == 28_500 * 16 + 10
    (tmp_path / "1.safetensors").unlink()
    assert elements(source, ("BF16",)) is None
    assert tensors(source) is None
