"""Cross-field rules of one experiment: what contradicts itself, and what would have no effect.

Two configurations that run the same computation must never pose as two, so a setting that the
rest makes meaningless is reported like a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from llenergymeasure.config.backend_facts import LEFT_TO_ENGINES
from llenergymeasure.config.base import FieldProblem
from llenergymeasure.config.experiment_fields import (
    MOST_PROMPTS,
    NEUTRAL_DECODER,
    BaselineConfig,
    ExperimentFields,
    SyntheticDataset,
)
from llenergymeasure.config.names import PATH_PREFIXES, RANDOM_PREFIX
from llenergymeasure.config.registry import all_backends, backend_entry, backend_names


def with_synthetic_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Let a synthetic dataset decide the counts that are not given beside it."""
    dataset = data.get("dataset")
    given = dataset.model_dump() if isinstance(dataset, BaseModel) else dataset
    shape = given.get("synthetic") if isinstance(given, dict) else None
    if not isinstance(shape, dict):
        return data
    implied = {"max_input_tokens": None, "max_new_tokens": shape.get("output_len", 128)}
    count = data.get("n")
    return {**implied, **data, "n": shape.get("n") or MOST_PROMPTS if count is None else count}


class _Rule(NamedTuple):
    """A setting that contradicts others, or that has no effect beside them.

    Attributes:
        field: Where that is reported.
        broken: Tells whether it is so.
        what: What is said then; ``{c}`` is the configuration.
        remedy: What to change, where that is not said yet.
    """

    field: str
    broken: Callable[[ExperimentFields], bool]
    what: str
    remedy: str = ""


def _only_for_sampling(name: str) -> _Rule:
    return _Rule(
        f"decoder.{name}",
        lambda c: (
            c.decoder.decoding_strategy != "sampling" and getattr(c.decoder, name) is not None
        ),
        "has no effect under {c.decoder.decoding_strategy} decoding",
        "remove it or set decoder.decoding_strategy: sampling",
    )


_RULES = (
    _Rule(
        "revision",
        lambda c: c.revision is not None and c.model.startswith(RANDOM_PREFIX),
        "has no effect on random weights",
        "remove it",
    ),
    _Rule(
        "revision",
        lambda c: c.revision is not None and c.model.startswith(PATH_PREFIXES),
        "has no effect on a local directory",
        "remove it",
    ),
    _Rule(
        "baseline.duration_seconds",
        lambda c: not c.baseline.enabled and c.baseline != BaselineConfig(enabled=False),
        "has no effect while baseline.enabled is false",
        "remove one of them",
    ),
    *map(_only_for_sampling, ("temperature", "top_p", "top_k")),
    _Rule(
        "decoder.num_beams",
        lambda c: c.decoder.decoding_strategy == "beam" and c.decoder.num_beams is None,
        "beam search needs a number of beams, e.g. num_beams: 4",
    ),
    _Rule(
        "decoder.num_beams",
        lambda c: c.decoder.decoding_strategy != "beam" and c.decoder.num_beams is not None,
        "has no effect without beam search",
        "remove it or set decoder.decoding_strategy: beam",
    ),
    _Rule(
        "decoder.draft_model",
        lambda c: c.decoder.speculative_decoding and c.decoder.draft_model is None,
        "speculative decoding needs a model that drafts",
    ),
    _Rule(
        "decoder.draft_model",
        lambda c: c.decoder.draft_model is not None and not c.decoder.speculative_decoding,
        "has no effect unless decoder.speculative_decoding: true",
        "remove it or switch speculation on",
    ),
    _Rule(
        "decoder.speculative_decoding",
        lambda c: c.decoder.speculative_decoding and c.decoder.decoding_strategy == "beam",
        "does not combine with beam search",
    ),
    _Rule(
        "decoder.min_new_tokens",
        lambda c: c.decoder.min_new_tokens is not None and c.ignores_eos,
        "has no effect while the end of sequence is ignored",
        "remove it",
    ),
    _Rule(
        "decoder.min_new_tokens",
        lambda c: not c.ignores_eos and (c.decoder.min_new_tokens or 0) > c.max_new_tokens,
        "{c.decoder.min_new_tokens} is more than max_new_tokens: {c.max_new_tokens}",
    ),
    _Rule(
        "n",
        lambda c: (
            isinstance(c.dataset, SyntheticDataset)
            and (c.n or MOST_PROMPTS) > (c.dataset.synthetic.n or math.inf)
        ),
        "{c.n} is more than dataset.synthetic.n: {c.dataset.synthetic.n}",
    ),
    _Rule(
        "max_input_tokens",
        lambda c: (
            isinstance(c.dataset, SyntheticDataset)
            and (c.max_input_tokens or c.dataset.synthetic.input_len)
            < c.dataset.synthetic.input_len
        ),
        "{c.max_input_tokens} would truncate prompts of dataset.synthetic.input_len: "
        "{c.dataset.synthetic.input_len}",
        "remove it",
    ),
    _Rule(
        "max_new_tokens",
        lambda c: (
            isinstance(c.dataset, SyntheticDataset)
            and c.max_new_tokens != c.dataset.synthetic.output_len
        ),
        "{c.max_new_tokens} has no effect; dataset.synthetic.output_len: "
        "{c.dataset.synthetic.output_len} decides",
    ),
    _Rule(
        "apply_chat_template",
        lambda c: c.apply_chat_template and isinstance(c.dataset, SyntheticDataset),
        "would change the exact lengths of a synthetic dataset",
    ),
    _Rule(
        "system_prompt",
        lambda c: c.system_prompt is not None and isinstance(c.dataset, SyntheticDataset),
        "has no effect on the random tokens of a synthetic dataset",
        "remove it",
    ),
    _Rule(
        "lora",
        lambda c: (
            c.lora is not None and (c.lora.adapter_id is None) == (c.lora.adapter_path is None)
        ),
        "give exactly one of adapter_id and adapter_path",
    ),
    _Rule(
        "window.phases",
        lambda c: c.window.phases == "differential" and c.energy_backend == "none",
        "differential tells the energy of prefill from that of decode, and energy_backend: none "
        "reads no energy",
        "remove one of them",
    ),
)


def contradictions(config: ExperimentFields) -> list[FieldProblem]:
    """List everything in a configuration that contradicts something else in it."""
    broken = (rule for rule in _RULES if rule.broken(config))
    return [
        *_not_of_the_backend(config),
        *_not_in_its_power(config),
        *(FieldProblem(rule.field, rule.what.format(c=config), rule.remedy) for rule in broken),
        *backend_entry(config.backend).contradictions(config),
    ]


def _not_of_the_backend(config: ExperimentFields) -> Iterator[FieldProblem]:
    """Refuse sections of other backends, and what the engine would drop in silence."""
    for name in backend_names():
        if name != config.backend and getattr(config, name, None) is not None:
            yield FieldProblem(
                name,
                f"does not apply to backend: {config.backend}",
                f"remove the line '{name}:' or set backend: {name}",
            )
    honours = backend_entry(config.backend).honours
    for name in asked_of_engines(config):
        if name not in honours:
            others = [other for other, facts in all_backends().items() if name in facts.honours]
            elsewhere = f", or use backend: {' or '.join(others)}" if others else ""
            what = f"{config.backend} does not honour it"
            yield FieldProblem(name, what, f"remove it{elsewhere}")


def _not_in_its_power(config: ExperimentFields) -> Iterator[FieldProblem]:
    """Refuse arithmetic and decoding that the backend has not."""
    facts, strategy = backend_entry(config.backend), config.decoder.decoding_strategy
    if config.precision not in facts.precisions:
        yield FieldProblem(
            "precision",
            f"{config.backend} cannot run {config.precision}; it has {', '.join(facts.precisions)}",
        )
    if strategy not in facts.decoding:
        yield FieldProblem(
            "decoder.decoding_strategy",
            f"{config.backend} has no {strategy} here; it has {', '.join(facts.decoding)}",
        )
    field, methods = f"{config.backend}.quantization", facts.quantisation
    method = getattr(getattr(config, config.backend, None), "quantization", None)
    if not methods or method is None:
        return
    allowed = methods.get(method, ())
    if not allowed:
        yield FieldProblem(
            field,
            f"'{method}' is no method whose precision is known; use one of {', '.join(methods)}",
        )
    elif config.precision not in allowed:
        yield FieldProblem(
            field,
            f"{method} contradicts precision: {config.precision}",
            f"set precision to {' or '.join(allowed)}",
        )


def asked_of_engines(config: ExperimentFields) -> Iterator[str]:
    """Name the settings that only an engine can carry out and that ask it for something.

    The strategy of decoding and its beams are not among them: ``BackendFacts.decoding`` says which
    strategies there are.
    """
    for name, field in type(config.decoder).model_fields.items():
        value = getattr(config.decoder, name)
        neutral = value in (field.default, NEUTRAL_DECODER.get(name))
        if not neutral and name not in ("decoding_strategy", "num_beams"):
            yield f"decoder.{name}"
    for name in LEFT_TO_ENGINES:
        if getattr(config, name) != ExperimentFields.model_fields[name].default:
            yield name
