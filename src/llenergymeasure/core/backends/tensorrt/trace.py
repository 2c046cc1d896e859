"""From what TensorRT-LLM says about requests to samples; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llenergymeasure.core.backends.protocol import Request
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
        cached_tokens: Tokens of the prompt that were in the KV cache; ``None`` if unknown.
        scheduled_ns: Work on it began, monotonic; ``None`` where the engine tells no times.
        first_token_ns: Its first token was there.
        last_token_ns: Its last token was there.
    """

    prompt_tokens: int
    token_ids: tuple[int, ...]
    reason: str | None
    delivered_ns: int
    cached_tokens: int | None = None
    scheduled_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None

    def with_times_since(self, issued_ns: int) -> Finished:
        """Keep the engine's times where they can be those of our clock, else none of them.

        They are if they lie in order between issue and delivery; a difference within 1 ms is
        rounding and is cut off. Anything else is the clock of another machine, or no time at all.
        """
        known = self.scheduled_ns, self.first_token_ns, self.last_token_ns
        times = [time_ns for time_ns in known if time_ns is not None]
        early_ns = issued_ns - min(times, default=issued_ns)
        late_ns = max(times, default=issued_ns) - self.delivered_ns
        in_order = len(times) == len(known) and times == sorted(times)
        if not in_order or max(early_ns, late_ns) > _CLOCK_TOLERANCE_NS:
            return self._replace(scheduled_ns=None, first_token_ns=None, last_token_ns=None)
        begun, first, last = (min(max(each, issued_ns), self.delivered_ns) for each in times)
        return self._replace(scheduled_ns=begun, first_token_ns=first, last_token_ns=last)

    def tokens_produced(self, end_ids: frozenset[int]) -> int:
        """Count its tokens, the end of sequence included even where it is held back."""
        is_given = bool(self.token_ids) and self.token_ids[-1] in end_ids
        return len(self.token_ids) + (self.reason == "stop" and not is_given)


@dataclass(frozen=True, slots=True)
class TensorRTTrace:
    """One pass.

    Attributes:
        pass_index: Its number.
        issued_ns: When its requests were handed over.
        end_ids: Tokens that end a sequence.
        requests: Its requests.
        finished: What became of each, in the same order.
    """

    pass_index: int
    issued_ns: int
    end_ids: frozenset[int]
    requests: Sequence[Request]
    finished: Sequence[Finished]

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request, in the order they were handed over."""
        pairs = zip(self.requests, self.finished, strict=True)
        return tuple(
            self._sample(request, done.with_times_since(self.issued_ns)) for request, done in pairs
        )

    def _sample(self, request: Request, done: Finished) -> RequestSample:
        finish = _FINISHES.get(done.reason or "", "failed")
        tokens = done.tokens_produced(self.end_ids)
        return RequestSample(
            request=request.index,
            pass_index=self.pass_index,
            batch_index=0,
            input_tokens=done.prompt_tokens,
            padded_input_tokens=done.prompt_tokens,
            output_tokens=tokens,
            executed_output_tokens=tokens,
            issued_ns=self.issued_ns,
            scheduled_ns=self.issued_ns if done.scheduled_ns is None else done.scheduled_ns,
            first_token_ns=done.first_token_ns,
            last_token_ns=done.last_token_ns,
            delivered_ns=done.delivered_ns,
            finish=finish,
            error=f"TensorRT-LLM ended it: {done.reason}" if finish == "failed" else None,
            cached_input_tokens=done.cached_tokens,
        )
