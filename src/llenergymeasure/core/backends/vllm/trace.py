"""From what vLLM says about requests and its steps to samples; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from llenergymeasure.core.backends.protocol import Batch
from llenergymeasure.core.backends.shared.engines import Finished
from llenergymeasure.domain.samples import RequestSample


class Step(NamedTuple):
    """One step of the engine.

    Attributes:
        at_s: When its tokens were there, monotonic.
        tokens: Keys of the requests it worked on, and how many tokens each got.
    """

    at_s: float
    tokens: Sequence[tuple[str, int]]


class Output(NamedTuple):
    """Tokens of one request that came out of one step of the engine."""

    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """Requests that were handed over together.

    Attributes:
        batch: The requests.
        finished: What became of each, in the same order.
        steps: The steps of the engine; empty where it tells none.
    """

    batch: Batch
    finished: Sequence[Finished]
    steps: Sequence[Step] = ()


@dataclass(frozen=True, slots=True)
class VLLMTrace:
    """One pass."""

    pass_index: int
    issued_ns: int
    records: list[BatchRecord] = field(default_factory=list)

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request, in the order they were handed over."""
        return tuple(sample for record in self.records for sample in self._batch_samples(record))

    def _batch_samples(self, record: BatchRecord) -> Iterator[RequestSample]:
        outputs = _outputs(record.steps)
        for request, done in zip(record.batch, record.finished, strict=True):
            gaps_ns, gap_tokens = _gaps(outputs.get(done.key, []), len(done.token_ids))
            yield replace(
                done.sample("vLLM", request, self.pass_index, due_ns=self.issued_ns),
                issued_ns=self.issued_ns,
                gaps_ns=gaps_ns,
                gap_tokens=gap_tokens,
            )


def cached_prompts(records: Sequence[BatchRecord]) -> frozenset[int]:
    """Give the positions of prompts that were found in the prefix cache, at least in part."""
    pairs = (pair for record in records for pair in zip(record.batch, record.finished, strict=True))
    return frozenset(request.index for request, done in pairs if done.cached_tokens)


def _outputs(steps: Sequence[Step]) -> dict[str, list[Output]]:
    """Turn steps, each with its requests, into requests, each with what came of its steps."""
    found: dict[str, list[Output]] = {}
    for step in steps:
        for key, tokens in step.tokens:
            if tokens:
                found.setdefault(key, []).append(Output(step.at_s, tokens))
    return found


def _gaps(
    outputs: Sequence[Output], produced: int
) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Give the time between outputs, and the tokens of each gap unless all are 1.

    Unknown unless the outputs account for every token.
    """
    if sum(output.tokens for output in outputs) != produced:
        return None, None
    times = [round(output.at_s * 1e9) for output in outputs]
    sizes = tuple(output.tokens for output in outputs[1:])
    gaps = tuple(after - before for before, after in pairwise(times))
    return gaps, None if all(size == 1 for size in sizes) else sizes
