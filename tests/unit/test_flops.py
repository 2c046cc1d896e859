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
    # 16-bit weights without the input embeddings: (8.030 - 0.525) x 10^9 x 2 bytes a step
    traffic = DecodeTraffic(steps=10, mean_rows=1, context_tokens=10 * 1000, seconds=0.1)
    share = flops.mbu(LLAMA_8B, [traffic], peak_of("NVIDIA H200"), "bf16")
    step = (8_030_261_248 - 128_256 * 4096) * 2 + 1000 * 131_072
    assert share == pytest.approx(step / 0.01 / 4.8e12)
    assert flops.mbu(LLAMA_8B, [traffic], None, "bf16") is None
    assert flops.mbu(LLAMA_8B, [], peak_of("NVIDIA H200"), "bf16") is None


def test_bandwidth_of_processes_with_devices_of_their_own_is_that_of_each() -> None:
    h200 = peak_of("NVIDIA H200")
    traffic = DecodeTraffic(steps=10, mean_rows=1, context_tokens=10 * 1000, seconds=0.1)
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
