"""What an engine gets: prompts as tokens, batches of them, and others that warm it up.

And whether it did that work, told by the tokens of every request and by the settings in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import QUANTISED, Precision, compute_dtype
from llenergymeasure.core.backends.protocol import (
    Arrival,
    Batch,
    ChatTokenizer,
    InferenceEngine,
    PassTrace,
    Progress,
    Request,
    RequestEngine,
    Tokenizer,
)
from llenergymeasure.domain.prompts import Message, Prompt
from llenergymeasure.domain.samples import LatencyStart, RequestSample
from llenergymeasure.exceptions import BackendError, ConfigError


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
    token_rows: int | None = None,
) -> Workload:
    """Turn the first ``n`` prompts into requests.

    A prompt longer than ``max_input_tokens`` keeps its beginning; under a chat template its text is
    cut instead of its tokens, so that the template stays whole, and a chat loses its last turns
    first. A prompt's own ``max_new_tokens`` and system message come before those of the experiment.

    Args:
        prompts: Prompts of the dataset, from its start.
        tokenizer: The tokenizer of the measured model.
        config: What to measure.
        context_limit: Most tokens of prompt and answer together that the engine takes.
        token_rows: Rows of the model's table of embeddings, where they are known.

    Raises:
        ConfigError: A prompt has no tokens, or one that the model does not have, or does not fit
            the context with its answer.
    """
    limit, requests, truncated = config.max_input_tokens, [], 0
    for index, prompt in enumerate(prompts[: config.n]):
        tokens = prompt.token_ids
        if prompt.messages or (config.system_prompt and tokens is None):
            tokens, cut = _of_chat(prompt, tokenizer, config)
            truncated += cut
        elif tokens is None:
            tokens = tuple(tokenizer.encode(prompt.text or ""))
        if limit is not None and len(tokens) > limit:
            tokens, truncated = _cut(tokens, prompt, tokenizer, config), truncated + 1
        if not tokens or max(tokens) >= (token_rows or math.inf):
            raise _unfit(index, tokens, token_rows)
        requests.append(Request(index, tokens, prompt.max_new_tokens or config.max_new_tokens))

    too_long = [each for each in requests if each.positions > (context_limit or math.inf)]
    if too_long:
        worst, count = max(too_long, key=lambda each: each.positions), len(too_long)
        raise ConfigError(
            f"{count} {'prompt does' if count == 1 else 'prompts do'} not fit the model's context "
            f"of {context_limit} tokens; prompt {worst.index + 1} has {len(worst.token_ids)} "
            f"tokens and max_new_tokens {worst.max_new_tokens}; lower max_input_tokens or "
            "max_new_tokens",
            where="max_input_tokens",
        )
    return Workload(tuple(requests), truncated)


def _unfit(index: int, tokens: tuple[int, ...], token_rows: int | None) -> ConfigError:
    """Say why a prompt can not be given to a model."""
    if tokens:
        what = (
            f"has token {max(tokens)}, which the model's table of {token_rows} embeddings does not "
            "have; leave that text out, or name a model whose tokenizer is its own"
        )
    else:
        what = f"has no tokens; remove it, or set n: {index} to stop before it"
    number = index + 1
    return ConfigError(f"prompt {number} of the dataset {what}", where=f"dataset, prompt {number}")


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
    numbers: Sequence[int] | None = None,
) -> tuple[Batch, ...]:
    """Make batches of the measured shapes with other prompts, so that no prefix is cached.

    The largest batch (rows x longest row, answer included) comes first, so that memory is grown
    and kernels are chosen before the window; the others are spread evenly over the plan, which is
    gone through again where ``n`` is larger. Every request keeps its number of tokens and its
    ``max_new_tokens``, and goes on to these whatever the model says: one that ended early would
    leave the later steps to the window. Equal arguments give equal batches, made at once or one by
    one.

    Args:
        plan: The measured batches.
        n: Batches of the whole warm-up.
        ordinary_ids: Ids to draw tokens from.
        seed: Seed of the draw.
        numbers: Which of them to make, from 0; all by default. One beyond ``n``, of a warm-up that
            goes on, has the shape of the largest.

    Raises:
        BackendError: The tokenizer has no ordinary tokens to draw from.
    """
    numbers = range(n) if numbers is None else numbers
    if not plan or not numbers:
        return ()
    if not len(ordinary_ids):
        raise BackendError(
            "warm-up has no ordinary tokens to draw prompts from; set warmup.n_warmup: 0 and "
            "warmup.thermal_floor_seconds: 0",
            where="warmup",
        )
    import numpy as np

    ids, batches = np.asarray(ordinary_ids, np.int64), []
    tour = warmup_tour(plan, n)
    for number in numbers:
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        drawn = [
            (one, ids[generator.integers(0, len(ids), len(one.token_ids))].tolist())
            for one in plan[tour[number] if number < len(tour) else tour[0]]
        ]
        batches.append(
            tuple(replace(one, token_ids=tuple(tokens), full_length=True) for one, tokens in drawn)
        )
    return tuple(batches)


def _cut(
    tokens: tuple[int, ...], prompt: Prompt, tokenizer: Tokenizer, config: ExperimentConfig
) -> tuple[int, ...]:
    limit = config.max_input_tokens
    assert limit is not None
    if not config.apply_chat_template or prompt.text is None:
        return tokens[:limit]
    return _shortened(prompt.text, tokens, limit, tokenizer.encode)


def _of_chat(
    prompt: Prompt, tokenizer: Tokenizer, config: ExperimentConfig
) -> tuple[tuple[int, ...], bool]:
    """Give the tokens of a chat, and whether it was cut to ``max_input_tokens``."""
    if not isinstance(tokenizer, ChatTokenizer):
        what = f"backend {config.backend} takes no chats; name a column of plain text"
        raise ConfigError(f"{what} (dataset: {{path: ..., column: ...}})", where="dataset")
    encode, limit = tokenizer.encode_chat, config.max_input_tokens
    turns = [*(prompt.messages or (Message("user", prompt.text or ""),))]
    if config.system_prompt and turns[0].role != "system":
        turns.insert(0, Message("system", config.system_prompt))
    tokens = tuple(encode(turns))
    if limit is None or len(tokens) <= limit:
        return tokens, False

    def ending(text: str) -> list[int]:
        return encode([*turns[:-1], Message("user", text)])

    asking = [number for number, turn in enumerate(turns) if turn.role == "user"]
    while len(asking) > 1 and len(ending(turns[-1].content[0])) > limit:
        asking.pop()
        turns = turns[: asking[-1] + 1]
    text = turns[-1].content
    return _shortened(text, tuple(ending(text)), limit, ending), True


def _shortened(
    text: str, tokens: tuple[int, ...], limit: int, encode: Callable[[str], Iterable[int]]
) -> tuple[int, ...]:
    """Cut a text until its tokens are within a limit, those of a chat template around it included.

    Raises:
        ConfigError: The template alone has more.
    """
    while text and len(tokens) > limit:
        keep = min(len(text) - 1, max(1, len(text) * limit // len(tokens)))
        text = text[:keep]
        tokens = tuple(encode(text))
    if not text:
        raise ConfigError(
            f"the chat template alone has {len(tokens)} tokens, which leaves nothing of "
            f"max_input_tokens: {limit} to a prompt; raise it, or set it to null",
            where="max_input_tokens",
        )
    return tokens


def warmup_tour(plan: Sequence[Batch], n: int) -> list[int]:
    """Choose positions in the plan for ``n`` batches, and one at least.

    The largest batch comes first, then the others at even distances.
    """
    sizes = [len(batch) * max((one.positions for one in batch), default=0) for batch in plan]
    largest = sizes.index(max(sizes))
    others = [position for position in range(len(plan)) if position != largest]
    if n > len(plan):
        return [[largest, *others][step % len(plan)] for step in range(n)]
    return [largest, *(others[step * len(others) // (n - 1)] for step in range(n - 1))]


class AskedTokens(NamedTuple):
    """Tokens of one request, as the engine was asked.

    Attributes:
        input_tokens: Tokens of the prompt.
        output_tokens: Most tokens of the answer.
    """

    input_tokens: int
    output_tokens: int


def asked_of(requests: Iterable[Request]) -> tuple[AskedTokens, ...]:
    """Count what is asked, in the order of the dataset."""
    return tuple(AskedTokens(len(one.token_ids), one.max_new_tokens) for one in requests)


def departures(
    samples: Iterable[RequestSample], asked: Sequence[AskedTokens], *, ignores_eos: bool
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


def other_arithmetic(precision: Precision, in_force: Mapping[str, Any]) -> str | None:
    """Say what an engine does otherwise than its ``precision`` means, or ``None``.

    Args:
        precision: What was asked for.
        in_force: ``resolved.backend`` of the result; an engine that does not tell its
            ``compute_dtype`` or ``quantization`` is taken at its word.
    """
    dtype = in_force.get("compute_dtype")
    if dtype is not None and dtype != (wanted := compute_dtype(precision)):
        return f"precision: {precision} means to compute in {wanted}, and the engine has {dtype}"
    if "quantization" not in in_force:
        return None
    method = in_force["quantization"]
    if precision in QUANTISED and method is None:
        return f"precision: {precision} means quantised weights, and those of the engine are not"
    if precision not in QUANTISED and method is not None:
        return f"precision: {precision} means plain weights, and the engine has {method}"
    return None


def _of(count: int, whole: Sequence[object]) -> str:
    return f"{count:,} of {len(whole):,}"
