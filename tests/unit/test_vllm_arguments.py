"""What vLLM is told; no engine needed."""

from __future__ import annotations

import pytest

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.vllm.arguments import (
    DRAFT_TOKENS,
    ModelFiles,
    beam_arguments,
    engine_arguments,
    sampling_arguments,
)

FILES = ModelFiles("/models/m")
SECTION = {
    "max_num_seqs": 8,
    "max_model_len": 4096,
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 3,
    "gpu_memory_utilization": 0.5,
    "enable_prefix_caching": False,
    "enable_chunked_prefill": True,
    "block_size": 32,
    "quantization": "awq",
    "kv_cache_dtype": "fp8",
    "enforce_eager": True,
}


def config(**fields) -> ExperimentConfig:
    return ExperimentConfig(**{"model": "m", "backend": "vllm", **fields})


def sampled(**decoder) -> dict:
    decoder = {"decoding_strategy": "sampling", **decoder}
    return sampling_arguments(config(decoder=decoder), 16)


def test_every_field_of_the_section_reaches_vllm():
    assert set(SECTION) == set(VLLMConfig.model_fields)
    arguments = engine_arguments(config(precision="int4", vllm=SECTION), FILES)

    assert {name: arguments[name] for name in SECTION} == SECTION


def test_what_is_null_stays_vllms_own_choice():
    assert not set(SECTION) & set(engine_arguments(config(), FILES))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16"), ("int4", "bfloat16")],
)
def test_precision_is_the_type_of_the_arithmetic(precision, dtype):
    assert engine_arguments(config(precision=precision), FILES)["dtype"] == dtype


def test_fp8_quantises_while_loading_unless_the_checkpoint_is_fp8_already():
    plain, quantised = FILES, ModelFiles("/models/m", quantised_as="compressed-tensors")

    assert engine_arguments(config(precision="fp8"), plain)["quantization"] == "fp8"
    assert "quantization" not in engine_arguments(config(precision="fp8"), quantised)


def test_a_models_own_sampling_defaults_and_missing_statistics_are_ruled_out():
    arguments = engine_arguments(config(random_seed=7), FILES)

    assert arguments["generation_config"] == "vllm"
    assert arguments["disable_log_stats"] is False
    assert arguments["seed"] == 7


def test_random_weights_are_made_by_vllm():
    arguments = engine_arguments(config(), ModelFiles("/cache/random/tiny", is_random=True))

    assert arguments["load_format"] == "dummy"
    assert "load_format" not in engine_arguments(config(), FILES)


@pytest.mark.parametrize(("rank", "room"), [(None, 16), (4, 8), (16, 16), (17, 32), (300, 320)])
def test_an_adapter_gets_room_for_its_rank(rank, room):
    adapted = config(lora={"adapter_path": "/adapters/a"})
    arguments = engine_arguments(adapted, ModelFiles("/models/m", lora_rank=rank))

    assert (arguments["enable_lora"], arguments["max_lora_rank"]) == (True, room)


def test_a_draft_model_becomes_speculation():
    arguments = engine_arguments(config(), ModelFiles("/models/m", draft="/models/d"))

    assert arguments["speculative_config"] == {
        "method": "draft_model",
        "model": "/models/d",
        "num_speculative_tokens": DRAFT_TOKENS,
    }


@pytest.mark.parametrize(("beams", "room"), [(10, None), (11, 22), (12, 24)])
def test_many_beams_get_room_for_their_candidates(beams, room):
    wide = config(decoder={"decoding_strategy": "beam", "num_beams": beams})

    assert engine_arguments(wide, FILES).get("max_logprobs") == room


def test_passthrough_arguments_are_handed_over_as_they_are():
    arguments = engine_arguments(config(passthrough_kwargs={"swap_space": 2}), FILES)

    assert arguments["swap_space"] == 2


def test_null_sampling_parameters_are_neutral():
    assert sampled() == {
        "max_tokens": 16,
        "min_tokens": 0,
        "ignore_eos": False,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "detokenize": False,
    }


def test_sampling_parameters_that_are_set_are_kept():
    chosen = sampled(temperature=0.7, top_p=0.9, top_k=5, repetition_penalty=1.2)

    assert (chosen["temperature"], chosen["top_p"], chosen["top_k"]) == (0.7, 0.9, 5)
    assert chosen["repetition_penalty"] == 1.2


def test_requests_share_the_seed_of_the_engine():
    assert "seed" not in sampled()


def test_greedy_decoding_draws_nothing():
    arguments = sampling_arguments(config(), 16)

    assert arguments["temperature"] == 0.0
    assert not {"top_p", "top_k"} & set(arguments)


def test_random_weights_ignore_the_end_of_sequence():
    assert sampling_arguments(config(model="random:tiny-llama"), 16)["ignore_eos"] is True


def test_the_least_number_of_tokens_never_exceeds_the_most():
    held = config(decoder={"min_new_tokens": 9}, max_new_tokens=20)

    assert sampling_arguments(held, 20)["min_tokens"] == 9
    assert sampling_arguments(held, 4)["min_tokens"] == 4


def test_beam_search_has_a_width_and_a_length():
    decoder = config(decoder={"decoding_strategy": "beam", "num_beams": 3}).decoder

    assert beam_arguments(decoder, 5, True) == {
        "beam_width": 3,
        "max_tokens": 5,
        "ignore_eos": True,
        "temperature": 0.0,
    }
