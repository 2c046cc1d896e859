from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import DECODING_STRATEGIES, PRECISIONS, WEIGHT_BITS
from llenergymeasure.config.registry import BACKENDS
from llenergymeasure.config.ssot import DECODING_SUPPORT, PRECISION_SUPPORT

SYNTHETIC = {"synthetic": {"n": 10, "input_len": 64, "output_len": 32}}


def problems(**fields: Any) -> dict[str, str]:
    """Give field to message, empty where the experiment is accepted."""
    try:
        ExperimentConfig(**{"model": "org/model", **fields})
    except ValidationError as error:
        return {".".join(map(str, line["loc"])): line["msg"] for line in error.errors()}
    return {}


# One row a rule: what is accepted, the change that makes it wrong, the field that is named, and
# a part of the remedy or reason.
RULES = [
    ({"pytorch": {}}, {"backend": "vllm"}, "pytorch", "remove the line 'pytorch:'"),
    ({"backend": "vllm", "vllm": {}}, {"backend": "pytorch"}, "vllm", "or set backend: vllm"),
    ({"precision": "int4"}, {"precision": "fp8"}, "precision", "it has fp32, fp16, bf16"),
    (
        {"backend": "tensorrt"},
        {"decoder": {"decoding_strategy": "beam", "num_beams": 2}},
        "decoder.decoding_strategy",
        "it has greedy, sampling",
    ),
    (
        {"window": {"phases": "differential"}},
        {"energy_backend": "none"},
        "window.phases",
        "reads no energy",
    ),
    ({"revision": "main"}, {"model": "random:tiny-llama"}, "revision", "no effect on random"),
    ({"revision": "main"}, {"model": "./mine"}, "revision", "no effect on a local directory"),
    (
        {"baseline": {"enabled": False}},
        {"baseline": {"enabled": False, "duration_seconds": 3}},
        "baseline.duration_seconds",
        "no effect while baseline.enabled is false",
    ),
    *(
        (
            {"decoder": {"decoding_strategy": "sampling", name: value}},
            {"decoder": {"decoding_strategy": "greedy", name: value}},
            f"decoder.{name}",
            "has no effect under greedy decoding",
        )
        for name, value in (("temperature", 0.7), ("top_p", 0.9), ("top_k", 50))
    ),
    (
        {"decoder": {"decoding_strategy": "beam", "num_beams": 4}},
        {"decoder": {"decoding_strategy": "beam", "num_beams": 4, "top_k": 5}},
        "decoder.top_k",
        "has no effect under beam decoding",
    ),
    (
        {"decoder": {"decoding_strategy": "beam", "num_beams": 4}},
        {"decoder": {"decoding_strategy": "beam"}},
        "decoder.num_beams",
        "e.g. num_beams: 4",
    ),
    (
        {"decoder": {"decoding_strategy": "beam", "num_beams": 4}},
        {"decoder": {"num_beams": 4}},
        "decoder.num_beams",
        "has no effect without beam search",
    ),
    (
        {"decoder": {"speculative_decoding": True, "draft_model": "org/small"}},
        {"decoder": {"speculative_decoding": True}},
        "decoder.draft_model",
        "needs a model that drafts",
    ),
    (
        {"decoder": {"speculative_decoding": True, "draft_model": "org/small"}},
        {"decoder": {"draft_model": "org/small"}},
        "decoder.draft_model",
        "has no effect unless",
    ),
    (
        {"decoder": {"speculative_decoding": True, "draft_model": "org/small"}},
        {
            "decoder": {
                "speculative_decoding": True,
                "draft_model": "org/small",
                "decoding_strategy": "beam",
                "num_beams": 2,
            }
        },
        "decoder.speculative_decoding",
        "does not combine with beam",
    ),
    (
        {
            "decoder": {"speculative_decoding": True, "draft_model": "org/small"},
            "pytorch": {"batch_size": 1},
        },
        {"pytorch": {"batch_size": 2}},
        "pytorch.batch_size",
        "set batch_size: 1",
    ),
    (
        {
            "decoder": {"speculative_decoding": True, "draft_model": "org/small"},
            "pytorch": {"batching_strategy": "static"},
        },
        {"pytorch": {"batching_strategy": "dynamic"}},
        "pytorch.batching_strategy",
        "one request at a time",
    ),
    (
        {"decoder": {"min_new_tokens": 128}},
        {"decoder": {"min_new_tokens": 129}},
        "decoder.min_new_tokens",
        "129 is more than max_new_tokens: 128",
    ),
    (
        {"decoder": {"min_new_tokens": 5}},
        {"decoder": {"min_new_tokens": 5, "ignore_eos": True}},
        "decoder.min_new_tokens",
        "end of sequence is ignored",
    ),
    (
        {"decoder": {"min_new_tokens": 5}},
        {"model": "random:tiny-llama"},
        "decoder.min_new_tokens",
        "end of sequence is ignored",
    ),
    ({"dataset": SYNTHETIC, "n": 10}, {"n": 11}, "n", "11 is more than dataset.synthetic.n: 10"),
    (
        {"dataset": SYNTHETIC, "max_input_tokens": 64},
        {"max_input_tokens": 63},
        "max_input_tokens",
        "would truncate",
    ),
    (
        {"dataset": SYNTHETIC, "max_new_tokens": 32},
        {"max_new_tokens": 33},
        "max_new_tokens",
        "output_len: 32 decides",
    ),
    (
        {"dataset": SYNTHETIC},
        {"apply_chat_template": True},
        "apply_chat_template",
        "exact lengths",
    ),
    (
        {"precision": "int4", "pytorch": {"load_in_4bit": True}},
        {"precision": "bf16"},
        "pytorch.load_in_4bit",
        "set precision: int4",
    ),
    (
        {"precision": "int8", "pytorch": {"load_in_8bit": True}},
        {"pytorch": {"load_in_8bit": False}},
        "pytorch.load_in_8bit",
        "false contradicts precision: int8",
    ),
    (
        {"backend": "vllm", "precision": "int4", "vllm": {"quantization": "awq"}},
        {"precision": "fp8"},
        "vllm.quantization",
        "set precision to int4",
    ),
    (
        {"backend": "tensorrt", "precision": "fp8", "tensorrt": {"quantization": "fp8"}},
        {"precision": "bf16"},
        "tensorrt.quantization",
        "contradicts precision: bf16",
    ),
    (
        {"backend": "vllm", "precision": "int4", "vllm": {"quantization": "bitsandbytes"}},
        {"precision": "int8"},
        "vllm.quantization",
        "set precision to int4",
    ),
    (
        {"backend": "vllm", "precision": "int4", "vllm": {"quantization": "awq"}},
        {"vllm": {"quantization": "some-later-method"}},
        "vllm.quantization",
        "no method whose precision is known; use one of awq",
    ),
    (
        {"pytorch": {"device_map": "auto"}},
        {"pytorch": {"device_map": "auto", "device": "cuda"}},
        "pytorch.device_map",
        "keep one of the two",
    ),
]


@pytest.mark.parametrize(("accepted", "change", "field", "reason"), RULES)
def test_a_rule_accepts_one_side_and_names_the_field_on_the_other(accepted, change, field, reason):
    assert problems(**accepted) == {}
    found = problems(**{**accepted, **change})
    assert list(found) == [field]
    assert reason in found[field]


def test_contradictions_are_reported_together():
    found = problems(
        precision="fp8", decoder={"top_k": 5}, pytorch={"device": "cpu", "device_map": "auto"}
    )

    assert set(found) == {"precision", "decoder.top_k", "pytorch.device_map"}


def test_settings_that_agree_with_precision_are_accepted():
    assert problems(pytorch={"load_in_4bit": False, "load_in_8bit": False}) == {}
    assert problems(precision="int8", pytorch={"load_in_8bit": True, "load_in_4bit": False}) == {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_exactly_the_precisions_of_the_table_are_accepted(backend, precision):
    refused = "precision" in problems(backend=backend, precision=precision)

    assert refused is (precision not in PRECISION_SUPPORT[backend])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("strategy", DECODING_STRATEGIES)
def test_exactly_the_decoding_of_the_table_is_accepted(backend, strategy):
    decoder = {"decoding_strategy": strategy}
    if strategy == "beam":
        decoder["num_beams"] = 2
    refused = "decoder.decoding_strategy" in problems(
        backend=backend, precision="bf16", decoder=decoder
    )

    assert refused is (strategy not in DECODING_SUPPORT[backend])


@pytest.mark.parametrize(
    ("backend", "method", "precisions"),
    [
        (backend, method, precisions)
        for backend, facts in BACKENDS.items()
        for method, precisions in facts.quantisation.items()
    ],
)
def test_every_quantisation_method_agrees_with_its_precisions_only(backend, method, precisions):
    for precision in PRECISIONS:
        section = {backend: {"quantization": method}}
        found = problems(backend=backend, precision=precision, **section)
        assert (f"{backend}.quantization" in found) is (precision not in precisions)


@pytest.mark.parametrize(
    "method", ["mxfp4", "gguf", "nosuchmethod", "int8_per_channel_weight_only"]
)
def test_a_quantisation_method_that_is_not_listed_is_refused_under_every_precision(method):
    for precision in PRECISIONS:
        found = problems(backend="vllm", precision=precision, vllm={"quantization": method})
        assert "vllm.quantization" in found


def test_every_precision_has_a_weight_size():
    assert set(WEIGHT_BITS) == set(PRECISIONS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"decoder": {"ignore_eos": True}}, True),
        ({"model": "random:tiny-llama"}, True),
        ({"dataset": SYNTHETIC}, True),
    ],
)
def test_the_end_of_sequence_is_ignored_where_lengths_must_hold(fields, expected):
    assert ExperimentConfig(**{"model": "m", **fields}).ignores_eos is expected
