"""Prompts and datasets as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: text, or the tokens themselves.

    Attributes:
        text: What is asked; ``None`` where the tokens are given.
        token_ids: The tokens, where their exact number is the point; else ``None``.
        max_new_tokens: Most tokens of its answer; ``None`` leaves that to the experiment.
    """

    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prompts an experiment uses, and the dataset they are the beginning of.

    Attributes:
        name: Name or path, as the configuration gives it.
        prompts: The prompts that are used.
        size: Prompts in the whole dataset.
        sha256: SHA-256 over every prompt of the whole dataset, in order, each as a line of JSONL.
        provenance: The header the dataset carries, or what it was generated from.
    """

    name: str
    prompts: tuple[Prompt, ...]
    size: int
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)
