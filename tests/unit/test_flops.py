"""Analytic work, by pencil and against what PyTorch counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llenergymeasure.core import flops
from llenergymeasure.core.flops import DecodeTraffic, RequestTokens
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.peaks import DEVICES, peak_of
from llenergymeasure.domain.samples import RequestSample
from tests.support.architectures import CONFIGS

# One layer: q 8x8, k 8x4, v 8x4, o 8x8 and three matrices of 8x16, 576 weights; lm_head 8x10.
ONE = ModelArchitecture.from_config(
    {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 10,
    }
)
LLAMA_8B = ModelArchitecture.from_config(catalogue.config("llama-3.1-8b"))
TEN_STEPS = DecodeTraffic(
    steps=10,
    mean_rows=1,
    before=np.array([995.0]),
    after=np.array([1005.0]),
    rows=1,
    seconds=0.1,
)


def sample(**changes: Any) -> RequestSample:
    values: dict[str, Any] = {
        "request": 0,
        "pass_index": 0,
        "batch_index": 0,
        "input_tokens": 3,
        "padded_input_tokens": 3,
        "output_tokens": 3,
        "executed_output_tokens": 3,
        "issued_ns": 0,
        "scheduled_ns": 0,
        "first_token_ns": 1_000_000_000,
        "last_token_ns": 3_000_000_000,
        "delivered_ns": 3_000_000_000,
    }
    return RequestSample(**{**values, **changes})


def test_one_prefill_by_pencil() -> None:
    phase = flops.prefill_flops(ONE, np.array([3.0]))
    assert phase.linear == 2 * 576 * 3
    assert phase.attention == 4 * 1 * 4 * 2 * (1 + 2 + 3)
    assert phase.lm_head == 2 * 8 * 10  # only the last position gives logits
    assert phase.total == phase.linear + phase.attention + phase.lm_head


def test_one_decode_by_pencil() -> None:
    phase = flops.decode_flops(ONE, np.array([3.0]), np.array([3.0]))
    assert phase.linear == 2 * 576 * 2  # the first of three tokens came out of the prefill
    assert phase.attention == 4 * 1 * 4 * 2 * (4 + 5)
    assert phase.lm_head == 2 * (2 * 8 * 10)


@pytest.mark.parametrize("outputs", [0, 1])
def test_a_request_of_one_token_decodes_nothing(outputs: int) -> None:
    assert flops.decode_flops(ONE, np.array([3.0]), np.array([float(outputs)])).total == 0


def test_padding_and_ended_rows_are_executed_but_not_useful() -> None:
    tokens = RequestTokens.of([3, 5], [2, 4], [5, 5], [4, 4])
    work = flops.count_operations(ONE, tokens)
    assert work.useful_prefill.linear == 2 * 576 * 8
    assert work.executed_prefill.linear == 2 * 576 * 10
    assert work.useful_decode.linear == 2 * 576 * (1 + 3)
    assert work.executed_decode.linear == 2 * 576 * (3 + 3)
    assert work.executed_decode.attention == 32 * 2 * (6 + 7 + 8)
    assert work.useful_total == work.useful_prefill.total + work.useful_decode.total
    assert work.executed_total > work.useful_total


def test_without_padding_executed_is_useful() -> None:
    work = flops.count_operations(ONE, RequestTokens.of([3, 5], [2, 4]))
    assert work.executed_total == work.useful_total


def test_beams_multiply_what_is_executed_only() -> None:
    tokens = RequestTokens.of([3], [4])
    work = flops.count_operations(ONE, tokens, beams=4)
    assert work.executed_total == 4 * work.useful_total
    assert work.useful_total == flops.count_operations(ONE, tokens).useful_total


def test_tokens_found_in_a_prefix_cache_are_useful_but_not_executed() -> None:
    tokens = RequestTokens.from_samples([sample(), sample(cached_input_tokens=2)])
    work = flops.count_operations(ONE, tokens)
    assert work.useful_prefill.linear == 2 * 576 * (3 + 3)
    assert work.executed_prefill.linear == 2 * 576 * (3 + 1)
    assert work.executed_prefill.attention == 32 * ((1 + 2 + 3) + 3)
    assert work.executed_prefill.lm_head == work.useful_prefill.lm_head
    assert work.executed_decode == work.useful_decode


def test_only_visited_experts_are_counted() -> None:
    config = {
        "model_type": "mixtral",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 10,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }
    mixture = ModelArchitecture.from_config(config)
    phase = flops.prefill_flops(mixture, np.array([1.0]))
    assert phase.linear == 2 * (192 + 8 * 8 + 2 * 384)  # attention, router, two experts


def test_failed_requests_are_left_out() -> None:
    tokens = RequestTokens.from_samples([sample(), sample(finish="failed")])
    assert tokens.input_tokens.tolist() == [3]


def test_no_requests_is_no_work() -> None:
    assert flops.count_operations(ONE, RequestTokens.from_samples([])).executed_total == 0


def test_the_work_of_a_million_requests_is_finite() -> None:
    rng = np.random.default_rng(0)
    tokens = RequestTokens.of(
        rng.integers(1, 100_000, 1_000_000), rng.integers(1, 10_000, 1_000_000)
    )
    work = flops.count_operations(LLAMA_8B, tokens)
    assert np.isfinite(work.useful_total)


def test_vectorised_counts_equal_a_plain_sum_over_passes() -> None:
    lengths, outputs = [7, 1, 30], [5, 9, 2]
    pairs = sum(n + i for n, o in zip(lengths, outputs, strict=True) for i in range(1, o))
    phase = flops.decode_flops(ONE, np.array(lengths, float), np.array(outputs, float))
    assert phase.attention == 32 * pairs


@pytest.mark.parametrize(("model_type", "kv_heads"), [("llama", 2), ("gpt2", None)])
def test_pytorch_counts_the_same_matrix_products(model_type: str, kv_heads: int | None) -> None:
    torch = pytest.importorskip("torch", reason="needs the pytorch extra")
    transformers = pytest.importorskip("transformers", reason="needs the pytorch extra")
    from torch.utils.flop_counter import FlopCounterMode

    size: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    if kv_heads is not None:
        size |= {"num_key_value_heads": kv_heads, "intermediate_size": 48}
    config = transformers.AutoConfig.for_model(model_type, **size, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    tokens = 11
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, tokens, dtype=torch.long), logits_to_keep=1, use_cache=False)
    by_operator = counter.get_flop_counts()["Global"]
    attention = sum(n for op, n in by_operator.items() if "bmm" in str(op))

    phase = flops.prefill_flops(ModelArchitecture.from_config(config.to_dict()), np.array([11.0]))
    assert counter.get_total_flops() - attention == phase.linear + phase.lm_head
    # Eager attention computes all S x S pairs and masks half; the causal count is S(S+1)/2.
    assert attention == phase.attention * 2 * tokens / (tokens + 1)


# --- windows, and what kernels compute


def windowed(model_type: str, **changes: Any) -> ModelArchitecture:
    """A model of 12 layers of which each pair of query and key costs 32 operations."""
    return ModelArchitecture.from_config(
        {
            "model_type": model_type,
            "hidden_size": 8,
            "num_hidden_layers": 12,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 2,
            "intermediate_size": 16,
            "vocab_size": 10,
            **changes,
        }
    )


GEMMA3 = windowed("gemma3_text", sliding_window=4)  # 10 of 12 layers
LLAMA4 = windowed(
    "llama4_text",
    attention_chunk_size=4,
    num_local_experts=4,
    num_experts_per_tok=1,
    intermediate_size_mlp=16,
)  # 9 of 12 layers


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9, 17])
def test_a_token_sees_no_more_than_its_window(length: int) -> None:
    sliding = sum(min(token, 4) for token in range(1, length + 1))
    chunked = sum((token - 1) % 4 + 1 for token in range(1, length + 1))
    every = length * (length + 1) // 2
    prompt = np.array([float(length)])
    gemma, llama = (flops.prefill_flops(shape, prompt).attention for shape in (GEMMA3, LLAMA4))
    assert gemma == 32 * (10 * sliding + 2 * every)
    assert llama == 32 * (9 * chunked + 3 * every)


@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_decode_passes_see_no_more_than_their_window(length: int) -> None:
    contexts = range(length + 1, length + 7)
    sliding = sum(min(context, 4) for context in contexts)
    chunked = sum((context - 1) % 4 + 1 for context in contexts)
    counts = np.array([float(length)]), np.array([7.0])
    gemma, llama = (flops.decode_flops(shape, *counts).attention for shape in (GEMMA3, LLAMA4))
    assert gemma == 32 * (10 * sliding + 2 * sum(contexts))
    assert llama == 32 * (9 * chunked + 3 * sum(contexts))


def test_gemma_3_at_32k_attends_in_full_in_every_sixth_layer_only() -> None:
    config = {"model_type": "gemma3_text", "hidden_size": 1152, "num_hidden_layers": 26}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 6912}
    small = ModelArchitecture.from_config({**config, **heads, "sliding_window": 512})
    prompt = np.array([32768.0])
    uniform = 4 * 26 * 4 * 256 * 32768 * 32769 / 2
    assert uniform / flops.prefill_flops(small, prompt).attention == pytest.approx(5.5, rel=0.02)


def test_eager_attention_computes_every_pair_and_masks_half_of_them() -> None:
    tokens = RequestTokens.of([6], [3])
    eager = flops.Execution.of({"attn_implementation": "eager"})
    work = flops.count_operations(GEMMA3, tokens, execution=eager)
    assert work.executed_prefill.attention == 32 * 12 * 6 * 6
    assert work.useful_prefill.attention == 32 * (10 * (1 + 2 + 3 + 4 + 4 + 4) + 2 * 21)
    assert work.executed_decode.attention == work.useful_decode.attention


def test_sdpa_computes_every_pair_where_it_needs_a_mask() -> None:
    sdpa = flops.Execution.of({"attn_implementation": "sdpa", "torch_compile": False})
    alike, padded = RequestTokens.of([6, 6], [1, 1]), RequestTokens.of([6, 5], [1, 1], [6, 6])
    for tokens, pairs in ((alike, 21), (padded, 36)):
        work = flops.count_operations(ONE, tokens, execution=sdpa)
        assert work.executed_prefill.attention == 32 * 2 * pairs
    short = RequestTokens.of([3], [1])
    for tokens, pairs in ((short, 6), (RequestTokens.of([4], [1]), 16)):  # the window is 4
        work = flops.count_operations(windowed("mistral", sliding_window=4), tokens, 1, sdpa)
        assert work.executed_prefill.attention == 32 * 12 * pairs
    compiled = flops.Execution.of({"attn_implementation": "sdpa", "torch_compile": True})
    work = flops.count_operations(ONE, alike, execution=compiled)
    assert work.executed_prefill.attention == 32 * 2 * 36


def test_padding_of_one_prompt_masks_its_batch_and_no_other() -> None:
    batches = [
        sample(input_tokens=2),
        sample(request=1),
        sample(request=2, batch_index=1),
        sample(request=3, scheduled_ns=7),  # the first batch of another process
    ]
    assert RequestTokens.from_samples(batches).masked.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "resolved", [{"attn_implementation": "flash_attention_2"}, {"attention_backend": "FLASH"}, {}]
)
def test_kernels_that_skip_what_is_masked_execute_what_is_useful(resolved: dict[str, Any]) -> None:
    tokens = RequestTokens.of([6, 5], [3, 3])
    work = flops.count_operations(GEMMA3, tokens, 1, flops.Execution.of(resolved))
    assert work.executed_total == work.useful_total


def test_transformers_takes_every_token_of_llama_4_through_every_expert() -> None:
    eager = flops.Execution.of({"attn_implementation": "eager"})
    work = flops.count_operations(LLAMA4, RequestTokens.of([1], [1]), execution=eager)
    expert = 3 * 8 * 16
    assert work.executed_prefill.linear - work.useful_prefill.linear == 2 * 12 * 3 * expert
    paged = flops.count_operations(LLAMA4, RequestTokens.of([1], [1]))
    assert paged.executed_prefill.linear == paged.useful_prefill.linear


def test_recurrences_cost_the_same_for_each_token_however_long_the_context() -> None:
    mamba = ModelArchitecture.from_config({"model_type": "mamba2", **CONFIGS["mamba2"]})
    short, long = (flops.decode_flops(mamba, np.array([n]), np.array([2.0])) for n in (9.0, 9e5))
    assert short == long
    assert short.attention == 0
    # 3 layers: 4 operations a value of state, 128 channels of 8; kernels of 4 over 160 channels
    assert short.recurrence == 3 * (4 * 128 * 8 + 2 * 4 * 160)


def test_the_delta_rule_reads_its_state_twice_and_writes_it_once() -> None:
    qwen = ModelArchitecture.from_config({"model_type": "qwen3_5_text", **CONFIGS["qwen3_5_text"]})
    phase = flops.prefill_flops(qwen, np.array([2.0]))
    state, convolved = 4 * 8 * 16, 2 * 2 * 8 + 4 * 16
    assert phase.recurrence == 2 * 3 * (6 * state + 2 * 4 * convolved)  # 3 of 4 layers


def test_layers_that_borrow_keys_and_values_take_one_token_of_a_prompt() -> None:
    config = CONFIGS["gemma4_text with embeddings in layers"]
    shape = ModelArchitecture.from_config({"model_type": "gemma4_text", **config})
    one, many = (flops.prefill_flops(shape, np.array([n])) for n in (1.0, 11.0))
    borrowing = sum(n * layer.computed() for layer, n in shape.stack if layer.last_token_only)
    assert borrowing > 0
    assert many.linear == 11 * one.linear - 10 * 2 * borrowing
    flash = flops.Execution.of({"attn_implementation": "flash_attention_2"})
    whole = flops.prefill_flops(shape, np.array([11.0]), execution=flash)
    assert whole.linear == 11 * one.linear


def test_layers_with_a_window_read_no_more_than_it_from_the_cache() -> None:
    h200 = peak_of("NVIDIA H200")
    share = flops.mbu(GEMMA3, [TEN_STEPS], h200, "bf16")
    weights = flops.weight_bytes_read(GEMMA3, "bf16", 1)
    cached = 2 * 2 * 2 * 2 * (10 * 4 + 2 * 1000.5)  # 2 bytes, keys and values, 2 heads of 2
    assert share == pytest.approx((weights + cached) / 0.01 / 4.8e12)


# --- share of the peak


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_a_device_is_known_by_the_name_nvml_gives_it(device: str, name: str) -> None:
    peak = peak_of(device)
    assert peak is not None
    assert peak.name == name


@pytest.mark.parametrize(
    "device",
    [
        None,
        "",
        "NVIDIA L40S",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA GH200 480GB",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "Tesla V100-SXM2-16GB",
    ],
)
def test_a_device_that_is_not_in_the_table_has_no_peak(device: str | None) -> None:
    assert peak_of(device) is None


def test_the_compute_type_decides_the_peak() -> None:
    a100, h100 = peak_of("NVIDIA A100-SXM4-80GB"), peak_of("NVIDIA H100 80GB HBM3")
    assert a100 is not None
    assert h100 is not None
    assert a100.compute_tflops("fp16") == a100.compute_tflops("bf16") == 312
    assert a100.compute_tflops("int8") == 624
    assert a100.compute_tflops("fp8") == 312  # no fp8 units: weights only
    assert h100.compute_tflops("fp8") == pytest.approx(2 * 989, rel=0.001)
    assert h100.compute_tflops("int4") == 989
    assert h100.compute_tflops("fp32") == 67  # without tensor cores


def test_every_device_states_what_it_does_in_bf16_and_fp32() -> None:
    assert all({"bf16", "fp32"} <= peak.tflops.keys() for peak in DEVICES)


def test_mfu_by_pencil() -> None:
    h200 = peak_of("NVIDIA H200")
    assert flops.mfu(989e12, 2.0, h200, "bf16", devices=1) == pytest.approx(0.5)
    assert flops.mfu(989e12, 2.0, h200, "bf16", devices=2) == pytest.approx(0.25)
    assert flops.mfu(989e12, 2.0, None, "bf16", devices=1) is None


def test_mbu_of_llama_by_pencil() -> None:
    # 16-bit weights without the input embeddings: (8.030 - 0.525) x 10^9 x 2 bytes a step, and
    # keys and values of 996, 997, ... 1005 tokens
    traffic = TEN_STEPS
    share = flops.mbu(LLAMA_8B, [traffic], peak_of("NVIDIA H200"), "bf16")
    step = (8_030_261_248 - 128_256 * 4096) * 2 + 1000.5 * 131_072
    assert share == pytest.approx(step / 0.01 / 4.8e12)
    assert flops.mbu(LLAMA_8B, [traffic], None, "bf16") is None
    assert flops.mbu(LLAMA_8B, [], peak_of("NVIDIA H200"), "bf16") is None


def test_bandwidth_of_processes_with_devices_of_their_own_is_that_of_each() -> None:
    h200 = peak_of("NVIDIA H200")
    traffic = TEN_STEPS
    idle_half = traffic._replace(seconds=0.2)
    alone = flops.mbu(LLAMA_8B, [traffic], h200, "bf16")
    assert flops.mbu(LLAMA_8B, [traffic, traffic], h200, "bf16") == pytest.approx(alone)
    assert flops.mbu(LLAMA_8B, [traffic, idle_half], h200, "bf16") == pytest.approx(alone * 2 / 3)
    assert flops.mbu(LLAMA_8B, [traffic], h200, "bf16", 2) == pytest.approx(alone / 2)


def test_quantised_weights_are_read_at_their_own_width() -> None:
    full = flops.weight_bytes_read(LLAMA_8B, "bf16", 1)
    quarter = flops.weight_bytes_read(LLAMA_8B, "int4", 1)
    assert full - quarter == LLAMA_8B.linear_parameters() * 1.5


def test_more_rows_visit_more_experts() -> None:
    mixture = ModelArchitecture.from_config(
        {**catalogue.config("mistral-7b"), "num_local_experts": 8, "num_experts_per_tok": 2}
    )
    one, two, many = (flops.weight_bytes_read(mixture, "bf16", rows) for rows in (1, 2, 1000))
    expert = 2 * 32 * 3 * 4096 * 14336
    assert two - one == pytest.approx(1.5 * expert)  # 8 (1 - 0.75^2) = 3.5 of 8, after 2
    assert many - one == pytest.approx(6 * expert)


def test_static_batches_are_reconstructed_with_their_ended_rows() -> None:
    batch = [
        sample(padded_input_tokens=5, output_tokens=2, executed_output_tokens=4),
        sample(padded_input_tokens=5, output_tokens=4, executed_output_tokens=4),
    ]
    later = [sample(batch_index=1, executed_output_tokens=2, last_token_ns=2_000_000_000)]
    traffic = flops.static_traffic([*batch, *later])
    assert traffic is not None
    assert traffic.steps == 3 + 1
    assert traffic.mean_rows == pytest.approx((2 * 3 + 1) / 4)
    assert traffic.context_tokens == 2 * (6 + 7 + 8) + 4
    assert traffic.seconds == pytest.approx(2.0 + 1.0)


def test_batches_that_decode_nothing_have_no_traffic() -> None:
    assert flops.static_traffic([]) is None
    assert flops.static_traffic([sample(output_tokens=1, executed_output_tokens=1)]) is None


def test_the_figures_go_into_a_result_as_they_are() -> None:
    work = flops.count_operations(ONE, RequestTokens.of([3], [2]))
    result = flops.flops_result(work, mfu_share=0.4, peak=peak_of("NVIDIA L4"))
    assert result.useful_total == work.useful_total
    assert (result.mfu, result.mbu, result.peak_source) == (0.4, None, "L4")
