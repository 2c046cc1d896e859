"""What a checkpoint says of its own quantisation, with entries as the tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import PRECISIONS
from llenergymeasure.core.backends.pytorch.loader import PyTorchBackend
from llenergymeasure.core.models.quantised import disagreement, of_model, read


def groups(*weights: dict[str, Any] | None) -> dict[str, Any]:
    numbered = {f"group_{index}": {"weights": each} for index, each in enumerate(weights)}
    return {"quant_method": "compressed-tensors", "config_groups": numbered}


@pytest.mark.parametrize(
    ("stated", "precision"),
    [
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "gptq", "bits": 3}, None),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*down.*": {"bits": 8}}}, None),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*lm_head.*": {}}}, "int4"),
        ({"quant_method": "awq", "w_bit": 4}, "int4"),
        ({"quant_method": "awq"}, None),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        (groups({"num_bits": 8, "type": "int"}), "int8"),
        (groups({"num_bits": 8, "type": "float"}), "fp8"),
        (groups({"num_bits": 4, "type": "int"}), "int4"),
        (groups({"num_bits": 4, "type": "int"}, None), "int4"),
        (groups({"num_bits": 4, "type": "float"}), None),
        (groups({"num_bits": 4, "type": "int"}, {"num_bits": 8, "type": "int"}), None),
        (groups(), None),
        ({"quant_method": "compressed_tensors", **groups({"num_bits": 8})}, "int8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
        ({"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}, None),
        ({"quant_method": "modelopt_fp4"}, None),
        ({"quant_method": "mxfp4"}, None),
        ({"quant_method": "gguf"}, None),
        ({"bits": 8}, None),
    ],
)
def test_the_precision_is_what_the_entry_says_of_the_weights(stated, precision):
    found = read(stated)

    assert found.precision == precision
    agreeing = {each for each in PRECISIONS if disagreement(found, each) is None}
    assert agreeing == ({precision} if precision else set())


def test_a_disagreement_names_both_and_the_line_to_change():
    problem = disagreement(read({"quant_method": "gptq", "bits": 4}), "int8")

    assert problem is not None
    assert (
        problem.what == "the checkpoint is quantised (gptq, bits: 4), which precision: int8 is not"
    )
    assert problem.where == "precision"
    assert problem.remedy.startswith("use precision: int4")


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": {"quant_method": "awq", "bits": 4}},
        {"compression_config": groups({"num_bits": 4, "type": "int"})},
        {"text_config": {"quantization_config": {"quant_method": "awq", "bits": 4}}},
    ],
)
def test_the_entry_is_found_wherever_config_json_has_it(tmp_path: Path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert of_model(str(tmp_path), None).precision == "int4"


@pytest.mark.parametrize(
    ("name", "content", "precision"),
    [
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}, "fp8"),
        ("quantize_config.json", {"bits": 8}, "int8"),
        ("quant_config.json", {"w_bit": 4}, "int4"),
    ],
)
def test_older_tools_write_a_file_of_their_own(tmp_path: Path, name, content, precision):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(content))

    assert of_model(str(tmp_path), None).precision == precision


def test_plain_models_say_nothing(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")

    assert of_model(str(tmp_path), None) is None
    assert of_model("random:tiny-llama", None) is None
    assert of_model(str(tmp_path / "nowhere"), None) is None


@pytest.mark.parametrize(
    ("stated", "precision", "where"),
    [
        ({"quant_method": "awq", "bits": 4}, "bf16", "precision"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int8", "precision"),
        ({"quant_method": "awq", "bits": 4}, "int4", "model"),
    ],
)
def test_pytorch_takes_a_checkpoint_of_bitsandbytes_for_what_it_is(
    tmp_path: Path, stated, precision, where
):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": stated}))
    config = ExperimentConfig(
        model=str(tmp_path), backend="pytorch", precision=precision, pytorch={"device": "cpu"}
    )

    about = {
        problem.where
        for problem in PyTorchBackend().problems(config)
        if stated["quant_method"] in problem.what
    }
    assert where in about
