"""Directories of models with anything in their files, as the command meets them."""

from __future__ import annotations

import json
from random import Random

from llenergymeasure.core.models import catalogue, tokenizer_files
from tests.support.fuzz import Case
from tests.support.mangled import mangled

VARIANTS: tuple[dict[str, object], ...] = (
    {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
    {"model_type": "gpt_neo", "attention_types": [[["global", "local"], 2]]},
    {
        "model_type": "mamba2",
        "state_size": 16,
        "expand": 2,
        "num_heads": 8,
        "n_groups": 1,
        "conv_kernel": 4,
    },
    {
        "model_type": "gemma4_text",
        "layer_types": ["sliding_attention", "full_attention"],
        "per_layer_config": {"0": {"hidden_size": 8}},
    },
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"quantization_config": {"config_groups": {"a": {"weights": {"num_bits": 8}}}}},
)
"""What families and quantisations add to a configuration."""
_TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
    "added_tokens": [{"content": "<s>", "id": 2}],
}
_HEAD = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})


def files_of_a_model(variant: dict[str, object]) -> dict[str, bytes]:
    """Give the files of a directory, by name, with some entries of its configuration changed."""
    config = {**catalogue.config("tiny-llama"), **variant}
    settings = tokenizer_files.packaged() / "tokenizer_config.json"
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer_config.json": settings.read_bytes(),
        "tokenizer.json": json.dumps(_TOKENIZER).encode(),
        "chat_template.jinja": b"{{ messages[0]['content'] }}",
        "adapter_config.json": b'{"r": 8, "base_model_name_or_path": "m"}',
        "model.safetensors": len(_HEAD).to_bytes(8, "little") + _HEAD.encode() + bytes(8),
    }


def model_directory(random: Random) -> Case:
    """Make a directory of a model, and ask for the plan of measuring it."""
    files = files_of_a_model(random.choice(VARIANTS))
    del files["adapter_config.json"], files["chat_template.jinja"]
    name = random.choice(("config.json", "config.json", *files))
    files[name] = mangled(files[name], random)
    named = random.choice(("./model", "random:./model"))
    arguments = ("run", "-m", named, "-b", "pytorch", "--energy-backend", "none", "--dry-run")
    return Case(arguments, {f"model/{name}": content for name, content in files.items()})
