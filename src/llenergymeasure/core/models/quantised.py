"""What a checkpoint says of its own quantisation: by which method, and to which precision.

Every engine takes a quantised checkpoint as it is, whatever precision was asked for; so what is
asked for must be what the checkpoint says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llenergymeasure.config.names import Precision
from llenergymeasure.config.plain_words import shown
from llenergymeasure.core.models import sources
from llenergymeasure.core.models.config_json import stated_in
from llenergymeasure.exceptions import ConfigError, Problem

SIDE_FILES = {
    "hf_quant_config.json": "modelopt",
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
}
"""Where older tools write it instead of ``config.json``: NVIDIA's Model Optimizer, AutoGPTQ and
AutoAWQ; and the method that they are of."""

_INTEGERS: dict[object, Precision] = {8: "int8", 4: "int4"}
_FLOATS: dict[object, Precision] = {8: "fp8"}
Stated = Mapping[str, Any]


class Quantisation(NamedTuple):
    """How the weights of a checkpoint are kept.

    Attributes:
        method: Its name, as in ``quantization_config.quant_method``.
        precision: What the weights are; ``None`` where that has no name here, or is unknown.
        said: The entries that say so, in words.
    """

    method: str
    precision: Precision | None
    said: str

    def __str__(self) -> str:
        return f"{self.method}, {self.said}" if self.said else self.method


def of_model(model: str, revision: str | None) -> Quantisation | None:
    """Read how a checkpoint is quantised, from its files on this machine; without the network.

    Returns:
        ``None`` where nothing is said, or the files are not here.
    """
    source = sources.resolve(model, revision)
    try:
        entry = _entry(sources.read_config(source) or {})
    except ConfigError:
        entry = None
    if entry is not None:
        return read(entry)
    if source.kind == "random":
        return None
    for name, method in SIDE_FILES.items():
        if stated := stated_in(sources.file_of(source, name)):
            return read({"quant_method": method, **stated})
    return None


def read(stated: Stated) -> Quantisation:
    """Read a ``quantization_config``.

    Methods and entries: huggingface.co/docs/transformers/main_classes/quantization; those that vLLM
    reads besides: docs.vllm.ai, "Quantization". A method that is not listed has no precision here.
    """
    producer = stated.get("producer")
    method = shown(str(stated.get("quant_method") or "unnamed").lower())
    method = method.replace("compressed_tensors", "compressed-tensors")
    if isinstance(producer, Mapping) and producer.get("name") == "modelopt":
        method = "modelopt"
    reader = _READERS.get(method)
    try:
        precision, said = reader(stated) if reader else (None, "")
    except TypeError:  # a list or a section where one word is expected
        precision, said = None, "in a way that cannot be read"
    return Quantisation(method, precision, shown(said, 80))


def disagreement(stated: Quantisation | None, precision: Precision) -> Problem | None:
    """Say that a checkpoint is not of the precision that was asked for."""
    if stated is None or stated.precision == precision:
        return None
    if stated.precision is not None:
        remedy = f"use precision: {stated.precision}, or another checkpoint"
    else:
        remedy = (
            "name another checkpoint: this one has no precision here; those that have are of "
            f"{', '.join(sorted(_READERS))}, with weights of int8, fp8 or int4"
        )
    return Problem(
        f"the checkpoint is quantised ({stated}), which precision: {precision} is not",
        "precision",
        remedy,
    )


def _entry(config: Mapping[str, Any]) -> Stated | None:
    """Find the entry as vLLM does: at the top, under its older name, or beside the text model."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        for name in ("quantization_config", "compression_config"):
            if isinstance(part.get(name), Mapping) and part[name]:
                return dict(part[name])
    return None


_Read = tuple[Precision | None, str]


def _by_bits(stated: Stated) -> _Read:
    layers = stated.get("dynamic")  # those that GPTQModel was told to treat apart
    apart = layers.values() if isinstance(layers, Mapping) else ()
    bits = {stated.get("bits", stated.get("w_bit"))}
    bits |= {each["bits"] for each in apart if isinstance(each, Mapping) and "bits" in each}
    said = f"bits: {' and '.join(sorted(map(str, bits)))}"
    return (_INTEGERS.get(bits.pop()) if len(bits) == 1 else None), said


def _by_switch(stated: Stated) -> _Read:
    if stated.get("load_in_8bit"):
        return "int8", "load_in_8bit: true"
    return ("int4", "load_in_4bit: true") if stated.get("load_in_4bit") else (None, "")


def _by_groups(stated: Stated) -> _Read:
    groups = stated.get("config_groups")
    weights = {
        (scheme.get("num_bits"), str(scheme.get("type") or "int"))
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping) and isinstance(scheme := group.get("weights"), Mapping)
    }
    said = " and ".join(sorted(f"{bits} bits {kind}" for bits, kind in weights))
    if len(weights) != 1:
        return None, f"weights: {said or 'no num_bits'}"
    bits, kind = weights.pop()
    return (_FLOATS if kind == "float" else _INTEGERS).get(bits), f"weights: {said}"


def _by_algorithm(stated: Stated) -> _Read:
    inner = stated.get("quantization")
    algorithm = stated.get("quant_algo") or (
        inner.get("quant_algo") if isinstance(inner, Mapping) else None
    )
    return _ALGORITHMS.get(str(algorithm)), f"quant_algo: {algorithm}"


# Of NVIDIA's Model Optimizer, as tensorrt_llm.quantization.QuantAlgo; mixed ones and floats
# of four bits have no name here.
_ALGORITHMS: dict[str, Precision] = {
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_BLOCK_SCALES": "fp8",
    "FP8_PB_WO": "fp8",
    "INT8": "int8",
    "W8A16": "int8",
    "W8A16_GPTQ": "int8",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "W8A8_SQ_PER_TENSOR_PLUGIN": "int8",
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": "int8",
    "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN": "int8",
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN": "int8",
    "W4A16": "int4",
    "W4A16_AWQ": "int4",
    "W4A16_GPTQ": "int4",
    "W4A8_AWQ": "int4",
}

_READERS: dict[str, Callable[[Stated], _Read]] = {
    "awq": _by_bits,
    "gptq": _by_bits,
    "bitsandbytes": _by_switch,
    "compressed-tensors": _by_groups,
    "fp8": lambda _: ("fp8", ""),
    "modelopt": _by_algorithm,
}
