"""How what TensorRT-LLM says about requests is read; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llenergymeasure.core.backends.shared.engines import Finished

_CLOCK_TOLERANCE_NS = 1_000_000  # the engine's times are in microseconds, taken in another process


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


def checked(end_ids: frozenset[int], finished: Sequence[Finished]) -> Iterator[Finished]:
    """Read times by our clock, and count the end of sequence even where it is held back."""
    for done in finished:
        is_given = bool(done.token_ids) and done.token_ids[-1] in end_ids
        produced = len(done.token_ids) + (done.reason == "stop" and not is_given)
        yield on_our_clock(done)._replace(output_tokens=produced)
