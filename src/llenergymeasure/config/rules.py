"""Cross-field rules of one experiment: what contradicts itself, and what would have no effect.

Two configurations that run the same computation must never pose as two, so a setting that the
rest makes meaningless is reported like a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from llenergymeasure.config.backend_facts import LEFT_TO_ENGINES
from llenergymeasure.config.base import FieldProblem
from llenergymeasure.config.experiment_fields import NEUTRAL_DECODER, ExperimentFields
from llenergymeasure.config.names import PATH_PREFIXES, RANDOM_PREFIX
from llenergymeasure.config.registry import all_backends, backend_entry, backend_names


def with_synthetic_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Let a synthetic dataset decide the counts that are not given beside it."""
    dataset = data.get("dataset")
    given = dataset.model_dump() if isinstance(dataset, BaseModel) else dataset
    shape = given.get("synthetic") if isinstance(given, dict) else None
    if not isinstance(shape, dict):
        return data
    implied = {
        "n": shape.get("n") or 100,
        "max_input_tokens": None,
        "max_new_tokens": shape.get("output_len", 128),
    }
    return {**implied, **data}


Rule = Callable[[ExperimentFields], Iterator[FieldProblem]]
_RULES: list[Rule] = []


def _rule(rule: Rule) -> Rule:
    """Put a rule among those that every configuration is held against."""
    _RULES.append(rule)
    return rule


def contradictions(config: ExperimentFields) -> list[FieldProblem]:
    """List everything in a configuration that contradicts something else in it."""
    return [
        *(problem for rule in _RULES for problem in rule(config)),
        *backend_entry(config.backend).contradictions(config),
    ]


@_rule
def _sections_match_backend(config: ExperimentFields) -> Iterator[FieldProblem]:
    for name in backend_names():
        if name != config.backend and getattr(config, name, None) is not None:
            yield FieldProblem(
                name,
                f"does not apply to backend: {config.backend}",
                f"remove the line '{name}:' or set backend: {name}",
            )


@_rule
def _backend_can(config: ExperimentFields) -> Iterator[FieldProblem]:
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


@_rule
def _settings_are_honoured(config: ExperimentFields) -> Iterator[FieldProblem]:
    """Refuse what the engine would drop in silence."""
    honours = backend_entry(config.backend).honours
    for name in asked_of_engines(config):
        if name not in honours:
            others = [other for other, facts in all_backends().items() if name in facts.honours]
            elsewhere = f", or use backend: {' or '.join(others)}" if others else ""
            what = f"{config.backend} does not honour it"
            yield FieldProblem(name, what, f"remove it{elsewhere}")


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


@_rule
def _revision_has_effect(config: ExperimentFields) -> Iterator[FieldProblem]:
    if config.revision is None:
        return
    if config.model.startswith(RANDOM_PREFIX):
        yield FieldProblem("revision", "has no effect on random weights", "remove it")
    if config.model.startswith(PATH_PREFIXES):
        yield FieldProblem("revision", "has no effect on a local directory", "remove it")


@_rule
def _baseline_settings_have_effect(config: ExperimentFields) -> Iterator[FieldProblem]:
    default_s = type(config.baseline).model_fields["duration_seconds"].default
    if not config.baseline.enabled and config.baseline.duration_seconds != default_s:
        yield FieldProblem(
            "baseline.duration_seconds",
            "has no effect while baseline.enabled is false",
            "remove one of them",
        )


@_rule
def _parameters_belong_to_the_strategy(config: ExperimentFields) -> Iterator[FieldProblem]:
    decoder, strategy = config.decoder, config.decoder.decoding_strategy
    for name in ("temperature", "top_p", "top_k") if strategy != "sampling" else ():
        if getattr(decoder, name) is not None:
            yield FieldProblem(
                f"decoder.{name}",
                f"has no effect under {strategy} decoding",
                "remove it or set decoder.decoding_strategy: sampling",
            )
    if strategy == "beam" and decoder.num_beams is None:
        yield FieldProblem(
            "decoder.num_beams", "beam search needs a number of beams, e.g. num_beams: 4"
        )
    if strategy != "beam" and decoder.num_beams is not None:
        yield FieldProblem(
            "decoder.num_beams",
            "has no effect without beam search",
            "remove it or set decoder.decoding_strategy: beam",
        )


@_rule
def _speculation_is_whole(config: ExperimentFields) -> Iterator[FieldProblem]:
    decoder = config.decoder
    if decoder.speculative_decoding and decoder.draft_model is None:
        yield FieldProblem("decoder.draft_model", "speculative decoding needs a model that drafts")
    if decoder.draft_model is not None and not decoder.speculative_decoding:
        yield FieldProblem(
            "decoder.draft_model",
            "has no effect unless decoder.speculative_decoding: true",
            "remove it or switch speculation on",
        )
    if decoder.speculative_decoding and decoder.decoding_strategy == "beam":
        yield FieldProblem("decoder.speculative_decoding", "does not combine with beam search")


@_rule
def _end_of_sequence_settings_have_effect(config: ExperimentFields) -> Iterator[FieldProblem]:
    minimum, limit = config.decoder.min_new_tokens, config.max_new_tokens
    if minimum is None:
        return
    if config.ignores_eos:
        yield FieldProblem(
            "decoder.min_new_tokens",
            "has no effect while the end of sequence is ignored",
            "remove it",
        )
    elif minimum > limit:
        yield FieldProblem(
            "decoder.min_new_tokens", f"{minimum} is more than max_new_tokens: {limit}"
        )


@_rule
def _synthetic_counts_agree(config: ExperimentFields) -> Iterator[FieldProblem]:
    if isinstance(config.dataset, str):
        return
    shape = config.dataset.synthetic
    if shape.n is not None and config.n > shape.n:
        yield FieldProblem("n", f"{config.n} is more than dataset.synthetic.n: {shape.n}")
    if config.max_input_tokens is not None and config.max_input_tokens < shape.input_len:
        yield FieldProblem(
            "max_input_tokens",
            f"{config.max_input_tokens} would truncate prompts of "
            f"dataset.synthetic.input_len: {shape.input_len}",
            "remove it",
        )
    if config.max_new_tokens != shape.output_len:
        yield FieldProblem(
            "max_new_tokens",
            f"{config.max_new_tokens} has no effect; dataset.synthetic.output_len: "
            f"{shape.output_len} decides",
        )
    if config.apply_chat_template:
        yield FieldProblem(
            "apply_chat_template", "would change the exact lengths of a synthetic dataset"
        )


@_rule
def _adapter_has_one_origin(config: ExperimentFields) -> Iterator[FieldProblem]:
    adapter = config.lora
    if adapter and (adapter.adapter_id is None) == (adapter.adapter_path is None):
        yield FieldProblem("lora", "give exactly one of adapter_id and adapter_path")


@_rule
def _quantisation_agrees(config: ExperimentFields) -> Iterator[FieldProblem]:
    field, methods = f"{config.backend}.quantization", backend_entry(config.backend).quantisation
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


@_rule
def _phases_have_energy_to_part(config: ExperimentFields) -> Iterator[FieldProblem]:
    if config.window.phases == "differential" and config.energy_backend == "none":
        yield FieldProblem(
            "window.phases",
            "differential tells the energy of prefill from that of decode, and energy_backend: "
            "none reads no energy",
            "remove one of them",
        )
