from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from llenergymeasure.config.base import put
from llenergymeasure.config.introspection import (
    describe,
    fields,
    markdown_table,
    sample_values,
    type_name,
)
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import UserConfig

EXPERIMENT = fields(ExperimentConfig)
USER = fields(UserConfig)

# What has to stand beside a value for the whole experiment to make sense.
COMPANY: dict[str, dict[str, Any]] = {
    "decoder.temperature": {"decoder.decoding_strategy": "sampling"},
    "decoder.top_p": {"decoder.decoding_strategy": "sampling"},
    "decoder.top_k": {"decoder.decoding_strategy": "sampling"},
    "decoder.num_beams": {"decoder.decoding_strategy": "beam"},
    "decoder.draft_model": {"decoder.speculative_decoding": True},
    "decoder.speculative_decoding": {"decoder.draft_model": "org/small"},
    "pytorch.load_in_4bit": {"precision": "int4"},
    "pytorch.load_in_8bit": {"precision": "int8"},
    "vllm.quantization": {"precision": "int4"},
    "tensorrt.quantization": {"precision": "int4"},
    "lora.merge_weights": {"lora.adapter_id": "org/adapter"},
    "dataset.column": {"dataset.path": "prompts.csv"},
    "dataset.limit_column": {"dataset.path": "prompts.csv"},
}
PARTNERS: dict[tuple[str, Any], dict[str, Any]] = {
    ("precision", "fp8"): {"backend": "vllm"},
    ("decoder.decoding_strategy", "beam"): {"decoder.num_beams": 2},
    ("decoder.num_beams", None): {"decoder.decoding_strategy": "greedy"},
    ("decoder.draft_model", None): {"decoder.speculative_decoding": False},
    ("decoder.speculative_decoding", False): {"decoder.draft_model": None},
    ("pytorch.load_in_4bit", False): {"precision": "bf16"},
    ("pytorch.load_in_8bit", False): {"precision": "bf16"},
    ("lora.adapter_id", None): {"lora.adapter_path": "/adapter"},
    ("lora.adapter_path", None): {"lora.adapter_id": "org/adapter"},
    ("backend", "text"): {"backend": "pytorch"},
    ("vllm.quantization", "fp8"): {"precision": "fp8"},
    ("tensorrt.quantization", "fp8"): {"precision": "fp8"},
}


def experiment_with(name: str, value: Any) -> dict[str, Any]:
    """Give an experiment with one field set, and what has to stand beside it."""
    data: dict[str, Any] = {"model": "org/model"}
    section = name.split(".", maxsplit=1)[0]
    if section in ("vllm", "tensorrt", "scripted"):
        data["backend"] = section
    beside = {**COMPANY.get(name, {}), name: value, **PARTNERS.get((name, value), {})}
    for field, company in beside.items():
        put(data, field, company)
    if name.startswith("dataset.synthetic"):
        data.pop("n", None)
    return data


def test_every_sample_value_is_valid_in_an_experiment():
    refused = []
    for field in EXPERIMENT:
        for value in sample_values(field.schema):
            try:
                ExperimentConfig.model_validate(experiment_with(field.name, value))
            except ValidationError as error:
                refused.append((field.name, value, str(error)))

    assert refused == []


def test_every_sample_value_is_valid_in_the_user_configuration():
    for field in USER:
        for value in sample_values(field.schema):
            data: dict[str, Any] = {}
            put(data, field.name, value)
            UserConfig.model_validate(data)


def test_fields_of_every_kind_have_samples():
    without = {field.name for field in EXPERIMENT if not sample_values(field.schema)}

    assert without <= {
        "decoder",
        "warmup",
        "baseline",
        "window",
        "dataset.synthetic",
        "scripted.device_uuids",
    }


@pytest.mark.parametrize("model", [ExperimentConfig, UserConfig, StudyConfig])
def test_every_field_is_described(model):
    assert [field.name for field in fields(model) if not field.description] == []


def test_fields_inside_sections_have_dotted_names():
    names = {field.name for field in EXPERIMENT}

    assert {
        "model",
        "decoder.top_p",
        "dataset.synthetic.input_len",
        "pytorch.batch_size",
        "vllm.max_num_seqs",
        "tensorrt.tp_size",
        "scripted.ttft_ms",
        "lora.adapter_path",
        "window.phases",
    } <= names


@pytest.mark.parametrize(
    ("name", "type_", "default"),
    [
        ("model", "string", "required"),
        ("n", "integer (≥ 1) or null", "null"),
        ("max_input_tokens", "integer (≥ 1) or null", "512"),
        ("trust_remote_code", "boolean", "false"),
        ("window.phases", "`amortised`, `differential`", "amortised"),
        ("decoder.top_p", "number (> 0, ≤ 1) or null", "null"),
        ("warmup.thermal_floor_seconds", "number (≥ 0)", "60"),
        ("decoder", "section", "see below"),
        ("passthrough_kwargs", "mapping or null", "null"),
        ("scripted.device_uuids", "list of string", "[]"),
    ],
)
def test_a_field_is_shown_in_the_words_of_a_user(name, type_, default):
    field = next(field for field in EXPERIMENT if field.name == name)

    assert (field.type, field.default) == (type_, default)


def test_a_description_is_found_by_name():
    assert describe(ExperimentConfig, "n") == ExperimentConfig.model_fields["n"].description
    with pytest.raises(KeyError):
        describe(ExperimentConfig, "nn")


def test_the_table_has_a_row_a_field_of_four_cells():
    lines = markdown_table(ExperimentConfig).splitlines()

    assert len(lines) == 2 + len(EXPERIMENT)
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines)


@pytest.mark.parametrize(
    ("type_", "expected"), [(bool, "boolean"), (dict[str, int], "mapping"), (list[int], "list of")]
)
def test_types_have_names(type_, expected):
    assert type_name(TypeAdapter(type_).json_schema()).startswith(expected)
