"""What stops a configuration, whatever the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.core.models.config_json import stated_in
from llenergymeasure.core.models.hub import ADAPTER_FILE, Hub
from llenergymeasure.core.models.sources import plain_path
from llenergymeasure.exceptions import Problem


def least_context(config: ExperimentConfig) -> int:
    """Count the tokens of the shortest prompt that there may be, with its answer."""
    if isinstance(config.dataset, SyntheticDataset):
        return config.dataset.synthetic.input_len + config.dataset.synthetic.output_len
    return config.max_new_tokens + 1


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
    return Path(path).expanduser() if path is not None else None


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
    if folder is not None and not (folder / ADAPTER_FILE).is_file():
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
