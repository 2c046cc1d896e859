"""Which datasets say for themselves how many tokens each prompt is answered with."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.datasets.jsonl import read_lines
from llenergymeasure.domain.prompts import Prompt


class OwnPromptLengths:
    """Tells of an experiment whether every prompt it uses has a ``max_new_tokens`` of its own.

    Reads each file once for each number of prompts. A file that cannot be read counts as having
    none; pre-flight says what is wrong with it.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], bool] = {}

    def __call__(self, config: ExperimentConfig) -> bool:
        """Look at the prompts of an experiment; False for anything but a JSONL file."""
        dataset = config.dataset
        if not isinstance(dataset, str) or not dataset.endswith(".jsonl"):
            return False
        if (dataset, config.n) not in self._known:
            self._known[dataset, config.n] = _all_have(Path(dataset).expanduser(), config.n)
        return self._known[dataset, config.n]


def _all_have(path: Path, n: int) -> bool:
    try:
        prompts = (line for line in read_lines(path) if isinstance(line, Prompt))
        lengths = [prompt.max_new_tokens for prompt in islice(prompts, n)]
    except OSError:
        return False
    return bool(lengths) and None not in lengths
