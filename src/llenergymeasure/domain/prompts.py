"""Prompts and datasets as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from llenergymeasure.config.plain_words import shown

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """One turn of a chat."""

    role: Role
    content: str


def unused_words(names: Iterable[str]) -> str:
    """Say which columns of a file of prompts nothing is made of."""
    return f"not used of its rows: {', '.join(map(shown, names))}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: text, a chat, or the tokens themselves.

    Attributes:
        text: What is asked; ``None`` where it is given otherwise.
        token_ids: The tokens, where their exact number is the point; else ``None``.
        max_new_tokens: Most tokens of its answer; ``None`` leaves that to the experiment.
        messages: Turns of a chat, up to the one of the user that is to be answered; else ``None``.
    """

    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    max_new_tokens: int | None = None
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The prompts an experiment uses, and the dataset they are the beginning of.

    Attributes:
        name: Name or path, as the configuration gives it.
        prompts: The prompts that are used.
        size: Prompts in the whole dataset.
        sha256: SHA-256 over every prompt of the whole dataset, in order, each as a line of JSONL.
        provenance: The header the dataset carries, or what it was generated from.
        column: Column of its file that holds the prompts; ``None`` without a file.
        unused: Columns of the file, or keys of its rows, that nothing is made of.
    """

    name: str
    prompts: tuple[Prompt, ...]
    size: int
    sha256: str
    provenance: dict[str, Any] = field(default_factory=dict)
    column: str | None = None
    unused: tuple[str, ...] = ()
