"""Hugging Face transformers on PyTorch: loading, and what a machine must have for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llenergymeasure.config.backend_configs import PyTorchConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.pytorch_engine import LoadedParts, PyTorchEngine
from llenergymeasure.core.backends.pytorch_errors import translated
from llenergymeasure.core.models import sources, tokenizers
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.exceptions import Problem

_DTYPES = {"fp32": "float32", "fp16": "float16"}  # everything else computes in bfloat16
_QUANTISED = ("int8", "int4")
_ATTENTION_PACKAGES = {
    "flash_attention_2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": ("flash_attn_interface", "pip install flash-attn-3"),
}


class PyTorchBackend:
    """Loads a causal language model through transformers."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports torch, loads nothing."""
        section = _section(config)
        return [
            *_device_problems(section),
            *_quantisation_problems(config, section),
            *_attention_problems(section),
            *_adapter_problems(config),
            *_draft_problems(config),
            *_process_problems(section),
        ]

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work, or the CPU."""
        section = _section(config)
        device = _device(section)
        if device == "cpu":
            return DeviceTarget("cpu")
        import torch

        count = torch.cuda.device_count()
        _, _, number = device.partition(":")
        used = range(count) if section.device_map else [int(number or 0)]
        return DeviceTarget("gpu", tuple(_uuid(torch, index) for index in used))

    def load(self, config: ExperimentConfig, cache_dir: Path) -> PyTorchEngine:
        """Load model, adapter and tokenizer.

        Raises:
            BackendError: Out of memory, or transformers cannot load it; the message names the
                field to change.
        """
        section = _section(config)
        device = _device(section)
        with translated("load", config):
            parts = _load_parts(config, section, device, cache_dir)
        return PyTorchEngine(config, device, parts)


def _section(config: ExperimentConfig) -> PyTorchConfig:
    return config.pytorch or PyTorchConfig()


def _device(section: PyTorchConfig) -> str:
    """Choose the device: the one asked for, else CUDA where there is a GPU."""
    if section.device is not None:
        return section.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _uuid(torch: Any, index: int) -> str:
    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def _load_parts(
    config: ExperimentConfig, section: PyTorchConfig, device: str, cache_dir: Path
) -> LoadedParts:
    import torch

    torch.manual_seed(config.random_seed)
    source = sources.resolve(config.model, config.revision)
    path = sources.reference(source, cache_dir)
    model = _load_model(config, section, device, source.kind, path)
    if config.lora is not None:
        model = _with_adapter(model, config)
    if section.torch_compile:
        model.compile(dynamic=True)
    tokenizer = tokenizers.load_tokenizer(
        path, config.revision, config.trust_remote_code, config.apply_chat_template
    )
    return LoadedParts(model.eval(), tokenizer, _load_draft(config, section, device, cache_dir))


def _load_model(
    config: ExperimentConfig, section: PyTorchConfig, device: str, kind: str, path: str
) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {
        "dtype": getattr(torch, _DTYPES.get(config.precision, "bfloat16")),
        "attn_implementation": section.attn_implementation or "sdpa",
        "trust_remote_code": config.trust_remote_code,
        **(config.passthrough_kwargs or {}),
    }
    if kind == "random":
        shape = AutoConfig.from_pretrained(path, trust_remote_code=config.trust_remote_code)
        with torch.device(device):
            return AutoModelForCausalLM.from_config(shape, **options)
    if config.precision in _QUANTISED:
        options["quantization_config"] = _quantisation(config.precision)
    return AutoModelForCausalLM.from_pretrained(
        path, revision=config.revision, device_map=section.device_map or device, **options
    )


def _quantisation(precision: str) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _with_adapter(model: Any, config: ExperimentConfig) -> Any:
    from peft import PeftModel

    assert config.lora is not None
    adapter = str(config.lora.adapter_path or config.lora.adapter_id)
    adapted = PeftModel.from_pretrained(model, adapter)
    return adapted.merge_and_unload() if config.lora.merge_weights else adapted


def _load_draft(
    config: ExperimentConfig, section: PyTorchConfig, device: str, cache_dir: Path
) -> Any | None:
    if config.decoder.draft_model is None:
        return None
    source = sources.resolve(config.decoder.draft_model, None)
    path = sources.reference(source, cache_dir)
    plain = config.model_copy(update={"revision": None, "passthrough_kwargs": None})
    return _load_model(plain, section, device, source.kind, path).eval()


def _device_problems(section: PyTorchConfig) -> Iterator[Problem]:
    wants_cuda = (section.device or "").startswith("cuda") or section.device_map is not None
    if not wants_cuda:
        return
    import torch

    field = "pytorch.device" if section.device else "pytorch.device_map"
    if not torch.cuda.is_available():
        yield Problem(
            "PyTorch sees no CUDA device",
            field,
            f"remove {field} to run on the CPU, or install a CUDA build of torch and a driver",
        )
        return
    _, _, number = (section.device or "").partition(":")
    if number and int(number) >= torch.cuda.device_count():
        yield Problem(
            f"there is no {section.device}; PyTorch sees {torch.cuda.device_count()} device(s)",
            field,
            "choose a smaller number, or check CUDA_VISIBLE_DEVICES",
        )


def _quantisation_problems(config: ExperimentConfig, section: PyTorchConfig) -> Iterator[Problem]:
    if config.precision not in _QUANTISED:
        return
    if config.model.startswith("random:"):
        yield Problem(
            f"random weights cannot be loaded as {config.precision} by this backend",
            "precision",
            "use precision: bf16, or a model with real weights",
        )
    if _device(section) == "cpu":
        yield Problem(
            f"{config.precision} needs a CUDA device (bitsandbytes)",
            "precision",
            "use precision: bf16 or fp32 on this machine",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        yield Problem(
            f"{config.precision} needs the package bitsandbytes, which is not installed",
            "precision",
            "pip install bitsandbytes",
        )


def _attention_problems(section: PyTorchConfig) -> Iterator[Problem]:
    wanted = _ATTENTION_PACKAGES.get(section.attn_implementation or "")
    if wanted is None:
        return
    module, install = wanted
    if _device(section) == "cpu":
        yield Problem(
            f"{section.attn_implementation} runs on CUDA devices only",
            "pytorch.attn_implementation",
            "use sdpa or eager on the CPU",
        )
    if importlib.util.find_spec(module) is None:
        yield Problem(
            f"{section.attn_implementation} needs the package {module}, which is not installed",
            "pytorch.attn_implementation",
            install,
        )


def _adapter_problems(config: ExperimentConfig) -> Iterator[Problem]:
    if config.lora is None:
        return
    if importlib.util.find_spec("peft") is None:
        yield Problem(
            "LoRA needs the package peft, which is not installed", "lora", "pip install peft"
        )
    path = config.lora.adapter_path
    if path is not None and not (Path(path).expanduser() / "adapter_config.json").is_file():
        yield Problem(
            f"'{path}' holds no adapter_config.json",
            "lora.adapter_path",
            "name the directory that peft's save_pretrained wrote",
        )


def _draft_problems(config: ExperimentConfig) -> list[Problem]:
    if config.decoder.draft_model is None:
        return []
    found = sources.model_problems(config.decoder.draft_model, None)
    return [Problem(p.what, "decoder.draft_model", p.remedy) for p in found]


def _process_problems(section: PyTorchConfig) -> Iterator[Problem]:
    if (section.num_processes or 1) > 1:
        yield Problem(
            f"num_processes: {section.num_processes} is not part of this version",
            "pytorch.num_processes",
            "set num_processes: 1 or remove it",
        )
