"""Prompts of exact length from a model's own vocabulary."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.models import SyntheticSpec
from llenergymeasure.datasets.files import too_few, written
from llenergymeasure.domain.prompts import Dataset, Prompt
from llenergymeasure.exceptions import PreFlightError, Problem


def synthetic_size(spec: SyntheticSpec, n: int | None) -> int:
    """Give the number of prompts a synthetic dataset has."""
    return spec.n or n or MOST_PROMPTS


def generate(spec: SyntheticSpec, n: int | None, ordinary_ids: Sequence[int]) -> Dataset:
    """Draw a synthetic dataset; prompt ``i`` is the same however many are asked for.

    Args:
        spec: Size, lengths and seed.
        n: Prompts to keep; ``None`` for those there are, up to ``MOST_PROMPTS``.
        ordinary_ids: Ids to draw from, each as likely as the others.

    Raises:
        PreFlightError: The dataset is smaller than ``n``, or there are no ids.
    """
    size = synthetic_size(spec, n)
    problems = too_few("synthetic", size, n)
    if not len(ordinary_ids):
        what = "the tokenizer has no ordinary tokens to draw from"
        remedy = "use a text dataset such as mixed-1k, or a model with a tokenizer"
        problems = [*problems, Problem(what, "dataset.synthetic", remedy)]
    if problems:
        raise PreFlightError(problems)
    import numpy as np

    digest, kept, ids = hashlib.sha256(), [], np.asarray(ordinary_ids)
    # PCG64's stream is fixed by its definition; the default generator may change.
    generator = np.random.Generator(np.random.PCG64(spec.seed))
    for index in range(size):
        row = ids[generator.integers(0, len(ids), spec.input_len)]  # (input_len,)
        prompt = Prompt(token_ids=tuple(row.tolist()), max_new_tokens=spec.output_len)
        digest.update(written(prompt))
        if index < (n or MOST_PROMPTS):
            kept.append(prompt)
    return Dataset("synthetic", tuple(kept), size, digest.hexdigest(), spec.model_dump())
