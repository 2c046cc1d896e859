"""Cross-field rules of one experiment: what contradicts itself, and what would have no effect.

Two configurations that run the same computation must never pose as two, so a setting that the
rest makes meaningless is reported like a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llenergymeasure.config.registry import BACKENDS, backend_entry, plugin_backends
from llenergymeasure.config.ssot import QUANTISATION_PRECISION

if TYPE_CHECKING:
    from llenergymeasure.config.models import ExperimentConfig

RANDOM_PREFIX = "random:"


def with_synthetic_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """Let a synthetic dataset decide the counts that are not given beside it."""
    dataset = data.get("dataset")
    shape = dataset.get("synthetic") if isinstance(dataset, dict) else None
    if not isinstance(shape, dict):
        return data
    implied = {
        "n": shape.get("n") or 100,
        "max_input_tokens": None,
        "max_new_tokens": shape.get("output_len", 128),
    }
    return {**implied, **data}


def contradictions(config: ExperimentConfig) -> list[str]:
    """List everything in a configuration that contradicts something else in it."""
    return [message for rule in _RULES for message in rule(config)]


def _sections_match_backend(config: ExperimentConfig) -> Iterator[str]:
    for name in (*BACKENDS, *plugin_backends()):
        if name != config.backend and getattr(config, name, None) is not None:
            yield (
                f"section '{name}:' does not apply to backend: {config.backend}; "
                f"remove the line '{name}:' or set backend: {name}"
            )


def _precision_is_supported(config: ExperimentConfig) -> Iterator[str]:
    entry = backend_entry(config.backend)
    if config.precision not in entry.precisions:
        yield (
            f"precision: {config.backend} cannot run {config.precision}; "
            f"it has {', '.join(entry.precisions)}"
        )


def _decoding_is_supported(config: ExperimentConfig) -> Iterator[str]:
    entry = backend_entry(config.backend)
    strategy = config.decoder.decoding_strategy
    if strategy not in entry.decoding:
        yield (
            f"decoder.decoding_strategy: {config.backend} has no {strategy} here; "
            f"it has {', '.join(entry.decoding)}"
        )


def _sampling_parameters_have_effect(config: ExperimentConfig) -> Iterator[str]:
    decoder = config.decoder
    if decoder.decoding_strategy == "sampling":
        return
    for name in ("temperature", "top_p", "top_k"):
        if getattr(decoder, name) is not None:
            yield (
                f"decoder.{name}: has no effect under {decoder.decoding_strategy} decoding; "
                "remove it or set decoder.decoding_strategy: sampling"
            )


def _beams_go_with_beam_search(config: ExperimentConfig) -> Iterator[str]:
    beam = config.decoder.decoding_strategy == "beam"
    if beam and config.decoder.num_beams is None:
        yield "decoder.num_beams: beam search needs a number of beams, e.g. num_beams: 4"
    if not beam and config.decoder.num_beams is not None:
        yield (
            "decoder.num_beams: has no effect without beam search; "
            "remove it or set decoder.decoding_strategy: beam"
        )


def _speculation_is_whole(config: ExperimentConfig) -> Iterator[str]:
    decoder = config.decoder
    if decoder.speculative_decoding and decoder.draft_model is None:
        yield "decoder.draft_model: speculative decoding needs a model that drafts"
    if decoder.draft_model is not None and not decoder.speculative_decoding:
        yield (
            "decoder.draft_model: has no effect unless decoder.speculative_decoding: true; "
            "remove it or switch speculation on"
        )
    if decoder.speculative_decoding and decoder.decoding_strategy == "beam":
        yield "decoder.speculative_decoding: does not combine with beam search"
    if decoder.speculative_decoding and config.pytorch and (config.pytorch.batch_size or 1) > 1:
        yield (
            "pytorch.batch_size: speculative decoding in transformers takes one request at a "
            "time; set batch_size: 1"
        )


def _end_of_sequence_settings_have_effect(config: ExperimentConfig) -> Iterator[str]:
    minimum = config.decoder.min_new_tokens
    if minimum is None:
        return
    if ignores_eos(config):
        yield "decoder.min_new_tokens: has no effect while the end of sequence is ignored"
    elif minimum > config.max_new_tokens:
        limit = config.max_new_tokens
        yield f"decoder.min_new_tokens: {minimum} is more than max_new_tokens: {limit}"


def _synthetic_counts_agree(config: ExperimentConfig) -> Iterator[str]:
    if isinstance(config.dataset, str):
        return
    shape = config.dataset.synthetic
    if shape.n is not None and config.n > shape.n:
        yield f"n: {config.n} is more than dataset.synthetic.n: {shape.n}"
    if config.max_input_tokens is not None and config.max_input_tokens < shape.input_len:
        yield (
            f"max_input_tokens: {config.max_input_tokens} would truncate prompts of "
            f"dataset.synthetic.input_len: {shape.input_len}; remove it"
        )
    if config.max_new_tokens != shape.output_len:
        yield (
            f"max_new_tokens: {config.max_new_tokens} has no effect; "
            f"dataset.synthetic.output_len: {shape.output_len} decides"
        )
    if config.apply_chat_template:
        yield "apply_chat_template: would change the exact lengths of a synthetic dataset"


def _quantised_loading_agrees(config: ExperimentConfig) -> Iterator[str]:
    section = config.pytorch
    if section is None:
        return
    for flag, precision in (("load_in_4bit", "int4"), ("load_in_8bit", "int8")):
        wanted = getattr(section, flag)
        if wanted is not None and wanted != (config.precision == precision):
            yield (
                f"pytorch.{flag}: {str(wanted).lower()} contradicts precision: "
                f"{config.precision}; remove it (precision decides) or set precision: {precision}"
            )


def _quantisation_agrees(config: ExperimentConfig) -> Iterator[str]:
    for name in ("vllm", "tensorrt"):
        method = getattr(getattr(config, name), "quantization", None)
        allowed = QUANTISATION_PRECISION.get(str(method))
        if allowed is not None and config.precision not in allowed:
            yield (
                f"{name}.quantization: {method} contradicts precision: {config.precision}; "
                f"set precision to {' or '.join(allowed)}"
            )


def _device_is_named_once(config: ExperimentConfig) -> Iterator[str]:
    section = config.pytorch
    if section and section.device is not None and section.device_map is not None:
        yield "pytorch.device_map: contradicts pytorch.device; keep one of them"


_RULES: tuple[Callable[[Any], Iterator[str]], ...] = (
    _sections_match_backend,
    _precision_is_supported,
    _decoding_is_supported,
    _sampling_parameters_have_effect,
    _beams_go_with_beam_search,
    _speculation_is_whole,
    _end_of_sequence_settings_have_effect,
    _synthetic_counts_agree,
    _quantised_loading_agrees,
    _quantisation_agrees,
    _device_is_named_once,
)


def ignores_eos(config: ExperimentConfig) -> bool:
    """Tell whether every request runs to its ``max_new_tokens`` whatever the model says."""
    return (
        config.decoder.ignore_eos
        or config.model.startswith(RANDOM_PREFIX)
        or not isinstance(config.dataset, str)
    )
