"""The memory estimate, by pencil."""

from __future__ import annotations

from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.memory_estimate import estimate_memory, weight_bytes
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.units import MIB

LLAMA_8B = ModelArchitecture.from_config(catalogue.config("llama-3.1-8b"))
TINY = ModelArchitecture.from_config(catalogue.config("tiny-llama"))


def experiment(**fields: Any) -> ExperimentConfig:
    return ExperimentConfig(**{"model": "random:llama-3.1-8b", **fields})


def test_weights_of_llama_8b_in_bf16() -> None:
    estimate = estimate_memory(experiment(), LLAMA_8B)
    assert estimate.weights_mb == pytest.approx(15_316.5, abs=0.1)


def test_the_cache_of_llama_8b_is_128_kib_a_token() -> None:
    estimate = estimate_memory(experiment(max_input_tokens=512, max_new_tokens=128), LLAMA_8B)
    assert estimate.context_tokens == 640
    assert estimate.kv_cache_mb == 640 * 131_072 / MIB  # 80 MiB


def test_fp32_doubles_weights_and_cache() -> None:
    half, full = (estimate_memory(experiment(precision=p), LLAMA_8B) for p in ("bf16", "fp32"))
    assert full.weights_mb == 2 * half.weights_mb
    assert full.kv_cache_mb == 2 * half.kv_cache_mb


@pytest.mark.parametrize(("precision", "bytes_a_weight"), [("int8", 1.0), ("int4", 0.5)])
def test_quantised_weights_leave_embeddings_at_16_bits(
    precision: Any, bytes_a_weight: float
) -> None:
    embeddings = 2 * 128_256 * 4096
    norms = 65 * 4096
    matrices = 8_030_261_248 - embeddings - norms
    expected = matrices * bytes_a_weight + (embeddings + norms) * 2
    assert weight_bytes(LLAMA_8B, precision) == expected


def test_tied_embeddings_are_held_once() -> None:
    tied = ModelArchitecture.from_config(catalogue.config("llama-3.2-1b"))
    assert weight_bytes(tied, "bf16") == 2 * 1_235_814_400


def test_the_batch_multiplies_cache_and_logits() -> None:
    alike = {"dataset": {"synthetic": {"input_len": 512, "output_len": 128}}}
    one = estimate_memory(experiment(**alike), LLAMA_8B)
    eight = estimate_memory(experiment(**alike, pytorch={"batch_size": 8}), LLAMA_8B)
    assert eight.rows == 8
    assert eight.kv_cache_mb == 8 * one.kv_cache_mb
    assert eight.activations_mb == pytest.approx(8 * one.activations_mb)
    assert eight.weights_mb == one.weights_mb


def test_prompts_that_differ_in_length_take_a_mask() -> None:
    alike = {"dataset": {"synthetic": {"input_len": 512, "output_len": 128}}}
    same, padded = (
        estimate_memory(experiment(**given, pytorch={"batch_size": 8}), LLAMA_8B)
        for given in (alike, {})
    )
    mask_mb = 8 * 512 * 512 / MIB  # of bool
    assert padded.activations_mb == pytest.approx(same.activations_mb + mask_mb)


def test_beams_multiply_rows() -> None:
    config = experiment(
        pytorch={"batch_size": 2}, decoder={"decoding_strategy": "beam", "num_beams": 4}
    )
    assert estimate_memory(config, LLAMA_8B).rows == 8


def test_no_more_rows_than_prompts() -> None:
    assert estimate_memory(experiment(n=3, pytorch={"batch_size": 8}), LLAMA_8B).rows == 3


def test_vllm_serves_256_at_once_unless_told_otherwise() -> None:
    default = experiment(backend="vllm", n=1000)
    told = experiment(backend="vllm", n=1000, vllm={"max_num_seqs": 64})
    assert estimate_memory(default, LLAMA_8B).rows == 256
    assert estimate_memory(told, LLAMA_8B).rows == 64


def test_an_eight_bit_cache_needs_half() -> None:
    plain = estimate_memory(experiment(backend="vllm"), LLAMA_8B)
    small = estimate_memory(experiment(backend="vllm", vllm={"kv_cache_dtype": "fp8"}), LLAMA_8B)
    assert small.kv_cache_mb == plain.kv_cache_mb / 2


def test_parallel_devices_share() -> None:
    config = experiment(
        backend="vllm", vllm={"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    )
    estimate = estimate_memory(config, LLAMA_8B)
    assert estimate.per_device_mb == estimate.total_mb / 4


def test_the_activations_of_one_prefill_by_pencil() -> None:
    estimate = estimate_memory(experiment(backend="vllm", n=1, max_input_tokens=100), TINY)
    # two residuals of 256; the MLP's 3 x 640 + 256 outweigh attention's 2 x 256 + 2 x 128
    assert estimate.activations_mb == (100 * (2 * 256 + 3 * 640 + 256) * 2 + 1024 * 4) / MIB


def test_activations_are_what_the_worst_moment_has_beside_the_whole_cache() -> None:
    estimate = estimate_memory(experiment(max_input_tokens=100, max_new_tokens=28), TINY)
    # embeddings, input and positions, residual and normalised copy, three of the MLP; at that
    # moment the cache holds the prompt, and not yet the 28 tokens of the answer
    beside = 100 * 2 * (2 * 256 + 2 * 64 + 2 * 256 + 3 * 640) - 28 * (2 * 8 * 2 * 64 * 2)
    assert estimate.activations_mb == beside / MIB


def test_on_a_cpu_the_heap_and_the_engine_itself_count() -> None:
    gpu, cpu = (estimate_memory(experiment(), TINY, on_cpu=on_cpu) for on_cpu in (False, True))
    assert gpu.engine_mb == 0
    assert cpu.engine_mb > cpu.first_use_mb > 5
    assert cpu.growth_mb == 2 * gpu.growth_mb + cpu.first_use_mb
    assert cpu.total_mb == cpu.weights_mb + 2 * gpu.growth_mb + cpu.engine_mb


def test_eager_attention_in_16_bits_compiles_for_every_length_on_a_cpu() -> None:
    def first_use_mb(**fields: Any) -> float:
        return estimate_memory(experiment(**fields), TINY, on_cpu=True).first_use_mb

    eager = {"attn_implementation": "eager"}
    lengths = [first_use_mb(pytorch=eager, max_new_tokens=new) for new in (10, 30, 900, 1000)]
    assert lengths[1] - lengths[0] == pytest.approx(20 * 1.2)
    assert lengths[2] == lengths[3], "only so many kernels are kept"
    assert first_use_mb(max_new_tokens=900) < lengths[0]


def test_synthetic_prompts_have_their_exact_length() -> None:
    config = experiment(dataset={"synthetic": {"input_len": 300, "output_len": 20}})
    assert estimate_memory(config, LLAMA_8B).context_tokens == 320


def test_the_length_of_uncut_prompts_is_assumed() -> None:
    config = experiment(max_input_tokens=None, max_new_tokens=10)
    assert estimate_memory(config, LLAMA_8B).context_tokens == 1034


def test_the_context_limit_bounds_the_cache() -> None:
    config = experiment(max_input_tokens=2000, max_new_tokens=500)
    assert estimate_memory(config, TINY).context_tokens == 2048


def test_the_total_is_the_sum_of_its_items() -> None:
    estimate = estimate_memory(experiment(), LLAMA_8B)
    parts = estimate.weights_mb + estimate.kv_cache_mb + estimate.activations_mb
    assert estimate.total_mb == parts


def test_all_experts_are_held_though_few_are_visited() -> None:
    mixture = ModelArchitecture.from_config(
        {**catalogue.config("mistral-7b"), "num_local_experts": 8, "num_experts_per_tok": 2}
    )
    assert weight_bytes(mixture, "bf16") == 2 * mixture.parameters
    assert mixture.parameters > 6 * 7_248_023_552
