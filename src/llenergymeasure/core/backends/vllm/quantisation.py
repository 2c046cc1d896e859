"""Whether the installed vLLM can give an experiment the quantised precision that it asks for."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import QUANTISED, RANDOM_PREFIX
from llenergymeasure.config.plugins import installed_version
from llenergymeasure.core.backends.vllm import FACTS
from llenergymeasure.core.models import quantised, sources
from llenergymeasure.exceptions import Problem

# What vLLM computes on x86 CPUs: docs.vllm.ai, "Supported Hardware" of "Quantization".
_ON_CPU = ("awq", "auto_awq", "gptq", "auto_gptq", "compressed-tensors")
_TABLE = Path("model_executor", "layers", "quantization", "__init__.py")
_NAME = "QuantizationMethods"

_WHILE_LOADING = ("fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "bitsandbytes")
"""Methods that take plain weights; the others need a checkpoint of their own."""

Known = Sequence[str] | None


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


def quantisation_problems(
    config: ExperimentConfig, section: VLLMConfig, *, on_cpu: bool, known: Known
) -> Iterator[Problem]:
    """List what stops a quantised precision, at most one problem.

    Args:
        config: What to measure.
        section: Its vllm section, or the defaults.
        on_cpu: Whether vLLM computes on the CPU.
        known: What :func:`known_methods` gave.
    """
    stated = quantised.of_model(config.model, config.revision)
    if problem := quantised.disagreement(stated, config.precision):
        yield problem
        return
    if config.precision not in QUANTISED:
        return
    method = section.quantization or (stated.method if stated else None)
    on_hub = sources.resolve(config.model).kind == "hub"  # where not every file is here yet
    reads_checkpoints = section.quantization is not None and method not in _WHILE_LOADING
    if method is not None and known is not None and method not in known:
        yield _unknown(config, method, known, in_file=section.quantization is None)
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
