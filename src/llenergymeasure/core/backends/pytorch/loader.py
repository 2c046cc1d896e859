"""Hugging Face transformers on PyTorch: which device, and how a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llenergymeasure.config.backend_configs import PyTorchConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import compute_dtype
from llenergymeasure.core.allowance import allowance
from llenergymeasure.core.backends.protocol import Rank
from llenergymeasure.core.backends.pytorch import problems
from llenergymeasure.core.backends.pytorch.engine import (
    PyTorchEngine,
    generating_model,
    translated,
)
from llenergymeasure.core.backends.shared.errors import check_fit
from llenergymeasure.core.backends.shared.problems import adapter_name
from llenergymeasure.core.models import sources, tokenizers
from llenergymeasure.core.models.counted import count
from llenergymeasure.core.models.tokenizers import end_tokens
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import Problem

_BITSANDBYTES: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "int4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
    },
}

# Buffers that older versions of transformers kept in checkpoints, and that are computed: rotary
# frequencies, positions, causal masks. What bitsandbytes keeps lies beside the weights it is of.
_COMPUTED = re.compile(
    r"(inv_freq|(cos|sin)_cached|position_ids|(attn|attention)\.(bias|masked_bias)|causal_mask)$"
    r"|\.weight\.\w+|\.(SCB|weight_format)$"
)
# Of some checkpoints for images or sound, transformers' causal class takes the language model alone
# (Llama 4, Llama 3.2 Vision, Qwen 3.5).
_TOWER = re.compile(r"(^|\.)(vision|visual|audio|multi_modal)\w*\.")


class Loaded(NamedTuple):
    """A model, and what the loader did.

    Attributes:
        model: The model.
        weights: Where all of its weights are from.
    """

    model: Any
    weights: Literal["pretrained", "random"]


class PyTorchBackend:
    """Loads a causal language model through transformers."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration here; imports torch, loads nothing."""
        section = _section(config)
        return problems.found(config, section, _device(section))

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Name the GPUs that will do the work, or the CPU."""
        section = _section(config)
        device = _device(section)
        if device == "cpu":
            return DeviceTarget("cpu")
        import torch

        count = torch.cuda.device_count()
        _, _, number = device.partition(":")
        first, wanted = int(number or 0), section.num_processes or 1
        used = range(count) if section.device_map else range(first, first + wanted)
        uuids = (torch.cuda.get_device_properties(index).uuid for index in used)
        return DeviceTarget("gpu", tuple(f"GPU-{uuid}" for uuid in uuids))

    def ranks(self, config: ExperimentConfig) -> tuple[Rank, ...]:
        """Give each process a GPU of its own by UUID, or an even share of the CPU threads.

        Threads are as many as PyTorch takes, or a quota on CPU time allows without holding back.
        """
        section = _section(config)
        count = section.num_processes or 1
        if count == 1:
            return (Rank(config, {}),)
        if uuids := self.target(config).gpu_uuids:
            alone = _with_section(config, num_processes=None)
            return tuple(Rank(alone, {"CUDA_VISIBLE_DEVICES": uuid}) for uuid in uuids)
        import torch

        # PyTorch goes by the CPUs it may run on, and knows of no quota.
        usual = min(torch.get_num_threads(), allowance().threads)
        threads = section.num_threads or max(1, usual // count)
        alone = _with_section(config, num_processes=None, num_threads=threads)
        return (Rank(alone, {"OMP_NUM_THREADS": str(threads)}),) * count

    def load(self, config: ExperimentConfig, cache_dir: Path) -> PyTorchEngine:
        """Load model, adapter and tokenizer.

        Raises:
            BackendError: Out of memory, or transformers cannot load it; the message names the
                field to change.
        """
        import torch

        with translated("load", config):
            torch.manual_seed(config.random_seed)
            source = sources.resolve(config.model, config.revision)
            path = sources.reference(source, cache_dir)
            model, weights = _load_model(config, source.kind, path)
            draft, counted = None, count(model)
            if adapter := adapter_name(config):
                merged = config.lora is not None and config.lora.merge_weights
                model = _with_adapter(model, adapter, merged=merged)
            if _section(config).torch_compile:
                generating_model(model).compile(dynamic=True)
            tokenizer = tokenizers.load_tokenizer(
                path, config.revision, config.trust_remote_code, config.apply_chat_template
            )
            if config.decoder.draft_model is not None:
                drafts = sources.resolve(config.decoder.draft_model, None)
                plain = config.model_copy(update={"revision": None, "passthrough_kwargs": None})
                reference = sources.reference(drafts, cache_dir)
                draft = _load_model(plain, drafts.kind, reference).model.eval()
            ends = end_tokens(source, tokenizer)
        return PyTorchEngine(
            config, model.eval(), tokenizer, draft, ends, weights=weights, counted=counted
        )


def _section(config: ExperimentConfig) -> PyTorchConfig:
    return config.pytorch or PyTorchConfig()


def _with_section(config: ExperimentConfig, **changes: int | None) -> ExperimentConfig:
    return config.model_copy(update={"pytorch": _section(config).model_copy(update=changes)})


def _device(section: PyTorchConfig) -> str:
    """Choose the device: the one asked for, else CUDA where there is a GPU."""
    if section.device is not None:
        return section.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_model(config: ExperimentConfig, kind: str, path: str) -> Loaded:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    section = _section(config)
    device = _device(section)
    options: dict[str, Any] = {
        "dtype": getattr(torch, compute_dtype(config.precision)),
        "trust_remote_code": config.trust_remote_code,
    }
    if section.attn_implementation is not None:  # else transformers knows what the model has
        options["attn_implementation"] = section.attn_implementation
    extra = config.passthrough_kwargs or {}
    if kind == "random":
        # As from_pretrained does it: what the configuration knows goes there, the rest to the model
        shape, rest = AutoConfig.from_pretrained(
            path, trust_remote_code=config.trust_remote_code, return_unused_kwargs=True, **extra
        )
        torch.manual_seed(config.random_seed)  # a shape and a seed are one model, whoever asks
        with torch.device(device):
            return Loaded(AutoModelForCausalLM.from_config(shape, **options, **rest), "random")
    if config.precision in _BITSANDBYTES:
        options["quantization_config"] = BitsAndBytesConfig(**_BITSANDBYTES[config.precision])
    # What does not fit is told here, by name, so that transformers need not stop at it.
    model, info = AutoModelForCausalLM.from_pretrained(
        path,
        revision=config.revision,
        device_map=section.device_map or device,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **options,
        **extra,
    )
    _check_weights(path, model, info)
    return Loaded(model, "pretrained")


def _check_weights(path: str, model: Any, info: Mapping[str, Iterable[Any]]) -> None:
    """Make sure that a checkpoint and the model it was loaded into are the same.

    Args:
        path: The checkpoint.
        model: The model.
        info: What transformers says of it (``output_loading_info``): it draws what is missing at
            random, and leaves out what has no place.

    Raises:
        BackendError: They are not.
    """
    resized = {
        f"{name} ({_times(had)} for {_times(has)})" for name, had, has in info["mismatched_keys"]
    }
    check_fit(
        f"the weights of '{path}' do not fit its config.json",
        {
            "missing": _kept(info["missing_keys"], model),
            "without a place in the model": {
                name for name in _kept(info["unexpected_keys"], model) if not _TOWER.search(name)
            },
            "of another size": resized,
        },
        "name a checkpoint that was saved with this config.json: other names, layers that were "
        "left out, or another num_hidden_layers make this; random:DIRECTORY measures its shape",
    )


def _kept(names: Iterable[str], model: Any) -> set[str]:
    """Leave out what is computed, and the layers behind the last that only draft further tokens."""
    shape = model.config.get_text_config()
    first, count = (
        getattr(shape, field, None) or 0
        for field in ("num_hidden_layers", "num_nextn_predict_layers")
    )
    further = tuple(f".layers.{first + number}." for number in range(count))
    found = {name for name in names if not _COMPUTED.search(name)}
    return {name for name in found if not any(layer in f".{name}" for layer in further)}


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _with_adapter(model: Any, adapter: str, *, merged: bool) -> Any:
    """Put an adapter on a model.

    Raises:
        BackendError: It is one of another model: peft leaves out what finds no place, in silence.
    """
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

    # peft would keep the adapter in fp32 beside half-precision weights; `precision` decides
    adapted = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    placed, stored = (
        {name for name in state if "lora_" in name}
        for state in (
            get_peft_model_state_dict(adapted, save_embedding_layers=False),
            load_peft_weights(adapter, "cpu"),
        )
    )
    check_fit(
        f"the adapter '{adapter}' does not fit the model",
        {"missing": placed - stored, "without a place in the model": stored - placed},
        "check that lora names an adapter of this model",
    )
    return adapted.merge_and_unload() if merged else adapted
