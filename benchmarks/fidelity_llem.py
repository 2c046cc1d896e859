"""One experiment of llem in a fresh process, with a stopwatch of our own around its window.

``python fidelity_llem.py CASE.json`` prints one line of JSON. The stopwatch listens to the
experiment's events and reads another clock than the window does; it counts tokens by itself.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from llenergymeasure import ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import load_settings
from llenergymeasure.orchestration.events import Event
from llenergymeasure.study.events import Callbacks, StudyEvent
from llenergymeasure.study.runner import StudyRunner


class Stopwatch:
    """Runs from the event that begins the measured window to the one that ends it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start_s: float | None = None

    def __call__(self, event: StudyEvent) -> None:
        """Start or stop; progress in between is ignored."""
        if not isinstance(event, Event) or event.done is not None:
            return
        if event.phase == "measure":
            self._start_s = time.perf_counter()
        elif self._start_s is not None:
            self.seconds = time.perf_counter() - self._start_s
            self._start_s = None


def main(path: str) -> None:
    """Measure and print."""
    case = json.loads(Path(path).read_text(encoding="utf-8"))
    config = ExperimentConfig.model_validate(case["experiment"])
    stopwatch = Stopwatch()
    study = StudyConfig.of(config)
    runner = StudyRunner(study, load_settings(), None, Callbacks(stopwatch))
    result = runner.run().experiments[0]
    answers = sum(len(rows) for rows in case["batches"])
    tokens = answers * case["new_tokens"] * result.throughput.passes
    figures = {
        "passes": result.throughput.passes,
        "output_tokens": result.throughput.output_tokens,
        "seconds": result.throughput.window_s,
        "tokens_per_second": result.tokens_per_second,
        "stopwatch_s": stopwatch.seconds,
        "stopwatch_tokens_per_second": tokens / stopwatch.seconds,
        "threads": result.resolved.backend["num_threads"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
