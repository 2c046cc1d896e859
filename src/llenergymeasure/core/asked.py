"""Did the engine do the work it was asked to? Told by counting the tokens of every request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.domain.samples import RequestSample


class Asked(NamedTuple):
    """Tokens of one request, as the engine was asked.

    Attributes:
        input_tokens: Tokens of the prompt.
        output_tokens: Most tokens of the answer.
    """

    input_tokens: int
    output_tokens: int


def asked_of(requests: Iterable[Request]) -> tuple[Asked, ...]:
    """Count what is asked, in the order of the dataset."""
    return tuple(Asked(len(one.token_ids), one.max_new_tokens) for one in requests)


def departures(
    samples: Iterable[RequestSample], asked: Sequence[Asked], *, ignores_eos: bool
) -> Iterator[str]:
    """Say where an engine cut prompts, and where it or the model ended answers early.

    Args:
        samples: Requests of all passes; failed ones are passed over.
        asked: What was asked, by position in the dataset.
        ignores_eos: Whether an end of sequence was not to end an answer.
    """
    done = [(one, asked[one.request]) for one in samples if one.finish != "failed"]
    cut = sum(one.input_tokens != request.input_tokens for one, request in done)
    early = [one for one, request in done if one.output_tokens < request.output_tokens]
    ended = 0 if ignores_eos else sum(one.finish == "stop" for one in early)
    if cut:
        yield (
            f"the engine had {_of(cut, done)} prompts with another number of tokens than they "
            "were sent"
        )
    if len(early) > ended:
        yield (
            f"the engine ended {_of(len(early) - ended, done)} answers before the tokens asked "
            "for, without an end of sequence (is its context too short?)"
        )
    if not ignores_eos:
        yield (
            f"answers end where the model ends them ({_of(ended, done)} did so early), so token "
            "counts depend on the arithmetic"
        )


def _of(count: int, whole: Sequence[object]) -> str:
    return f"{count:,} of {len(whole):,}"
