"""Did the configurations of a study get the same work? Told by counting tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from llenergymeasure.domain.results import ExperimentResult

_WORKLOAD = {
    *("model", "revision", "dataset", "n", "max_input_tokens", "max_new_tokens"),
    *("apply_chat_template", "decoder", "lora"),
}


class Work(NamedTuple):
    """Tokens of one pass over the prompts.

    Attributes:
        input_tokens: Prompt tokens that the engine got.
        output_tokens: Tokens that it produced.
        truncated: Prompts that were cut.
    """

    input_tokens: float
    output_tokens: float
    truncated: int


def unequal_work(results: Iterable[tuple[int, ExperimentResult]]) -> Iterator[str]:
    """Say where configurations that ask for the same prompts did not do the same work.

    Args:
        results: Results, each with the number of its configuration.
    """
    groups: dict[str, dict[int, Work]] = defaultdict(dict)
    for configuration, result in results:
        groups[_workload(result)].setdefault(configuration, _work(result))
    for members in groups.values():
        if len({work.input_tokens for work in members.values()}) > 1:
            yield f"the engines did not get the same prompts: {_told(members, 'input_tokens')}"
        if len({work.output_tokens for work in members.values()}) > 1:
            yield (
                f"answers were not equally long: {_told(members, 'output_tokens')}; "
                "decoder.ignore_eos makes them so"
            )


def _workload(result: ExperimentResult) -> str:
    return result.config.model_dump_json(include=_WORKLOAD)


def _work(result: ExperimentResult) -> Work:
    did = result.throughput
    passes = max(did.passes, 1)
    return Work(did.input_tokens / passes, did.output_tokens / passes, did.prompts_truncated)


def _told(members: dict[int, Work], name: str) -> str:
    shown = [f"#{one} {getattr(work, name):,.0f}" for one, work in sorted(members.items())]
    return ", ".join(shown[:4]) + (", ..." if len(shown) > 4 else "") + " tokens a pass"
