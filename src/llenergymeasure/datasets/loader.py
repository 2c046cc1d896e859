"""Find a dataset by name or path, check it, load it.

| ``dataset:`` | what it is |
|---|---|
| ``mixed-1k`` | 1,000 prompts that ship with the package |
| ``aienergyscore`` | AIEnergyScore/text_generation, fetched once from the Hub |
| a path ending as ``datasets.files`` says | the user's own prompts |
| ``{path: ..., column: ..., limit_column: ...}`` | the same, with its columns named |
| ``{synthetic: {...}}`` | random tokens of exact lengths |
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llenergymeasure.config.base import nearest
from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.models import DatasetFile, SyntheticDataset
from llenergymeasure.config.names import PROMPT_FILES, prompt_file_ending, without_tilde
from llenergymeasure.datasets import aienergyscore, files, synthetic
from llenergymeasure.datasets.files import Columns, PromptFile
from llenergymeasure.domain.prompts import Dataset, Prompt, Role
from llenergymeasure.exceptions import PreFlightError, Problem

NAMES = ("mixed-1k", "aienergyscore")
Spec = str | DatasetFile | SyntheticDataset
"""A dataset as the configuration has it: name or path, a file with its columns, or a shape."""

_MOST_SHAPES = 64


def load_dataset(
    spec: Spec,
    n: int | None,
    *,
    cache_dir: Path,
    ordinary_ids: Sequence[int] = (),
) -> Dataset:
    """Load the first prompts of a dataset; equal arguments give equal prompts.

    Args:
        spec: The dataset.
        n: Prompts to use; ``None`` for those there are, up to ``MOST_PROMPTS``.
        cache_dir: Where fetched datasets are kept.
        ordinary_ids: Ids that synthetic prompts are drawn from; other datasets need none.

    Raises:
        PreFlightError: The dataset cannot be had or is not right; it lists every problem.
    """
    if isinstance(spec, SyntheticDataset):
        return synthetic.generate(spec.synthetic, n, ordinary_ids)
    return files.read_dataset(*_located(spec, cache_dir), n)


def dataset_problems(
    spec: Spec, n: int | None, cache_dir: Path, *, fetch: bool = False
) -> list[Problem]:
    """List what stops a dataset from being used, before anything is loaded.

    Args:
        spec: The dataset.
        n: Prompts to use; ``None`` for those there are, up to ``MOST_PROMPTS``.
        cache_dir: Where fetched datasets are kept.
        fetch: Fetch what is not there yet; a failure is a problem. Without, the network is not
            touched, and a dataset that could still be fetched is taken to be fine.
    """
    if isinstance(spec, SyntheticDataset):
        return files.too_few("synthetic", synthetic.synthetic_size(spec.synthetic, n), n)
    if spec == "aienergyscore" and not fetch and not aienergyscore.is_cached(cache_dir):
        return [
            *aienergyscore.offline_problems(),
            *files.too_few(spec, aienergyscore.SIZE, n),
        ]
    try:
        files.read_dataset(*_located(spec, cache_dir), n)
    except PreFlightError as error:
        return list(error.problems)
    return []


def dataset_hash(spec: Spec, cache_dir: Path) -> str | None:
    """Hash the prompts of a dataset (``Dataset.sha256``) as they are now.

    Gives ``None`` where that cannot be told before a model is loaded: it is drawn from the model's
    tokenizer, is not on this machine, or is not right.
    """
    if isinstance(spec, SyntheticDataset):
        return None
    if spec == "aienergyscore" and not aienergyscore.is_cached(cache_dir):
        return None
    try:
        return files.read_dataset(*_located(spec, cache_dir), n=1).sha256
    except PreFlightError:
        return None


def prompt_file(spec: Spec) -> PromptFile | None:
    """Give the user's own file of prompts; ``None`` for any other dataset."""
    if isinstance(spec, SyntheticDataset):
        return None
    named = spec if isinstance(spec, str) else spec.path
    ending = prompt_file_ending(named)
    if ending is None:
        return None
    file = PromptFile(without_tilde(named), ending)
    if isinstance(spec, DatasetFile):
        file.columns = Columns(spec.column, spec.limit_column)
    return file


class Look(NamedTuple):
    """What the prompts that are used tell of a file.

    Attributes:
        shapes: Orders in which roles take turns in its chats, each once, some dozens at most; none
            where all is plain text.
        unused: Columns, or keys of rows, that nothing is made of; the first few.
    """

    shapes: tuple[tuple[Role, ...], ...] = ()
    unused: tuple[str, ...] = ()


def look(spec: Spec, n: int | None) -> Look | None:
    """Look into the user's own file of prompts; there is nothing to tell of another dataset.

    Args:
        spec: The dataset.
        n: Prompts that are used; ``None`` for those there are, up to ``MOST_PROMPTS``.

    Returns:
        What it tells; ``None`` where it cannot be read.
    """
    file = prompt_file(spec)
    if file is None:
        return Look()
    try:
        prompts = (row for row in file if isinstance(row, Prompt))
        used = islice(prompts, MOST_PROMPTS if n is None else n)
        shapes = dict.fromkeys(tuple(m.role for m in one.messages) for one in used if one.messages)
    except OSError:
        return None
    return Look(tuple(shapes)[:_MOST_SHAPES], tuple(file.columns.unused))


def _located(spec: str | DatasetFile, cache_dir: Path) -> tuple[PromptFile, str]:
    """Give the file of a dataset, and its name."""
    if spec == "mixed-1k":
        columns = Columns("prompt", read=("prompt",))
        path = Path(__file__).with_name("builtin") / "mixed-1k.jsonl"
        return PromptFile(path, columns=columns, packaged=True), spec
    if spec == "aienergyscore":
        return PromptFile(aienergyscore.cached_file(cache_dir)), spec
    name = spec if isinstance(spec, str) else spec.path
    if (file := prompt_file(spec)) is not None:
        return file, name
    endings = ", ".join(PROMPT_FILES)
    problem = Problem(
        f"unknown dataset '{name}'; {nearest(name, NAMES)}",
        "dataset",
        f"use {' or '.join(NAMES)}, a path ending in {endings}, or {{synthetic: {{...}}}}",
    )
    raise PreFlightError([problem])
