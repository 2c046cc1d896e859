"""From what vLLM says about requests to samples; pure.

Times: ``RequestStateStats`` has them in seconds of the monotonic clock of the engine core, the same
clock as ours (``arrival_time`` alone is wall-clock, and unused).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from llenergymeasure.core.backends.protocol import Batch, Request
from llenergymeasure.domain.samples import Finish, RequestSample

_FINISHES: Mapping[str, Finish] = {"length": "length", "stop": "stop"}


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


class Finished(NamedTuple):
    """What vLLM says of a request that has ended.

    Attributes:
        prompt_tokens: Tokens of the prompt, as the engine had it.
        token_ids: Tokens it produced.
        reason: Why it ended, in vLLM's words.
        cached_tokens: Tokens of the prompt that were in the prefix cache; ``None`` if unknown.
        scheduled_s: Work on it began, monotonic; ``None`` where there are no statistics.
        first_token_s: Its first token was there.
        last_token_s: Its last token was there.
        delivered_ns: It was handed to us.
        key: What steps call it; empty where they do not.
    """

    prompt_tokens: int
    token_ids: tuple[int, ...]
    reason: str | None
    delivered_ns: int
    cached_tokens: int | None = None
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """Requests that were handed over together.

    Attributes:
        batch: The requests.
        issued_ns: When.
        finished: What became of each, in the same order.
        steps: The steps of the engine; empty where it tells none.
    """

    batch: Batch
    issued_ns: int
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

    def _batch_samples(self, record: BatchRecord) -> list[RequestSample]:
        outputs = _outputs(record.steps)
        return [
            self._sample(record.issued_ns, request, done, outputs.get(done.key, []))
            for request, done in zip(record.batch, record.finished, strict=True)
        ]

    def _sample(
        self,
        issued_ns: int,
        request: Request,
        done: Finished,
        outputs: Sequence[Output],
    ) -> RequestSample:
        finish = _FINISHES.get(done.reason or "", "failed")
        scheduled_ns = _ns(done.scheduled_s)
        gaps_ns, gap_tokens = _gaps(outputs, len(done.token_ids))
        return RequestSample(
            request=request.index,
            pass_index=self.pass_index,
            input_tokens=done.prompt_tokens,
            output_tokens=len(done.token_ids),
            issued_ns=self.issued_ns,
            scheduled_ns=issued_ns if scheduled_ns is None else scheduled_ns,
            first_token_ns=_ns(done.first_token_s),
            last_token_ns=_ns(done.last_token_s),
            delivered_ns=done.delivered_ns,
            gaps_ns=gaps_ns,
            gap_tokens=gap_tokens,
            finish=finish,
            error=f"vLLM ended it: {done.reason}" if finish == "failed" else None,
            cached_input_tokens=done.cached_tokens,
            due_ns=self.issued_ns,
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


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
