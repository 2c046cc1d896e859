"""What PyTorch counts of one forward pass, by what it was done for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

_RECURRENT = ("mamba", "linear_attn", "mixer")
"""Modules whose batched products are those of a recurrence."""


class Counted(NamedTuple):
    """Operations of one pass.

    Attributes:
        matrices: Products with weights.
        attention: Products of queries, keys and values.
        recurrence: What is counted of recurrences and convolutions, which are done in many forms.
    """

    matrices: int
    attention: int
    recurrence: int


def count(model: Any, ids: Any, past: Any = None, **more: Any) -> tuple[Counted, Any]:
    """Count a pass over some tokens that gives one row of logits each.

    Args:
        model: With eager attention, and experts one after another.
        ids: Tokens, shape (batch, tokens).
        past: Cache of earlier tokens, which the pass extends.
        more: Further arguments of the model.

    Returns:
        The operations, and the cache.
    """
    parameters = inspect.signature(model.forward).parameters
    name = "cache_params" if "cache_params" in parameters else "past_key_values"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        given = model(ids, **{name: past}, use_cache=True, logits_to_keep=1, **more)
    by_module = counter.get_flop_counts()
    batched, whole = _batched(by_module["Global"]), sum(by_module["Global"].values())
    experts = sum(_within(by_module, ("experts",)))
    recurrent = sum(_within(by_module, _RECURRENT))
    convolved = sum(n for op, n in by_module["Global"].items() if "convolution" in str(op))
    attention = batched - experts - recurrent
    recurrence = recurrent + convolved
    return Counted(whole - attention - recurrence, attention, recurrence), given[name]


def _within(by_module: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[int]:
    for name, operators in by_module.items():
        if name.rpartition(".")[2] in names:
            yield _batched(operators)


def _batched(operators: Mapping[Any, int]) -> int:
    return sum(n for op, n in operators.items() if "bmm" in str(op))
