"""From what TensorRT-LLM says about requests to samples; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.domain.samples import Finish, RequestSample

_FINISHES: Mapping[str, Finish] = {"length": "length", "stop": "stop"}
_CLOCK_TOLERANCE_NS = 1_000_000  # the engine's times are in microseconds, taken in another process


class Asked(NamedTuple):
    """A request as TensorRT-LLM gets it.

    Attributes:
        request: The request.
        options: Arguments of ``SamplingParams``.
        due_ns: When it is to be handed over, monotonic.
    """

    request: Request
    options: Mapping[str, Any]
    due_ns: int


class Finished(NamedTuple):
    """What TensorRT-LLM says of a request that has ended.

    Attributes:
        prompt_tokens: Tokens of the prompt, as the engine had it.
        token_ids: Tokens it produced.
        reason: Why it ended, in TensorRT-LLM's words.
        issued_ns: It was handed over.
        delivered_ns: We took its answer: those of earlier requests are waited for before.
        cached_tokens: Tokens of the prompt that were in the KV cache; ``None`` if unknown.
        scheduled_ns: Work on it began, monotonic; ``None`` where the engine tells no times.
        first_token_ns: Its first token was there.
        last_token_ns: Its last token was there.
    """

    prompt_tokens: int
    token_ids: tuple[int, ...]
    reason: str | None
    issued_ns: int
    delivered_ns: int
    cached_tokens: int | None = None
    scheduled_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None

    def with_times_of_our_clock(self) -> Finished:
        """Keep the engine's times where they can be those of our clock, else none of them.

        They are if they lie in order between issue and delivery; a difference within 1 ms is
        rounding and is cut off. Anything else is the clock of another machine, or no time at all.
        """
        known = self.scheduled_ns, self.first_token_ns, self.last_token_ns
        times = [time_ns for time_ns in known if time_ns is not None]
        early_ns = self.issued_ns - min(times, default=self.issued_ns)
        late_ns = max(times, default=self.issued_ns) - self.delivered_ns
        in_order = len(times) == len(known) and times == sorted(times)
        if not in_order or max(early_ns, late_ns) > _CLOCK_TOLERANCE_NS:
            return self._replace(scheduled_ns=None, first_token_ns=None, last_token_ns=None)
        begun, first, last = (min(max(t, self.issued_ns), self.delivered_ns) for t in times)
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
        end_ids: Tokens that end a sequence.
        asked: Its requests.
        finished: What became of each, in the same order.
    """

    pass_index: int
    end_ids: frozenset[int]
    asked: Sequence[Asked]
    finished: Sequence[Finished]

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request, in the order they were handed over."""
        samples = []
        for asked, told in zip(self.asked, self.finished, strict=True):
            done = told.with_times_of_our_clock()
            finish = _FINISHES.get(done.reason or "", "failed")
            sample = RequestSample(
                request=asked.request.index,
                pass_index=self.pass_index,
                input_tokens=done.prompt_tokens,
                output_tokens=done.tokens_produced(self.end_ids),
                issued_ns=done.issued_ns,
                scheduled_ns=done.issued_ns if done.scheduled_ns is None else done.scheduled_ns,
                first_token_ns=done.first_token_ns,
                last_token_ns=done.last_token_ns,
                delivered_ns=done.delivered_ns,
                finish=finish,
                error=f"TensorRT-LLM ended it: {done.reason}" if finish == "failed" else None,
                cached_input_tokens=done.cached_tokens,
                due_ns=asked.due_ns,
            )
            samples.append(sample)
        return tuple(samples)
