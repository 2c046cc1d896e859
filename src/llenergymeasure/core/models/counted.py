"""What a loaded model holds, counted on its own modules, and whether its shape agrees with that.

A model is whatever has ``named_modules`` with parameters of torch, be it of transformers or of
vLLM; no engine is imported.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from typing import Any, NamedTuple

from llenergymeasure.core.models.architecture import ModelArchitecture

TOLERANCE = 1e-3
"""Largest difference of formulas and loaded model, as a share, that does not speak against them."""

_SIDES = (("in_features", "out_features"), ("input_size", "output_size"))  # of torch, of vLLM
_OF_PACKING = ("scale", "zero", "absmax", "g_idx")
_EXPERTS = ("num_experts", "moe_num_experts", "global_num_experts")
_VISITED = ("top_k", "num_experts_per_tok")
_CONFIGURED = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_CONFIGURED_VISITED = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_top_k",
    "moe_topk",
    "moe_k",
)
_LISTED = re.compile(r"(.*\bexperts)\.\d+(?:\.|$)")
_LEVELS = 3  # from experts up to the block that routes to them


class Counted(NamedTuple):
    """Parameters of a loaded model; one that several modules share counts once.

    Attributes:
        total: All of them, towers for images or sound included.
        text: Those of the language model.
        active: Those of the language model that take part in one token: all but the experts it does
            not visit. ``None`` where the model does not tell how many it visits.
    """

    total: int
    text: int
    active: int | None


class Routing(NamedTuple):
    """Experts that share the parameters of a module.

    Attributes:
        experts: How many there are.
        visited: How many a token visits; ``None`` where that is not told.
    """

    experts: int
    visited: int | None


def count(model: Any) -> Counted | None:
    """Count the parameters of a loaded model; LoRA adapters on it are left out.

    A matrix that is kept packed (int4, int8) counts by the sides it stands for, and what belongs to
    the packing (scales, zero points) does not count.

    Returns:
        The counts; ``None`` where weights are packed in a way that is not known here.
    """
    language = _language_modules(model)
    seen: set[object] = set()
    total = text = 0
    routed: Counter[Routing] = Counter()
    for path, module in model.named_modules():
        own = 0 if ".lora_" in path else elements(module, seen)
        if own is None:
            return None
        total += own
        if language is None or module in language:
            text += own
            if own and (routing := routing_of(model, path)) is not None:
                routed[routing] += own
    idle = 0
    for (experts, visited), routed_elements in routed.items():
        if visited is None or visited > experts:
            return Counted(total, text, None)
        idle += routed_elements * (experts - visited) // experts
    untold = not routed and _number(_text_config(model), _CONFIGURED) not in (None, 1)
    return Counted(total, text, None if untold else text - idle)


def elements(module: Any, seen: set[object]) -> int | None:
    """Count the elements of a module's own parameters, those of the modules inside it left out.

    Args:
        module: The module.
        seen: Memory of parameters that count already; that of this module is added.

    Returns:
        The number; ``None`` where they are packed in a way that is not known here.
    """
    parameters = dict(module.named_parameters(recurse=False))
    own = {}
    for name, one in parameters.items():
        # Elsewhere there is no address: on the meta device, and where a kernel took the weights.
        placed = type(one).__name__ == "Parameter" and not one.is_meta and one.numel()
        key = (one.data_ptr(), one.shape) if placed else id(one)
        if key not in seen:
            seen.add(key)
            own[name] = one
    if hasattr(module, "org_vocab_size"):  # vLLM pads the rows of embeddings
        return int(module.org_vocab_size * module.embedding_dim) if "weight" in own else 0
    if getattr(getattr(module, "moe_config", None), "intermediate_pad", None):
        return None  # nor are the paddings of its experts known
    # GPTQ and AWQ keep matrices as buffers.
    kept = parameters or dict(module.named_buffers(recurse=False))
    plain = all(one.is_floating_point() and one.element_size() > 1 for one in kept.values())
    if not plain or not all(one.numel() for one in kept.values()):
        for names in _SIDES:
            rows, columns = (getattr(module, name, None) for name in names)
            if rows and columns:
                bias = kept.get("bias")
                return int(rows * columns + (0 if bias is None else bias.numel()))
        own = {k: one for k, one in own.items() if not any(word in k for word in _OF_PACKING)}
    if not all(one.is_floating_point() for one in own.values()):
        return None
    return sum(int(one.numel()) for one in own.values())


def routing_of(model: Any, path: str) -> Routing | None:
    """Tell among how many experts the parameters of a module are shared out, and who visits them.

    Experts are a list of modules by that name, or a module whose parameters lead with as many rows
    as it says it has experts. How many of them a token visits is told by the block around them, or
    by the configuration.

    Returns:
        Both; ``None`` for a module that every token passes through.
    """
    module = model.get_submodule(path)
    if listed := _LISTED.match(path):
        experts: int | None = len(model.get_submodule(listed[1]))
    elif "expert" in type(module).__name__.lower():
        experts = _number(module, _EXPERTS)
        leading = [one.shape[0] for one in module.parameters(recurse=False) if one.dim()]
        if experts is not None and any(size % experts for size in leading):
            return None
    else:
        return None
    if experts is None:
        return None
    block = listed[1] if listed else path
    for _ in range(_LEVELS):
        around = model.get_submodule(block)
        for one in (around, *around.children()):
            if visited := _number(one, _VISITED):
                return Routing(experts, visited)
        block = block.rpartition(".")[0]
    return Routing(experts, _number(_text_config(model), _CONFIGURED_VISITED))


def doubt(architecture: ModelArchitecture | None, counted: Counted | None) -> str | None:
    """Say why figures that follow from a model's shape cannot be trusted.

    Args:
        architecture: Its shape; ``None`` where that is not understood.
        counted: What the loaded model holds; ``None`` where the engine does not tell.

    Returns:
        The reason, or ``None`` where nothing speaks against them.
    """
    if architecture is None:
        return "its config.json describes no transformer that is known here"
    if architecture.doubt is not None or counted is None:
        return architecture.doubt
    for what, read, held in (
        ("parameters", architecture.parameters, counted.text),
        ("active parameters", architecture.parameters_active, counted.active),
    ):
        if held is not None and abs(read - held) > TOLERANCE * held:
            return (
                f"its config.json (model type '{architecture.model_type}') reads as {read:,} "
                f"{what}, and the loaded model has {held:,}"
            )
    return None


def _language_modules(model: Any) -> set[Any] | None:
    """Give the modules of the language model; ``None`` where a model has no others."""
    if _text_config(model) is getattr(model, "config", None):
        return None
    if hasattr(model, "get_language_model"):  # vLLM
        with contextlib.suppress(NotImplementedError):
            return {*model.get_language_model().modules()}
    if not hasattr(model, "get_decoder"):
        return None
    head = model.get_output_embeddings()
    return {*model.get_decoder().modules(), *(head.modules() if head is not None else ())}


def _text_config(model: Any) -> Any:
    config = getattr(model, "config", None)
    return getattr(config, "text_config", None) or config


def _number(holder: Any, names: tuple[str, ...]) -> int | None:
    """Give the first of these attributes that is a number above 0."""
    found = (getattr(holder, name, None) for name in names)
    return next((one for one in found if type(one) is int and one > 0), None)
