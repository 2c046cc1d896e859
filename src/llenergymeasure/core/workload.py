"""What an engine gets: prompts as tokens, batches of them, and others that warm it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.protocol import (
    Arrival,
    Batch,
    InferenceEngine,
    PassTrace,
    Progress,
    Request,
    RequestEngine,
    Tokenizer,
)
from llenergymeasure.domain.prompts import Prompt
from llenergymeasure.domain.samples import LatencyStart
from llenergymeasure.exceptions import BackendError, ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of one pass.

    Attributes:
        requests: One a prompt, in the order of the dataset.
        truncated: How many prompts were cut to ``max_input_tokens``.
        latency_start: What the times of a request count from.
    """

    requests: tuple[Request, ...]
    truncated: int
    latency_start: LatencyStart = "scheduled"


def build_requests(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    config: ExperimentConfig,
    context_limit: int | None = None,
) -> Workload:
    """Turn the first ``n`` prompts into requests.

    A prompt longer than ``max_input_tokens`` keeps its beginning; under a chat template its text is
    cut instead of its tokens, so that the template stays whole. A prompt's own ``max_new_tokens``
    comes before that of the experiment.

    Args:
        prompts: Prompts of the dataset, from its start.
        tokenizer: The tokenizer of the measured model.
        config: What to measure.
        context_limit: Most tokens of prompt and answer together that the engine takes.

    Raises:
        ConfigError: A prompt has no tokens, or does not fit the context with its answer.
    """
    limit, requests, truncated = config.max_input_tokens, [], 0
    for index, prompt in enumerate(prompts[: config.n]):
        tokens = _tokens(index, prompt, tokenizer)
        if limit is not None and len(tokens) > limit:
            tokens, truncated = _cut(tokens, prompt, tokenizer, config), truncated + 1
        requests.append(Request(index, tokens, prompt.max_new_tokens or config.max_new_tokens))
    _check_context(requests, context_limit)
    return Workload(tuple(requests), truncated)


def batches_for(engine: InferenceEngine, requests: Sequence[Request]) -> tuple[Batch, ...]:
    """Group requests as an engine works on them; one that schedules itself gets them in one go."""
    if isinstance(engine, RequestEngine):
        return (tuple(requests),) if requests else ()
    return engine.plan(requests)


def run_batches(
    engine: InferenceEngine, batches: Sequence[Batch], pass_index: int, progress: Progress
) -> list[PassTrace]:
    """Have an engine of either kind generate, batch after batch; nothing waits for a due time.

    Args:
        engine: The engine.
        batches: What :func:`batches_for` gave for it, or others to the same pattern.
        pass_index: Number of this pass.
        progress: Called with the number of requests that finished since it was last called.
    """
    if isinstance(engine, RequestEngine):
        return [
            engine.serve([Arrival(request) for request in batch], pass_index, progress)
            for batch in batches
        ]
    return [engine.run(batches, pass_index, progress)]


def warmup_batches(
    plan: Sequence[Batch],
    n: int,
    ordinary_ids: Sequence[int],
    seed: int,
    *,
    first: int = 0,
) -> tuple[Batch, ...]:
    """Make ``n`` batches of the measured shapes with other prompts, so that no prefix is cached.

    The largest batch (rows x longest row, answer included) comes first, so that memory is grown
    and kernels are chosen before the window; the others are spread evenly over the plan, which is
    gone through again where ``n`` is larger. Every request keeps its number of tokens and its
    ``max_new_tokens``. Equal arguments give equal batches.

    Args:
        plan: The measured batches.
        n: Batches to make.
        ordinary_ids: Ids to draw tokens from.
        seed: Seed of the draw.
        first: Number of the first batch. A call that goes on where another ended gives its number
            of batches here, and so draws other prompts.

    Raises:
        BackendError: The tokenizer has no ordinary tokens to draw from.
    """
    if not plan or not n:
        return ()
    if not len(ordinary_ids):
        raise BackendError(
            "warm-up has no ordinary tokens to draw prompts from; set warmup.n_warmup: 0 and "
            "warmup.thermal_floor_seconds: 0",
            where="warmup",
        )
    import numpy as np

    ids = np.asarray(ordinary_ids, np.int64)
    return tuple(
        _redrawn(plan[position], ids, np.random.Generator(np.random.PCG64([seed, number])))
        for number, position in enumerate(_tour(plan, n), start=first)
    )


def _tokens(index: int, prompt: Prompt, tokenizer: Tokenizer) -> tuple[int, ...]:
    tokens = prompt.token_ids
    if tokens is None:
        tokens = tuple(tokenizer.encode(prompt.text or ""))
    if not tokens:
        raise ConfigError(
            f"prompt {index + 1} of the dataset has no tokens; remove it, or set n: {index} to "
            "stop before it",
            where=f"dataset, prompt {index + 1}",
        )
    return tokens


def _cut(
    tokens: tuple[int, ...], prompt: Prompt, tokenizer: Tokenizer, config: ExperimentConfig
) -> tuple[int, ...]:
    limit = config.max_input_tokens
    assert limit is not None
    text = prompt.text
    if not config.apply_chat_template or text is None:
        return tokens[:limit]
    while text and len(tokens) > limit:
        keep = min(len(text) - 1, len(text) * limit // len(tokens))
        text = text[:keep]
        tokens = tuple(tokenizer.encode(text))
    if len(tokens) > limit:
        raise ConfigError(
            f"the chat template alone has {len(tokens)} tokens, more than max_input_tokens: "
            f"{limit}; raise it, or set it to null",
            where="max_input_tokens",
        )
    return tokens


def _check_context(requests: Sequence[Request], context_limit: int | None) -> None:
    if context_limit is None:
        return
    too_long = [r for r in requests if len(r.token_ids) + r.max_new_tokens > context_limit]
    if not too_long:
        return
    worst = max(too_long, key=lambda r: len(r.token_ids) + r.max_new_tokens)
    count = len(too_long)
    raise ConfigError(
        f"{count} {'prompt does' if count == 1 else 'prompts do'} not fit the model's context of "
        f"{context_limit} tokens; prompt {worst.index + 1} has {len(worst.token_ids)} tokens and "
        f"max_new_tokens {worst.max_new_tokens}; lower max_input_tokens or max_new_tokens",
        where="max_input_tokens",
    )


def _tour(plan: Sequence[Batch], n: int) -> list[int]:
    """Choose positions in the plan: the largest batch, then the others at even distances."""
    largest = max(range(len(plan)), key=lambda position: _positions(plan[position]))
    others = [position for position in range(len(plan)) if position != largest]
    if n > len(plan):
        return [[largest, *others][step % len(plan)] for step in range(n)]
    return [largest, *(others[step * len(others) // (n - 1)] for step in range(n - 1))]


def _positions(batch: Batch) -> int:
    longest = max((len(request.token_ids) + request.max_new_tokens for request in batch), default=0)
    return len(batch) * longest


def _redrawn(batch: Batch, ids: npt.NDArray[np.int64], generator: np.random.Generator) -> Batch:
    return tuple(
        Request(
            request.index,
            tuple(ids[generator.integers(0, len(ids), len(request.token_ids))].tolist()),
            request.max_new_tokens,
        )
        for request in batch
    )
