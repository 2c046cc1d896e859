"""What engines have in common: how requests become batches and answers samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llenergymeasure.config.models import DecoderConfig, ExperimentConfig
from llenergymeasure.core.backends.protocol import Batch, Request
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.domain.samples import Finish, RequestSample
from llenergymeasure.exceptions import ConfigError

_FINISHES: Mapping[str, Finish] = {"length": "length", "stop": "stop"}


def static_batches(requests: Sequence[Request], batch_size: int) -> tuple[Batch, ...]:
    """Cut requests into batches of ``batch_size`` in their given order; the last may be smaller."""
    starts = range(0, len(requests), batch_size)
    return tuple(tuple(requests[start : start + batch_size]) for start in starts)


def dynamic_batches(requests: Sequence[Request], batch_size: int) -> tuple[Batch, ...]:
    """Sort requests by length and fill each batch up to a budget of tokens.

    The budget is ``batch_size`` times the longest request (prompt and answer), so no batch needs
    more KV cache than a static batch of the longest requests would, while short requests share
    larger batches. Longest first: a batch that does not fit fails early.
    """
    if not requests:
        return ()
    ordered = sorted(requests, key=lambda request: request.positions, reverse=True)
    budget = batch_size * ordered[0].positions
    batches: list[list[Request]] = []
    room = 0
    for request in ordered:
        if room < 1:
            room = max(1, budget // request.positions)  # the first of a batch is its longest
            batches.append([])
        batches[-1].append(request)
        room -= 1
    return tuple(tuple(batch) for batch in batches)


def sampling_options(decoder: DecoderConfig) -> dict[str, Any]:
    """Give temperature, top_p and top_k where tokens are sampled, by these names; null is neutral.

    All engines take 1.0, 1.0 and 0 for none of them.
    """
    if decoder.decoding_strategy != "sampling":
        return {}
    return {
        "temperature": decoder.temperature or 1.0,
        "top_p": decoder.top_p or 1.0,
        "top_k": decoder.top_k or 0,
    }


class Finished(NamedTuple):
    """What an engine that schedules requests itself says of one that has ended.

    Attributes:
        prompt_tokens: Tokens of the prompt, as the engine had it.
        token_ids: Tokens it produced.
        reason: Why it ended, in the engine's words.
        issued_ns: It was handed over, monotonic.
        delivered_ns: We took its answer; of engines that are asked in order, after earlier ones.
        cached_tokens: Tokens of the prompt that were in the KV cache; ``None`` if unknown.
        scheduled_ns: Work on it began; ``None`` where the engine tells no times.
        first_token_ns: Its first token was there.
        last_token_ns: Its last token was there.
        key: What the engine calls it, where anything goes by that.
        output_tokens: Tokens it produced, where they are not those it gave.
        gaps_ns: Time between arrivals of its tokens; ``None`` where the engine tells none.
        gap_tokens: Tokens each of these gaps delivered; ``None`` means one each.
        drafted_tokens: Tokens drafted for it; ``None`` where none were, or it is not told.
        accepted_tokens: Those of them that the model accepted, beyond the last token too.
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
    key: str = ""
    output_tokens: int | None = None
    gaps_ns: tuple[int, ...] | None = None
    gap_tokens: tuple[int, ...] | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None

    def sample(self, engine: str, request: Request, pass_index: int, due_ns: int) -> RequestSample:
        """Make a sample of it."""
        produced = len(self.token_ids) if self.output_tokens is None else self.output_tokens
        finish = _FINISHES.get(self.reason or "", "failed")
        return RequestSample(
            request=request.index,
            pass_index=pass_index,
            input_tokens=self.prompt_tokens,
            output_tokens=produced,
            issued_ns=self.issued_ns,
            scheduled_ns=self.issued_ns if self.scheduled_ns is None else self.scheduled_ns,
            first_token_ns=self.first_token_ns,
            last_token_ns=self.last_token_ns,
            delivered_ns=self.delivered_ns,
            gaps_ns=self.gaps_ns,
            gap_tokens=self.gap_tokens,
            finish=finish,
            error=f"{engine} ended it: {self.reason}" if finish == "failed" else None,
            cached_input_tokens=self.cached_tokens,
            due_ns=due_ns,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
        )


@dataclass(frozen=True, slots=True)
class ServedTrace:
    """One pass of an engine that schedules requests itself.

    Attributes:
        engine: What the user calls it.
        pass_index: Its number.
        asked: Its requests, each with the time it was due, monotonic.
        finished: What became of each, in the same order.
        read: Completes that from what else the engine told, once the window has closed.
    """

    engine: str
    pass_index: int
    asked: Sequence[tuple[Request, int]]
    finished: Sequence[Finished]
    read: Callable[[Sequence[Finished]], Iterable[Finished]] = iter

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request, in the order they were handed over."""
        return tuple(
            done.sample(self.engine, request, self.pass_index, due_ns)
            for (request, due_ns), done in zip(self.asked, self.read(self.finished), strict=True)
        )


def understood(shape: Mapping[str, Any]) -> ModelArchitecture | None:
    """Read the shape of a model; ``None`` where it is not understood.

    FLOPs are reference data: an unknown shape must not stop a measurement.
    """
    try:
        return ModelArchitecture.from_config(shape)
    except ConfigError:
        return None


def scheduling_note(engine: str, how: str) -> str:
    """Say that an engine schedules requests itself."""
    return (
        f"{engine} schedules requests as they fit ({how}): batches, and with them the "
        "arithmetic's rounding, are not those of another engine"
    )


def flops_notes(config: ExperimentConfig) -> Iterator[str]:
    """Say what FLOPs leave out."""
    if config.decoder.draft_model is not None:
        yield "FLOPs leave out the drafting model and rejected drafts"
    if config.lora is not None and not config.lora.merge_weights:
        yield "FLOPs leave out the unmerged LoRA adapter"
