"""What stops a configuration, whatever the engine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.config.names import WEIGHT_BITS, without_tilde
from llenergymeasure.core.models import loadable, sources
from llenergymeasure.core.models.config_json import ConfigReader, stated_in
from llenergymeasure.core.models.hub import ADAPTER_FILE, Hub
from llenergymeasure.core.models.sources import plain_path
from llenergymeasure.exceptions import Problem
from llenergymeasure.units import MIB

_PLAIN = ("F64", "F32", "F16", "BF16")
"""Types of tensors that are loaded as ``precision`` says, element by element."""


def least_context(config: ExperimentConfig) -> int:
    """Count the tokens of the shortest prompt that there may be, with its answer."""
    if isinstance(config.dataset, SyntheticDataset):
        return config.dataset.synthetic.input_len + config.dataset.synthetic.output_len
    return config.max_new_tokens + 1


def kind_problems(
    config: ExperimentConfig, others: Collection[str] | None = ()
) -> Iterator[Problem]:
    """Find that a model, or the one that drafts for it, is none that continues text.

    Args:
        config: What to measure.
        others: Types that the engine takes beside the causal ones of transformers; ``None`` where
            nobody knows.
    """
    types = loadable.known_types()
    named = {"model": config.model, "decoder.draft_model": config.decoder.draft_model}
    for field, model in named.items():
        if types is None or model is None:
            continue
        source = sources.resolve(model, config.revision if field == "model" else None)
        problem = loadable.kind_problem(
            loadable.config_of(source), types, trusted=config.trust_remote_code, others=others
        )
        if problem is not None:
            what = f"'{model}': {problem.what}"
            where = field if problem.where == "model" else problem.where
            yield replace(problem, what=what, where=where, kind="model")


def context_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Find that the model holds no prompt; whether it holds each is known once they are tokens."""
    if config.passthrough_kwargs or config.has_prompt_file:
        return  # which may set the limit, or the length of each answer
    stated = loadable.config_of(sources.resolve(config.model, config.revision))
    limit = ConfigReader.of(stated).context_limit
    if limit is None or least_context(config) <= limit:
        return
    synthetic = isinstance(config.dataset, SyntheticDataset)
    inputs = least_context(config) - config.max_new_tokens
    prompt = f"{inputs} of every prompt" if synthetic else "at least one of a prompt"
    yield Problem(
        f"the model's context of {limit:,} tokens does not hold max_new_tokens: "
        f"{config.max_new_tokens} and {prompt}",
        "dataset.synthetic" if synthetic else "max_new_tokens",
        "lower output_len or input_len" if synthetic else "lower max_new_tokens",
        kind="model",
    )


def room_problems(
    config: ExperimentConfig, capacity_mb: float | None, owner: str, copies: float = 1
) -> Iterator[Problem]:
    """Find that the weights alone are more than the memory that they have to be in.

    Arguments of the engine's own are left to it: they may make a model smaller, or keep a part of
    it elsewhere.

    Args:
        config: What to measure.
        capacity_mb: What there is, MiB; ``None`` where unknown.
        owner: What has it, for the message.
        copies: How often it holds them; a part where several devices share them.
    """
    needed_bytes = None if config.passthrough_kwargs else least_weight_bytes(config)
    if needed_bytes is None or capacity_mb is None:
        return
    needed_mb = copies * needed_bytes / MIB
    if needed_mb > capacity_mb:
        yield Problem(
            f"the weights of '{config.model}' alone take {needed_mb:,.0f} MiB as "
            f"{config.precision}, and {owner} has {capacity_mb:,.0f} MiB",
            "model",
            "choose a smaller model or precision, or more or larger devices",
            kind="model",
        )


def least_weight_bytes(config: ExperimentConfig) -> float | None:
    """Count the bytes that the weights of a model take at least; ``None`` where that is unknown.

    From the tensors of its checkpoint, or from its shape where that is beyond doubt.
    """
    source = sources.resolve(config.model, config.revision)
    least_bits = WEIGHT_BITS[config.precision]
    if (plain := loadable.elements(source, _PLAIN)) is not None:
        return plain * least_bits / 8
    shape = sources.architecture_of(source)
    if shape is None or shape.doubt is not None:
        return None
    return shape.parameters * least_bits / 8


def length_problems(config: ExperimentConfig, field: str) -> Iterator[Problem]:
    """Find a limit of the context that holds no prompt with its answer.

    Args:
        config: What to measure.
        field: The field of the backend's section that sets the limit.
    """
    limit, needed = getattr(config.section, field), least_context(config)
    if limit is not None and limit < needed:
        yield Problem(
            f"{field}: {limit} is less than the {needed} tokens of a prompt with its answer",
            f"{config.backend}.{field}",
            f"set it to {needed} or more, or lower max_new_tokens",
        )


def adapter_directory(config: ExperimentConfig) -> Path | None:
    """Give the directory of the LoRA adapter, or ``None`` where none is named."""
    path = config.lora.adapter_path if config.lora else None
    return without_tilde(path) if path is not None else None


def adapter_name(config: ExperimentConfig) -> str | None:
    """Give the directory or the Hub id of the LoRA adapter, or ``None`` without one."""
    folder = adapter_directory(config)
    return plain_path(folder) if folder else config.lora.adapter_id if config.lora else None


def adapter_rank(config: ExperimentConfig) -> int | None:
    """Read the rank of a LoRA adapter, where its configuration is on this machine."""
    folder = adapter_directory(config)
    path = folder / ADAPTER_FILE if folder else None
    if config.lora is not None and config.lora.adapter_id is not None:
        path = Hub().cached(config.lora.adapter_id, ADAPTER_FILE, None)
    rank = stated_in(path).get("r")
    return rank if isinstance(rank, int) else None


def adapter_problems(
    config: ExperimentConfig, keeps_apart: str | None = None, *, from_hub: bool = True
) -> Iterator[Problem]:
    """Find a LoRA adapter that is not there, or that the engine cannot merge.

    Args:
        config: What to measure.
        keeps_apart: The engine's name where it merges no adapters.
        from_hub: Whether the engine fetches adapters itself.
    """
    if config.lora is None:
        return
    if config.lora.merge_weights and keeps_apart is not None:
        yield Problem(
            f"{keeps_apart} keeps an adapter beside the weights; it does not merge them",
            "lora.merge_weights",
            "remove it, or merge with peft's merge_and_unload and name the merged model",
        )
    if config.lora.adapter_id is not None and not from_hub:
        yield Problem(
            "the engine reads adapters from a directory, not from the Hub",
            "lora.adapter_id",
            f"hf download {config.lora.adapter_id} --local-dir DIR, and set lora.adapter_path: DIR",
        )
    folder = adapter_directory(config)
    if folder is not None and not os.path.isfile(folder / ADAPTER_FILE):  # noqa: PTH113
        yield Problem(
            f"'{config.lora.adapter_path}' holds no {ADAPTER_FILE}",
            "lora.adapter_path",
            "name the directory that peft's save_pretrained wrote",
        )


def passthrough_problems(
    config: ExperimentConfig, decided: Mapping[str, str], ours: Mapping[str, str] | None = None
) -> Iterator[Problem]:
    """Find arguments of the engine that must not be passed through.

    Args:
        config: What to measure.
        decided: Arguments that fields of the configuration decide, and which; ``name.entry`` is
            an entry of one that is a mapping.
        ours: Arguments that a measurement depends on, and why.
    """
    given = config.passthrough_kwargs or {}
    mappings = [(name, value) for name, value in given.items() if isinstance(value, dict)]
    for name in (*given, *(f"{name}.{entry}" for name, value in mappings for entry in value)):
        where = f"passthrough_kwargs.{name}"
        if field := decided.get(name):
            yield Problem(f"{field} already decides '{name}'", where, f"remove it and set {field}")
        elif reason := (ours or {}).get(name):
            yield Problem(f"'{name}' cannot be changed: {reason}", where, "remove it")
