"""Find a dataset by name or path, check it, load it.

| ``dataset:`` | what it is |
|---|---|
| ``mixed-1k`` | 1,000 prompts that ship with the package |
| ``aienergyscore`` | AIEnergyScore/text_generation, fetched once from the Hub |
| a path ending in ``.jsonl`` | the user's own prompts |
| ``{synthetic: {...}}`` | random tokens of exact lengths |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llenergymeasure.config.base import nearest
from llenergymeasure.config.models import SyntheticDataset
from llenergymeasure.config.names import without_tilde
from llenergymeasure.datasets import aienergyscore, jsonl, synthetic
from llenergymeasure.domain.prompts import Dataset
from llenergymeasure.exceptions import PreFlightError, Problem

NAMES = ("mixed-1k", "aienergyscore")


def load_dataset(
    spec: str | SyntheticDataset,
    n: int,
    *,
    cache_dir: Path,
    ordinary_ids: Sequence[int] = (),
) -> Dataset:
    """Load the first ``n`` prompts of a dataset; equal arguments give equal prompts.

    Args:
        spec: Name, path or shape, as the configuration has it.
        n: Prompts to use.
        cache_dir: Where fetched datasets are kept.
        ordinary_ids: Ids that synthetic prompts are drawn from; other datasets need none.

    Raises:
        PreFlightError: The dataset cannot be had or is not right; it lists every problem.
    """
    if isinstance(spec, SyntheticDataset):
        return synthetic.generate(spec.synthetic, n, ordinary_ids)
    return jsonl.read_dataset(_locate(spec, cache_dir), spec, n)


def dataset_problems(
    spec: str | SyntheticDataset, n: int, cache_dir: Path, *, fetch: bool = False
) -> list[Problem]:
    """List what stops a dataset from being used, before anything is loaded.

    Args:
        spec: Name, path or shape, as the configuration has it.
        n: Prompts to use.
        cache_dir: Where fetched datasets are kept.
        fetch: Fetch what is not there yet; a failure is a problem. Without, the network is not
            touched, and a dataset that could still be fetched is taken to be fine.
    """
    if isinstance(spec, SyntheticDataset):
        return jsonl.too_few("synthetic", synthetic.synthetic_size(spec.synthetic, n), n)
    if spec == "aienergyscore" and not fetch and not aienergyscore.is_cached(cache_dir):
        return [
            *aienergyscore.offline_problems(),
            *jsonl.too_few(spec, aienergyscore.SIZE, n),
        ]
    try:
        jsonl.read_dataset(_locate(spec, cache_dir), spec, n)
    except PreFlightError as error:
        return list(error.problems)
    return []


def dataset_hash(spec: str | SyntheticDataset, cache_dir: Path) -> str | None:
    """Hash the prompts of a dataset (``Dataset.sha256``) as they are now.

    Gives ``None`` where that cannot be told before a model is loaded: it is drawn from the model's
    tokenizer, is not on this machine, or is not right.
    """
    if isinstance(spec, SyntheticDataset):
        return None
    if spec == "aienergyscore" and not aienergyscore.is_cached(cache_dir):
        return None
    try:
        return jsonl.read_dataset(_locate(spec, cache_dir), spec, n=1).sha256
    except PreFlightError:
        return None


def _locate(spec: str, cache_dir: Path) -> Path:
    if spec == "mixed-1k":
        return Path(__file__).with_name("builtin") / "mixed-1k.jsonl"
    if spec == "aienergyscore":
        return aienergyscore.cached_file(cache_dir)
    if Path(spec).suffix == ".jsonl":
        return without_tilde(spec)
    problem = Problem(
        f"unknown dataset '{spec}'; {nearest(spec, NAMES)}",
        "dataset",
        f"use {' or '.join(NAMES)}, a path ending in .jsonl, or {{synthetic: {{...}}}}",
    )
    raise PreFlightError([problem])
