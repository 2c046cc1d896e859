"""Parameters are counted on the loaded model, whatever its weights are kept in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.counted import Counted, Routing, count, doubt, routing_of
from tests.support.architectures import CONFIGS
from tests.support.models import save_adapter, save_model

torch = pytest.importorskip("torch", reason="needs the pytorch extra")
transformers = pytest.importorskip("transformers", reason="needs the pytorch extra")


def on_no_device(name: str) -> Any:
    config = {"model_type": name.partition(" ")[0], **CONFIGS[name]}
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config)
        )


def holding(**modules: Any) -> Any:
    """Make a module of modules."""
    outer = torch.nn.Module()
    for name, module in modules.items():
        outer.add_module(name, module)
    return outer


def keeping(parameters: dict[str, Any], **attributes: Any) -> Any:
    """Make a module with these parameters and attributes."""
    module = torch.nn.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    for name, value in parameters.items():
        module.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
    return module


def packed(*shape: int) -> Any:
    return torch.zeros(shape, dtype=torch.uint8)


# Once each


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_counts_as_its_configuration_reads(name: str) -> None:
    model = on_no_device(name)
    shape = ModelArchitecture.from_config(model.config.to_dict())
    assert count(model) == Counted(shape.parameters, shape.parameters, shape.parameters_active)


def test_a_matrix_that_is_tied_counts_once() -> None:
    assert count(on_no_device("llama")).total - count(on_no_device("llama tied")).total == 64 * 128


def test_parameters_that_share_their_memory_count_once() -> None:
    one, other = torch.nn.Linear(8, 16, bias=False), torch.nn.Linear(8, 16, bias=False)
    other.weight = torch.nn.Parameter(one.weight.data)
    assert count(holding(one=one, other=other)) == Counted(128, 128, 128)


# Packed weights


def test_a_packed_matrix_counts_by_the_sides_it_stands_for() -> None:
    scale = torch.ones(16)
    four_bits = keeping(
        {"weight": packed(64, 1), "bias": torch.ones(16), "weight_scale": scale},
        in_features=8,
        out_features=16,
    )
    assert count(holding(four_bits=four_bits)).total == 8 * 16 + 16


def test_matrices_that_are_kept_as_buffers_count_as_well() -> None:
    gptq = keeping({}, in_features=8, out_features=16)
    gptq.register_buffer("qweight", torch.zeros(1, 16, dtype=torch.int32))
    gptq.register_buffer("scales", torch.ones(1, 16))
    assert count(holding(gptq=gptq)).total == 8 * 16


def test_bytes_of_eight_bits_are_weights_and_their_scales_are_not() -> None:
    eight_bits = keeping(
        {
            "gate_up_proj": torch.zeros(4, 8, 2).to(torch.float8_e4m3fn),
            "gate_up_proj_scale_inv": torch.ones(4, 1, 1),
        }
    )
    assert count(holding(experts=eight_bits)).total == 4 * 8 * 2


def test_a_packing_that_is_not_known_leaves_the_count_unknown() -> None:
    blocks = keeping({"gate_up_proj_blocks": packed(4, 8, 2, 16)})
    assert count(holding(layer=torch.nn.Linear(2, 2), experts=blocks)) is None


def test_weights_that_a_kernel_took_count_by_their_sides() -> None:
    taken = keeping({"weight": torch.empty(0)}, input_size=8, output_size=16)
    assert count(holding(taken=taken)).total == 8 * 16


def test_rows_that_pad_a_vocabulary_do_not_count() -> None:
    table = keeping({"weight": torch.ones(64, 8)}, org_vocab_size=50, embedding_dim=8)
    assert count(holding(table=table)).total == 50 * 8


# Experts


@pytest.mark.parametrize(
    ("name", "experts", "visited"),
    [("mixtral", 4, 2), ("qwen2_moe", 4, 2), ("qwen3_moe", 4, 2), ("deepseek_v3", 8, 2)],
)
def test_experts_are_found_by_their_structure(name: str, experts: int, visited: int) -> None:
    model = on_no_device(name)
    found = {routing_of(model, path) for path, _ in model.named_modules()}
    assert found == {None, Routing(experts, visited)}


def test_a_list_of_experts_is_found_too() -> None:
    block = holding(experts=torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(5)))
    block.top_k = 2
    model = holding(mlp=block, rest=torch.nn.Linear(4, 4))
    assert count(model) == Counted(6 * 20, 6 * 20, 3 * 20)


def test_experts_that_nobody_says_how_to_visit_leave_active_parameters_unknown() -> None:
    block = holding(experts=torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(5)))
    assert count(holding(mlp=block)) == Counted(100, 100, None)


def test_a_configuration_with_experts_that_are_not_found_leaves_active_parameters_unknown() -> None:
    model = holding(layer=torch.nn.Linear(4, 4))
    model.config = SimpleNamespace(num_local_experts=8)
    assert count(model) == Counted(20, 20, None)


# Other parts


def test_a_tower_for_images_is_no_part_of_the_language_model() -> None:
    decoder, head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 8, bias=False)
    model = holding(vision=torch.nn.Linear(10, 10), decoder=decoder, head=head)
    model.config = SimpleNamespace(text_config=SimpleNamespace())
    model.get_decoder, model.get_output_embeddings = lambda: decoder, lambda: head
    assert count(model) == Counted(110 + 20 + 32, 52, 52)


@pytest.fixture(scope="module")
def adapter(engines: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(engines.model, tmp_path_factory.mktemp("adapters") / "adapter")


def test_adapters_and_drafting_models_do_not_count(
    engines: Any, adapter: Path, tmp_path: Path
) -> None:
    lora = {"adapter_path": str(adapter)}
    drafted = {"speculative_decoding": True, "draft_model": str(save_model(tmp_path / "draft"))}
    for fields in ({"lora": lora}, {"lora": {**lora, "merge_weights": True}}, {"decoder": drafted}):
        report = engines.get(engines.model, **fields).inspect()
        assert report.doubt is None
        assert report.counted.total == report.architecture.parameters


# What disagrees


@pytest.mark.parametrize(("off", "doubted"), [(0, False), (0.0009, False), (0.0011, True)])
def test_a_difference_of_more_than_a_thousandth_is_a_doubt(off: float, doubted: bool) -> None:
    shape = ModelArchitecture.from_config({"model_type": "llama", **CONFIGS["llama"]})
    held = round(shape.parameters * (1 + off))
    said = doubt(shape, Counted(held, held, shape.parameters))
    assert (said is not None) == doubted
    if said is not None:
        assert f"{held:,}" in said
        assert f"{shape.parameters:,}" in said


def test_active_parameters_that_differ_are_a_doubt_too() -> None:
    shape = ModelArchitecture.from_config({"model_type": "mixtral", **CONFIGS["mixtral"]})
    held = Counted(shape.parameters, shape.parameters, shape.parameters)
    assert "active parameters" in (doubt(shape, held) or "")
