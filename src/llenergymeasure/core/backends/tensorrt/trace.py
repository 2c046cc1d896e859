"""From what TensorRT-LLM says about requests to samples; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llenergymeasure.core.backends.protocol import Batch, Request
from llenergymeasure.domain.samples import Finish, RequestSample

_FINISHES: Mapping[str, Finish] = {"length": "length", "stop": "stop"}
_CLOCK_TOLERANCE_NS = 1_000_000  # the engine's times are in microseconds, taken in another process


class Finished(NamedTuple):
    """What TensorRT-LLM says of a request that has ended.

    Attributes:
        prompt_tokens: Tokens of the prompt, as the engine had it.
        token_ids: Tokens it produced.
        reason: Why it ended, in TensorRT-LLM's words.
        delivered_ns: It was handed to us.
        scheduled_ns: Work on it began, monotonic; ``None`` where the engine tells no times.
        first_token_ns: Its first token was there.
        last_token_ns: Its last token was there.
        reused_blocks: Blocks of the KV cache that an earlier request had filled; ``None`` if
            unknown.
    """

    prompt_tokens: int
    token_ids: tuple[int, ...]
    reason: str | None
    delivered_ns: int
    scheduled_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    reused_blocks: int | None = None


class Times(NamedTuple):
    """Times of a request on the monotonic clock, each between the one before and the next."""

    scheduled_ns: int
    first_token_ns: int
    last_token_ns: int


def times_within(done: Finished, issued_ns: int) -> Times | None:
    """Give the engine's times of a request where they can be those of our clock.

    They are if they lie in order between issue and delivery; a difference within 1 ms is rounding
    and is cut off. Anything else is the clock of another machine, or no time at all.
    """
    stated = (done.scheduled_ns, done.first_token_ns, done.last_token_ns)
    known = [time_ns for time_ns in stated if time_ns is not None]
    if len(known) < len(stated) or known != sorted(known):
        return None
    early, late = issued_ns - known[0], known[-1] - done.delivered_ns
    if max(early, late) > _CLOCK_TOLERANCE_NS:
        return None
    return Times(*(min(max(time_ns, issued_ns), done.delivered_ns) for time_ns in known))


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """Requests that were handed over together, and what became of them, in the same order."""

    batch: Batch
    issued_ns: int
    finished: Sequence[Finished]

    def pairs(self) -> Iterator[tuple[Request, Finished]]:
        """Give each request with what became of it."""
        return zip(self.batch, self.finished, strict=True)


@dataclass(frozen=True, slots=True)
class TensorRTTrace:
    """One pass.

    Attributes:
        pass_index: Its number.
        issued_ns: When it began.
        end_ids: Tokens that end a sequence.
        records: What happened in it.
    """

    pass_index: int
    issued_ns: int
    end_ids: frozenset[int]
    records: list[BatchRecord] = field(default_factory=list)

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request, in the order they were handed over."""
        return tuple(
            self._sample(index, record.issued_ns, request, done)
            for index, record in enumerate(self.records)
            for request, done in record.pairs()
        )

    def _sample(
        self, index: int, issued_ns: int, request: Request, done: Finished
    ) -> RequestSample:
        finish = _FINISHES.get(done.reason or "", "failed")
        times = times_within(done, self.issued_ns)
        tokens = tokens_produced(done, self.end_ids)
        return RequestSample(
            request=request.index,
            pass_index=self.pass_index,
            batch_index=index,
            input_tokens=done.prompt_tokens,
            padded_input_tokens=done.prompt_tokens,
            output_tokens=tokens,
            executed_output_tokens=tokens,
            issued_ns=self.issued_ns,
            scheduled_ns=times.scheduled_ns if times else issued_ns,
            first_token_ns=times.first_token_ns if times else None,
            last_token_ns=times.last_token_ns if times else None,
            delivered_ns=done.delivered_ns,
            finish=finish,
            error=f"TensorRT-LLM ended it: {done.reason}" if finish == "failed" else None,
        )


def tokens_produced(done: Finished, end_ids: frozenset[int]) -> int:
    """Count the tokens of an answer, the end of sequence included even where it is held back."""
    held_back = done.reason == "stop" and (not done.token_ids or done.token_ids[-1] not in end_ids)
    return len(done.token_ids) + held_back


class Shortfall(NamedTuple):
    """What the engine did otherwise than asked, over all requests of a pass.

    Attributes:
        reused: Prompts that found blocks of the KV cache filled by an earlier one; ``None`` where
            the engine does not say.
        untimed: Requests without times on our clock.
    """

    reused: int | None = None
    untimed: int = 0


def shortfall(trace: TensorRTTrace) -> Shortfall:
    """Compare what the engine did in a pass with what it was asked to do."""
    finished = [done for record in trace.records for done in record.finished]
    known = [done.reused_blocks for done in finished if done.reused_blocks is not None]
    return Shortfall(
        sum(blocks > 0 for blocks in known) if known else None,
        sum(times_within(done, trace.issued_ns) is None for done in finished),
    )
