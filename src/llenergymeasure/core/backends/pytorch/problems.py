"""What stops a configuration of the PyTorch backend here, found before anything loads."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from llenergymeasure.config.backend_configs import PyTorchConfig
from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import QUANTISED, RANDOM_PREFIX
from llenergymeasure.core.allowance import allowance
from llenergymeasure.core.backends.shared.problems import (
    adapter_problems,
    context_problems,
    kind_problems,
    passthrough_problems,
    room_problems,
)
from llenergymeasure.core.models import quantised, sources
from llenergymeasure.core.models.hub import ADAPTER_FILE
from llenergymeasure.exceptions import Problem
from llenergymeasure.units import MIB

_ATTENTION_PACKAGES = {
    "flash_attention_2": ("flash_attn", "pip install flash-attn --no-build-isolation"),
    "flash_attention_3": ("flash_attn_interface", "pip install flash-attn-3"),
}
# The strategies that accelerate chooses a placement by; a single device goes to pytorch.device.
_DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
# Arguments of from_pretrained that fields of the configuration already decide.
_DECIDED_ELSEWHERE = {
    "dtype": "precision",
    "quantization_config": "precision",
    "torch_dtype": "precision",
    "attn_implementation": "pytorch.attn_implementation",
    "device_map": "pytorch.device_map",
    "revision": "revision",
    "trust_remote_code": "trust_remote_code",
}
_OURS = dict.fromkeys(
    ("output_loading_info", "ignore_mismatched_sizes"),
    "what of a checkpoint does not fit the model is refused by name",
)


def found(config: ExperimentConfig, section: PyTorchConfig, device: str) -> list[Problem]:
    """List every problem.

    Args:
        config: What to measure.
        section: Its pytorch section, or the defaults.
        device: Where the model would be loaded.
    """
    return [
        *_device_problems(section),
        *_placement_problems(config, section),
        *_checkpoint_problems(config),
        *kind_problems(config),
        *context_problems(config),
        *_room_problems(config, section, device),
        *_quantisation_problems(config, device),
        *_attention_problems(section, device),
        *(_lacking("LoRA", "peft", "lora", "pip install peft") if config.lora else ()),
        *adapter_problems(config),
        *_process_problems(config, section, device),
        *passthrough_problems(config, _DECIDED_ELSEWHERE, _OURS),
    ]


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
            kind="hardware",
        )
        return
    _, _, number = (section.device or "").partition(":")
    if number and int(number) >= torch.cuda.device_count():
        yield Problem(
            f"there is no {section.device}; PyTorch sees {torch.cuda.device_count()} device(s)",
            field,
            "choose a smaller number, or check CUDA_VISIBLE_DEVICES",
            kind="hardware",
        )


def _placement_problems(config: ExperimentConfig, section: PyTorchConfig) -> Iterator[Problem]:
    if section.device_map not in (None, *_DEVICE_MAPS):
        yield Problem(
            f"'{section.device_map}' is no way to spread layers",
            "pytorch.device_map",
            f"use one of {', '.join(_DEVICE_MAPS)}; a single device goes to pytorch.device",
        )
    if section.device_map is not None and config.model.startswith(RANDOM_PREFIX):
        yield Problem(
            "random weights are made on one device",
            "pytorch.device_map",
            "remove it, or use a model with real weights",
        )


def _lacking(what: str, package: str, field: str, install: str) -> Iterator[Problem]:
    if importlib.util.find_spec(package) is None:
        yield Problem(f"{what} needs the package {package}, which is not installed", field, install)


def _checkpoint_problems(config: ExperimentConfig) -> Iterator[Problem]:
    if config.model.startswith(RANDOM_PREFIX):
        return  # of a directory only the shape is taken
    stated = quantised.of_model(config.model, config.revision)
    path = sources.resolve(config.model).path
    # Of a name too long for a file Path raises; what is wrong with the model is told elsewhere.
    if path is not None and os.path.isfile(path / ADAPTER_FILE):  # noqa: PTH113
        yield Problem(
            f"'{config.model}' holds an adapter ({ADAPTER_FILE}), which transformers would put on "
            "the model without a word",
            "model",
            "move the adapter to a directory of its own, and set lora.adapter_path to it",
            kind="model",
        )
    if problem := quantised.disagreement(stated, config.precision):
        yield problem
    elif stated is not None and stated.method != "bitsandbytes":
        yield Problem(
            f"the checkpoint is quantised ({stated}); this backend loads those of bitsandbytes",
            "model",
            "name the unquantised model, which is quantised while loading, or use backend: vllm",
        )


def _room_problems(
    config: ExperimentConfig, section: PyTorchConfig, device: str
) -> Iterator[Problem]:
    """Hold the weights against the RAM, or against the GPU that each copy of them goes to."""
    if device == "cpu":
        copies, there = section.num_processes or 1, allowance()
        yield from room_problems(config, there.memory_mb, there.memory_owner, copies)
    elif section.device_map is None:  # which may spread them over RAM and disk as well
        import torch

        _, _, number = device.partition(":")
        if int(number or 0) < torch.cuda.device_count():
            board = torch.cuda.get_device_properties(int(number or 0))
            yield from room_problems(config, board.total_memory / MIB, board.name)


def _quantisation_problems(config: ExperimentConfig, device: str) -> Iterator[Problem]:
    if config.precision not in QUANTISED:
        return
    if config.model.startswith(RANDOM_PREFIX):
        yield Problem(
            f"random weights cannot be loaded as {config.precision} by this backend",
            "precision",
            "use precision: bf16, or a model with real weights",
        )
    if device == "cpu":
        yield Problem(
            f"{config.precision} needs a CUDA device (bitsandbytes)",
            "precision",
            "use precision: bf16 or fp32 on this machine",
        )
    install = "pip install bitsandbytes"
    yield from _lacking(config.precision, "bitsandbytes", "precision", install)


def _attention_problems(section: PyTorchConfig, device: str) -> Iterator[Problem]:
    wanted, field = section.attn_implementation or "", "pytorch.attn_implementation"
    if wanted not in _ATTENTION_PACKAGES:
        return
    if device == "cpu":
        yield Problem(f"{wanted} runs on CUDA devices only", field, "use sdpa or eager on the CPU")
    package, install = _ATTENTION_PACKAGES[wanted]
    yield from _lacking(wanted, package, field, install)


def _process_problems(
    config: ExperimentConfig, section: PyTorchConfig, device: str
) -> Iterator[Problem]:
    count = section.num_processes or 1
    if count == 1:
        return
    field = "pytorch.num_processes"
    if section.device_map is not None:
        yield Problem(
            "device_map spreads one model over all GPUs, and leaves none for other processes",
            field,
            "remove pytorch.device_map or pytorch.num_processes",
        )
    if ":" in device:
        yield Problem(
            f"{count} processes cannot share {device}: each takes a device of its own",
            field,
            "remove pytorch.device or pytorch.num_processes",
        )
    if count > (prompts := config.n or MOST_PROMPTS):
        yield Problem(
            f"{count} processes have only {prompts} prompts to share",
            field,
            f"set num_processes: {prompts} or less, or raise n",
        )
    yield from _too_many_processes(count, device)


def _too_many_processes(count: int, device: str) -> Iterator[Problem]:
    import torch

    if device == "cpu":
        allowed = allowance()
        there, remedy = allowed.threads, ""
        what = "CPU cores there are" if there == allowed.cpus else "CPU cores that a quota allows"
    else:
        there, what = torch.cuda.device_count(), "GPUs there are"
        remedy = ", or check CUDA_VISIBLE_DEVICES"
    if 0 < there < count:  # without any GPU, that is the problem
        yield Problem(
            f"num_processes: {count} is more than the {what} ({there})",
            "pytorch.num_processes",
            f"set num_processes: {there} or less{remedy}",
            kind="hardware",
        )
