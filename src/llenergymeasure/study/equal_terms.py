"""Were the configurations of a study compared on equal terms? What can be counted is counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llenergymeasure.config.models import SyntheticDataset
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.workload import other_arithmetic
from llenergymeasure.domain.results import ExperimentResult, Note

_WORKLOAD = {
    *("model", "revision", "dataset", "n", "max_input_tokens", "max_new_tokens"),
    *("apply_chat_template", "system_prompt", "decoder", "lora"),
}
_MOST = 4


class Difference(NamedTuple):
    """One thing that engines do each in their own way.

    Attributes:
        about: What, with the figures that it bears on, in a few words.
        so: What follows for a comparison, a sentence.
        when: Tells of which results it holds.
    """

    about: str
    so: str
    when: Callable[[ExperimentResult], bool] = lambda _: True


def _quantised(precision: str) -> Difference:
    return Difference(
        precision,
        "One name, other arithmetic.",
        lambda result: result.config.precision == precision,
    )


DIFFERENCES = {
    "scheduling": Difference("scheduling (TTFT)", "TTFT does not compare as it stands."),
    "kv_cache": Difference("KV cache (peak memory)", "Peak memory does not compare as it stands."),
    "clocks": Difference(
        "clocks (TTFT, TPOT, ITL)", "Small differences of times may be those of the clocks."
    ),
    "kernels": Difference(
        "kernels (rounding)",
        "Greedy answers may part after some tokens.",
        lambda result: result.config.precision != "fp32",
    ),
    **{precision: _quantised(precision) for precision in ("int8", "int4", "fp8")},
    "random_weights": Difference(
        "random weights (energy)",
        "Power depends on the values, so a difference of energy may be theirs.",
        lambda result: result.resolved.model.weights == "random",
    ),
    "sampling": Difference(
        "sampled tokens",
        "One seed, other tokens.",
        lambda result: result.config.decoder.decoding_strategy == "sampling",
    ),
    "beam_search": Difference(
        "beam search",
        "TTFT, TPOT and ITL do not compare, and answers may be of other lengths.",
        lambda result: result.config.decoder.decoding_strategy == "beam",
    ),
    "speculation": Difference(
        "speculative decoding",
        "What is accepted differs, and the work with it.",
        lambda result: result.config.decoder.speculative_decoding,
    ),
    "warm_up": Difference(
        "warm-up",
        "The same warmup.n_warmup is more work where a batch is a pass.",
        lambda result: result.warmup.batches > 0,
    ),
    "threads": Difference(
        "CPU threads",
        "Set pytorch.num_threads to compare equal numbers.",
        lambda result: result.memory.kind == "resident_set",
    ),
}
"""What engines do each in their own way and cannot be made equal, by the key under which a backend
says what it does (``BackendFacts.differs``). Their pages in ``docs/engines`` say more."""

Numbered = tuple[int, ExperimentResult]
"""A result with the number of its configuration."""


def unequal_terms(results: Sequence[Numbered]) -> Iterator[Note]:
    """Say everything in which configurations were not compared on equal terms.

    Args:
        results: Results, each with the number of its configuration.
    """
    yield from (Note(kind="work", text=text) for text in unequal_work(results))
    yield from (Note(kind="work", text=text) for text in unequal_arithmetic(results))
    yield from unequal_engines(result for _, result in results)


def unequal_work(results: Iterable[Numbered]) -> Iterator[str]:
    """Say where configurations that ask for the same prompts did not do the same work."""
    groups: dict[str, dict[int, ExperimentResult]] = defaultdict(dict)
    for configuration, result in results:
        groups[result.config.model_dump_json(include=_WORKLOAD)].setdefault(configuration, result)
    for members in groups.values():
        yield from _unequal_members(members)
        prompts = {result.resolved.dataset.sha256 for result in members.values()}
        if len(prompts) > 1 and all(
            not isinstance(one.config.dataset, SyntheticDataset) for one in members.values()
        ):
            yield "the configurations did not get the same prompts: their dataset changed meanwhile"
        tokenizers = {result.resolved.model.tokenizer_sha256 for result in members.values()}
        if len(tokenizers - {None}) > 1:
            yield "the engines did not get the same prompts: their tokenizers differ"


def unequal_arithmetic(results: Iterable[Numbered]) -> Iterator[str]:
    """Say where an engine computes in something else than its ``precision`` means."""
    found: dict[str, set[int]] = defaultdict(set)
    for configuration, result in results:
        other = other_arithmetic(result.config.precision, result.resolved.backend)
        if other is not None:
            found[f"{result.config.backend}: {other}"].add(configuration)
    for text, numbers in found.items():
        yield f"{_shortened([f'#{one}' for one in sorted(numbers)])} {text}"


def unequal_engines(results: Iterable[ExperimentResult]) -> Iterator[Note]:
    """Say what the engines of a study do each in their own way; nothing where there is one."""
    by_backend: dict[str, list[ExperimentResult]] = defaultdict(list)
    for result in results:
        by_backend[result.config.backend].append(result)
    for key, difference in DIFFERENCES.items():
        ways = dict(_ways(key, difference, by_backend))
        if len(set(ways.values())) > 1:
            told = "; ".join(f"{backend}: {way}" for backend, way in ways.items())
            yield Note(
                kind="difference", text=f"{told}. {difference.so}", about=(difference.about,)
            )
    unknown = [name for name in by_backend if not backend_entry(name).differs]
    if unknown and len(by_backend) > 1:
        names = ", ".join(unknown)
        yield Note(
            kind="other",
            text=f"what {names} does otherwise than the other engines is not known here",
        )


def _unequal_members(members: Mapping[int, ExperimentResult]) -> Iterator[str]:
    did = {one: result.throughput for one, result in sorted(members.items())}
    passes = {one: max(work.passes, 1) for one, work in did.items()}
    other = "the engines did not get the same prompts:"
    if told := _unequal({one: did[one].input_tokens / passes[one] for one in did}):
        yield f"{other} {told} tokens a pass"
    if told := _unequal({one: work.prompts_truncated for one, work in did.items()}):
        yield f"{other} {told} were cut"
    if told := _unequal({one: did[one].output_tokens / passes[one] for one in did}):
        yield (
            f"answers were not equally long: {told} tokens a pass; decoder.ignore_eos makes them so"
        )


def _unequal(figures: Mapping[int, float]) -> str:
    """Name configurations with their figures; nothing where all have the same."""
    if len(set(figures.values())) == 1:
        return ""
    return _shortened([f"#{one} {figure:,.0f}" for one, figure in figures.items()])


def _shortened(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_MOST]) + (", ..." if len(parts) > _MOST else "")


def _ways(
    key: str, difference: Difference, by_backend: Mapping[str, Sequence[ExperimentResult]]
) -> Iterator[tuple[str, str]]:
    """Give what each backend does, where the difference is one of its results."""
    for backend, results in by_backend.items():
        way = backend_entry(backend).differs.get(key)
        concerned = [result.resolved.backend for result in results if difference.when(result)]
        if way is not None and concerned:
            yield backend, _filled(way, concerned)


def _filled(way: str, in_force: Sequence[Mapping[str, Any]]) -> str:
    """Put settings in force into a text, each of their values once."""

    def values(name: re.Match[str]) -> str:
        found = dict.fromkeys(_plain(settings.get(name[1])) for settings in in_force)
        return _shortened(list(found))

    return re.sub(r"\{(\w+)\}", values, way)


def _plain(value: object) -> str:
    if value is None:
        return "unknown"
    return str(value).lower() if isinstance(value, bool) else str(value)
