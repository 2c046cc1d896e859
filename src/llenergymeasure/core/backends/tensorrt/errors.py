"""What TensorRT-LLM raises, in this package's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from llenergymeasure.config.backend_configs import TensorRTConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.foreign_errors import first_lines, is_own_slip
from llenergymeasure.core.backends.tensorrt.build import BuildError
from llenergymeasure.exceptions import BackendError, LLEMError

_OUT_OF_MEMORY = ("out of memory", "outofmemory", "cannot allocate", "bad_alloc", "sigkill")
_LESS = {
    "build": "lower tensorrt.max_batch_size or tensorrt.max_seq_len, raise tensorrt.tp_size, or "
    "choose a smaller model or precision",
    "load": "lower tensorrt.max_batch_size or tensorrt.max_seq_len, raise tensorrt.tp_size, or "
    "choose a smaller model or precision",
    "generate": "lower tensorrt.max_batch_size, or leave more memory free with "
    "passthrough_kwargs: {kv_cache_config: {free_gpu_memory_fraction: 0.7}}",
}
# Pieces of a message (lower case) and the option that mends it, most telling first.
_REMEDIES: tuple[tuple[str, str], ...] = (
    ("got invalid argument", "check passthrough_kwargs: TensorRT-LLM does not take it"),
    ("extra inputs are not permitted", "check passthrough_kwargs: TensorRT-LLM does not take it"),
    ("should not exceed max_seq_len", "raise tensorrt.max_seq_len, or lower max_input_tokens"),
    ("max_num_tokens", "lower max_input_tokens, or set passthrough_kwargs: {{max_num_tokens: N}}"),
    ("max_input_len", "lower max_input_tokens"),
    ("deserialize", "delete the engine, to have it built anew: {engine}"),
    ("cnn_dailymail", "{calibration}"),
    ("calib", "{calibration}"),
    ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
    ("lora", "check that lora names an adapter of this model"),
    ("only supported on sm", "choose another precision; this GPU lacks it"),
    ("unsupported model architecture", "choose a model that TensorRT-LLM can build an engine of"),
)
_CALIBRATION = (
    "quantising needs texts to calibrate with: name a directory in passthrough_kwargs: "
    "{calib_config: {calib_dataset: DIRECTORY}}, or use a checkpoint that is quantised"
)
_FIELDS = {
    "tensor_parallel_size": "tensorrt.tp_size",
    "pipeline_parallel_size": "tensorrt.pp_size",
    "quant_algo": "tensorrt.quantization",
    "quant_config": "tensorrt.quantization",
    "dtype": "precision",
    **{name: f"tensorrt.{name}" for name in TensorRTConfig.model_fields},
}


@contextmanager
def translated(phase: str, config: ExperimentConfig, engine: str | None = None) -> Iterator[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        phase: What was going on: ``load``, or ``generate``.
        config: The experiment, for the values that the message names.
        engine: Directory of the engine, where there is one.
    """
    try:
        yield
    except LLEMError:
        raise
    except Exception as error:  # C++ errors come as RuntimeError, others as bare Exception
        if is_own_slip(error):
            raise
        raise backend_error(phase, config, error, engine) from error


def backend_error(
    phase: str, config: ExperimentConfig, error: Exception, engine: str | None = None
) -> BackendError:
    """Say what went wrong, where, and which field mends it."""
    step = "build" if isinstance(error, BuildError) else phase
    said = (
        first_lines(error) if step == "build" else f"{type(error).__name__}: {first_lines(error)}"
    )
    head = {"build": "TensorRT-LLM failed to build the engine"}.get(step)
    message = f"{head or f'TensorRT-LLM failed to {phase}'}: {said}"
    remedy = _remedy(step, config, said.lower(), engine)
    return BackendError(f"{message}\n    {remedy}" if remedy else message, where=phase)


def _remedy(step: str, config: ExperimentConfig, text: str, engine: str | None) -> str | None:
    if any(mark in text for mark in _OUT_OF_MEMORY):
        return _with_values(config, _LESS[step])
    for mark, remedy in _REMEDIES:
        if mark in text:
            return remedy.format(engine=engine or "see docs", calibration=_CALIBRATION)
    named = sorted({field for name, field in _FIELDS.items() if re.search(rf"\b{name}\b", text)})
    return f"check {' and '.join(named)}" if named else None


def _with_values(config: ExperimentConfig, remedy: str) -> str:
    section = (config.tensorrt or TensorRTConfig()).model_dump(exclude_none=True)
    asked = ", ".join(f"tensorrt.{name} {value}" for name, value in section.items())
    return f"{remedy}; asked for: {asked}" if asked else remedy
