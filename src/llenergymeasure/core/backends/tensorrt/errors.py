"""What TensorRT-LLM raises, in this package's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.foreign_errors import first_lines, is_own_slip
from llenergymeasure.core.backends.tensorrt.arguments import DECIDED_ELSEWHERE
from llenergymeasure.exceptions import BackendError, LLEMError

_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cannot allocate", "bad_alloc", "sigkill")
_LESS = {
    "load": "lower tensorrt.max_batch_size, max_num_tokens or max_seq_len, raise tensorrt.tp_size, "
    "or choose a smaller model or precision",
    "generate": "lower tensorrt.max_batch_size or tensorrt.max_num_tokens, or leave more memory "
    "free with tensorrt.free_gpu_memory_fraction, e.g. 0.7",
}
# Pieces of a message (lower case) and the option that mends it, most telling first.
_REMEDIES: tuple[tuple[str, str], ...] = (
    ("got invalid argument", "check passthrough_kwargs: TensorRT-LLM does not take it"),
    ("extra inputs are not permitted", "check passthrough_kwargs: TensorRT-LLM does not take it"),
    ("should not exceed max_seq_len", "raise tensorrt.max_seq_len, or lower max_input_tokens"),
    (
        "should not exceed max_num_tokens",
        "raise tensorrt.max_num_tokens, set tensorrt.enable_chunked_prefill: true, or lower "
        "max_input_tokens",
    ),
    ("unsupported quantization_config", "name a checkpoint of NVIDIA's Model Optimizer"),
    ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
    ("lora", "check that lora names an adapter of this model"),
    ("only supported on sm", "choose another precision; this GPU lacks it"),
    ("unknown architecture", "choose a model that TensorRT-LLM has, or backend: pytorch"),
)
_FIELDS = {
    **DECIDED_ELSEWHERE,
    "cuda_graph_config": "tensorrt.cuda_graphs",
    "kv_cache_quant_algo": "tensorrt.kv_cache_dtype",
    "quant_algo": "tensorrt.quantization",
    **{name: f"tensorrt.{name}" for name in TensorRTConfig.model_fields},
}


@contextmanager
def translated(phase: str, config: ExperimentConfig) -> Iterator[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        phase: What was going on: ``load``, or ``generate``.
        config: The experiment, for the values that the message names.
    """
    try:
        yield
    except LLEMError:
        raise
    except Exception as error:  # C++ errors come as RuntimeError, others as bare Exception
        if is_own_slip(error):
            raise
        raise backend_error(phase, config, error) from error


def backend_error(phase: str, config: ExperimentConfig, error: Exception) -> BackendError:
    """Say what went wrong, where, and which field mends it."""
    said = f"{type(error).__name__}: {first_lines(error)}"
    remedy = _remedy(phase, config, said.lower())
    message = f"TensorRT-LLM failed to {phase}: {said}"
    return BackendError(f"{message}\n    {remedy}" if remedy else message, where=phase)


def _remedy(phase: str, config: ExperimentConfig, text: str) -> str | None:
    if any(mark in text for mark in _OUT_OF_MEMORY):
        section = (config.tensorrt or TensorRTConfig()).model_dump(exclude_none=True)
        asked = ", ".join(f"tensorrt.{name} {value}" for name, value in section.items())
        return f"{_LESS[phase]}; asked for: {asked}" if asked else _LESS[phase]
    for mark, remedy in _REMEDIES:
        if mark in text:
            return remedy
    named = sorted({field for name, field in _FIELDS.items() if re.search(rf"\b{name}\b", text)})
    return f"check {' and '.join(named)}" if named else None
