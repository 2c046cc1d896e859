"""What a workload asks of a context, whoever limits it."""

from __future__ import annotations

from llenergymeasure.config.models import ExperimentConfig, SyntheticDataset


def least_context(config: ExperimentConfig) -> int:
    """Count the tokens of the shortest prompt that there may be, with its answer."""
    if isinstance(config.dataset, SyntheticDataset):
        return config.dataset.synthetic.input_len + config.dataset.synthetic.output_len
    return config.max_new_tokens + 1
