"""From what TensorRT-LLM says about requests to samples; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.engines import Finished
from llenergymeasure.domain.samples import RequestSample

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


def on_our_clock(done: Finished) -> Finished:
    """Keep the engine's times where they can be those of our clock, else none of them.

    They are if they lie in order between issue and delivery; a difference within 1 ms is rounding
    and is cut off. Anything else is the clock of another machine, or no time at all.
    """
    known = done.scheduled_ns, done.first_token_ns, done.last_token_ns
    times = [time_ns for time_ns in known if time_ns is not None]
    early_ns = done.issued_ns - min(times, default=done.issued_ns)
    late_ns = max(times, default=done.issued_ns) - done.delivered_ns
    in_order = len(times) == len(known) and times == sorted(times)
    if not in_order or max(early_ns, late_ns) > _CLOCK_TOLERANCE_NS:
        return done._replace(scheduled_ns=None, first_token_ns=None, last_token_ns=None)
    begun, first, last = (min(max(t, done.issued_ns), done.delivered_ns) for t in times)
    return done._replace(scheduled_ns=begun, first_token_ns=first, last_token_ns=last)


def tokens_produced(done: Finished, end_ids: frozenset[int]) -> int:
    """Count its tokens, the end of sequence included even where it is held back."""
    is_given = bool(done.token_ids) and done.token_ids[-1] in end_ids
    return len(done.token_ids) + (done.reason == "stop" and not is_given)


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
        return tuple(
            replace(
                on_our_clock(done).sample(
                    "TensorRT-LLM", asked.request, self.pass_index, asked.due_ns
                ),
                output_tokens=tokens_produced(done, self.end_ids),
            )
            for asked, done in zip(self.asked, self.finished, strict=True)
        )
