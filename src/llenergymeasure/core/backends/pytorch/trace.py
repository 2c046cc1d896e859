"""When tokens arrive in ``generate``, without a synchronisation of our own.

On a CPU a hook reads the clock. On CUDA it records an event, which is resolved after the window: a
host clock there would time the launch of kernels and leave prefill out of the time to first token.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from llenergymeasure.core.backends.protocol import Batch, Request
from llenergymeasure.domain.samples import RequestSample


def _arguments(input_ids: Any, scores: Any) -> None:
    """Stand for a processor's arguments, ready to be inspected."""


_arguments.__signature__ = inspect.signature(_arguments)  # type: ignore[attr-defined]


class TokenClock:
    """A logits processor that notes when the logits of each token are there.

    transformers calls it once a step, for all rows; it gives the scores back untouched.
    """

    def __init__(self, stamp: Any) -> None:
        self.stamps: list[Any] = []
        self._stamp = stamp
        # transformers inspects the arguments of `processor.__call__` at every step; a plain
        # function with a ready signature takes half the calls of a method.
        vars(self)["__call__"] = _arguments

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Note the time of one step; ``scores`` is (batch, vocabulary)."""
        self.stamps.append(self._stamp())
        return scores


class BurstClock:
    """A stopping criterion that notes when tokens were accepted, and how many there are by then.

    Speculative decoding accepts several tokens a step, and calls the logits processor for drafts
    as well; the stopping criterion it calls once a step, after accepting. It never stops anything.
    """

    def __init__(self, stamp: Any) -> None:
        self.stamps: list[Any] = []
        self.lengths: list[int] = []
        self._stamp = stamp

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Note the time and the length so far; ``input_ids`` is (batch, length)."""
        self.stamps.append(self._stamp())
        self.lengths.append(int(input_ids.shape[1]))
        row = input_ids[:, 0]
        return row.ne(row)  # false for every row


class ForwardCount:
    """A forward hook that counts the passes of a drafting model: each drafts one token."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, *_: Any) -> None:
        """Count one pass."""
        self.passes += 1


class BudgetCriterion:
    """A stopping criterion that ends each row after its own number of new tokens."""

    def __init__(self, prompt_length: int, budgets: Any) -> None:
        self._prompt_length = prompt_length
        self._budgets = budgets  # (batch,)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Tell which rows have all their tokens; ``input_ids`` is (batch x beams, length)."""
        beams = input_ids.shape[0] // self._budgets.shape[0]
        budgets = self._budgets.repeat_interleave(beams)  # (batch x beams,)
        return budgets <= input_ids.shape[1] - self._prompt_length


class HostStamps:
    """Time stamps of a CPU: the monotonic clock, read on the spot."""

    def __init__(self) -> None:
        self.start_ns = time.monotonic_ns()

    def stamp(self) -> int:
        """Read the clock."""
        return time.monotonic_ns()

    def resolve(self, stamps: Sequence[Any]) -> list[int]:
        """Give the stamps as monotonic nanoseconds."""
        return list(stamps)


class CudaStamps:
    """Time stamps of a CUDA stream: events, tied to the host clock at the start of a batch.

    The stream is that of the device where the tokens are; events of another device, such as the
    current one, would know nothing of the work.
    """

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch, self._device = torch, device
        torch.cuda.synchronize(device)
        self.start_ns = time.monotonic_ns()
        self._start = self.stamp()

    def stamp(self) -> Any:
        """Record an event; it waits for nothing."""
        event = self._torch.cuda.Event(enable_timing=True)
        event.record(self._torch.cuda.current_stream(self._device))
        return event

    def resolve(self, stamps: Sequence[Any]) -> list[int]:
        """Give the events as monotonic nanoseconds; the device must be synchronised."""
        return [self.start_ns + round(self._start.elapsed_time(event) * 1e6) for event in stamps]


@dataclass(frozen=True, slots=True)
class BatchTrace:
    """One ``generate`` call.

    Attributes:
        batch: Its requests.
        stamps: Source of its time stamps.
        clock: The hook that took them.
        prompt_length: Padded length of the prompts.
        output: Tokens it gave, prompts included, (batch, length), on the CPU.
        delivered_ns: When it returned.
        drafted: Tokens that the drafting model proposed; ``None`` without one.
    """

    batch: Batch
    stamps: HostStamps | CudaStamps
    clock: TokenClock | BurstClock
    prompt_length: int
    output: Any
    delivered_ns: int
    drafted: int | None = None

    def arrivals(self) -> list[tuple[int, int]]:
        """Tell when tokens came, monotonic nanoseconds, and how many of each row."""
        times = self.stamps.resolve(self.clock.stamps)
        if isinstance(self.clock, TokenClock):
            return [(at, 1) for at in times]
        steps = pairwise([self.prompt_length, *self.clock.lengths])
        counts = (after - before for before, after in steps)
        return [(at, count) for at, count in zip(times, counts, strict=True) if count > 0]


@dataclass(frozen=True, slots=True)
class PyTorchTrace:
    """One pass; resolves its time stamps when asked for samples.

    Attributes:
        pass_index: Its number.
        issued_ns: When it began.
        eos_ids: Ids that end a sequence.
        searches: Whether answers are searched for with beams: a search goes on until that of the
            whole batch ends, however long the answer is that it finds.
        batches: What was generated.
    """

    pass_index: int
    issued_ns: int
    eos_ids: frozenset[int]
    searches: bool = False
    batches: list[BatchTrace] = field(default_factory=list)

    def samples(self) -> tuple[RequestSample, ...]:
        """Give one sample a request, in the order of the batches."""
        made: list[RequestSample] = []
        for index, trace in enumerate(self.batches):
            arrivals, rows = trace.arrivals(), trace.output[:, trace.prompt_length :].tolist()
            made += [
                self._sample(index, trace, arrivals, request, tokens)
                for request, tokens in zip(trace.batch, rows, strict=True)
            ]
        return tuple(made)

    def _sample(
        self,
        index: int,
        trace: BatchTrace,
        arrivals: Sequence[tuple[int, int]],
        request: Request,
        tokens: list[int],
    ) -> RequestSample:
        own_tokens = tokens[: request.max_new_tokens]
        ends = (at + 1 for at, token in enumerate(own_tokens) if token in self.eos_ids)
        produced = next(ends, len(own_tokens))  # up to the end of sequence, that included
        steps = sum(count for _, count in arrivals)
        own, gap_tokens = _own_arrivals(arrivals, steps if self.searches else produced)
        stopped = produced > 0 and tokens[produced - 1] in self.eos_ids
        return RequestSample(
            request=request.index,
            pass_index=self.pass_index,
            batch_index=index,
            input_tokens=len(request.token_ids),
            padded_input_tokens=trace.prompt_length,
            output_tokens=produced,
            executed_output_tokens=steps,
            issued_ns=self.issued_ns,
            scheduled_ns=trace.stamps.start_ns,
            first_token_ns=own[0] if own else None,
            last_token_ns=own[-1] if own else None,
            delivered_ns=trace.delivered_ns,
            gaps_ns=tuple(b - a for a, b in pairwise(own)),
            gap_tokens=gap_tokens,
            finish="stop" if stopped else "length",
            drafted_tokens=trace.drafted,
            # Each step gives one token without a draft as well.
            accepted_tokens=None if trace.drafted is None else produced - len(own),
        )


def _own_arrivals(
    arrivals: Sequence[tuple[int, int]], produced: int
) -> tuple[list[int], tuple[int, ...] | None]:
    """Keep a row's arrivals up to its own last token, and the size of each unless all are 1."""
    times: list[int] = []
    sizes: list[int] = []
    seen = 0
    for at, count in arrivals:
        if seen >= produced:
            break
        times.append(at)
        sizes.append(min(count, produced - seen))
        seen += count
    gaps = tuple(sizes[1:])
    return times, None if all(size == 1 for size in gaps) else gaps
