"""A request engine that is one clerk behind a counter: whoever comes waits for those before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import Arrival, EngineReport, Progress
from llenergymeasure.core.backends.scripted.engine import (
    ScriptedBackend,
    ScriptedEngine,
    ScriptedTrace,
)
from llenergymeasure.domain.samples import RequestSample


def _until(at_ns: int) -> int:
    time.sleep(max(0, at_ns - time.monotonic_ns()) / 1e9)
    return time.monotonic_ns()


class QueueEngine:
    """Serves one request after another, each from when it is due, in ``token_ms`` a token."""

    def __init__(self, inner: ScriptedEngine, token_ms: float = 1.0) -> None:
        self._inner, self._token_ns = inner, round(token_ms * 1e6)
        self.tokenizer = inner.tokenizer

    def serve(
        self, arrivals: Sequence[Arrival], pass_index: int, progress: Progress
    ) -> ScriptedTrace:
        begun_ns, rows = time.monotonic_ns(), []
        for arrival in arrivals:
            due_ns = begun_ns + arrival.due_ns
            rows.append(self._answer(arrival, due_ns, pass_index))
            progress(1)
        return ScriptedTrace(tuple(rows))

    def inspect(self) -> EngineReport:
        return self._inner.inspect()

    def close(self) -> None:
        self._inner.close()

    def _answer(self, arrival: Arrival, due_ns: int, pass_index: int) -> RequestSample:
        request, scheduled_ns = arrival.request, _until(due_ns)
        first_ns = _until(scheduled_ns + self._token_ns)
        last_ns = _until(first_ns + (request.max_new_tokens - 1) * self._token_ns)
        return RequestSample(
            request=request.index,
            pass_index=pass_index,
            input_tokens=len(request.token_ids),
            output_tokens=request.max_new_tokens,
            issued_ns=due_ns,
            scheduled_ns=scheduled_ns,
            first_token_ns=first_ns,
            last_token_ns=last_ns,
            delivered_ns=time.monotonic_ns(),
            due_ns=due_ns,
        )


class QueueBackend(ScriptedBackend):
    """Makes one, for the configuration of a scripted engine."""

    def load(self, config: ExperimentConfig, cache_dir: Path) -> QueueEngine:  # type: ignore[override]
        return QueueEngine(super().load(config, cache_dir))
