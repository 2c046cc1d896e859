"""Whether a context holds the shortest prompt of a workload with its answer."""

from __future__ import annotations

from collections.abc import Iterator

from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset
from llenergymeasure.core.models import sources
from llenergymeasure.exceptions import Problem


def least_context(config: ExperimentConfig) -> int:
    """Count the tokens of the shortest prompt that there may be, with its answer."""
    if isinstance(config.dataset, SyntheticDataset):
        return config.dataset.synthetic.input_len + config.dataset.synthetic.output_len
    return config.max_new_tokens + 1


def model_context_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Find that the model holds no prompt; whether it holds each is known once they are tokens."""
    if config.passthrough_kwargs or str(config.dataset).endswith(".jsonl"):
        return  # which may set the limit, or the length of each answer
    shape = sources.architecture_of(sources.resolve(config.model, config.revision))
    limit = shape.context_limit if shape else None
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
