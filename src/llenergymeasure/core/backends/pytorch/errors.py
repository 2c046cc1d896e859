"""What PyTorch, transformers and peft raise, in this package's words."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.foreign_errors import SLIPS, first_lines, is_own_slip
from llenergymeasure.exceptions import BackendError

_FOREIGN = (RuntimeError, ValueError, OSError, ImportError, *SLIPS)

# A piece of the message (lower case) and the option that mends it, most telling first.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
_REMEDIES = (
    ("unexpected keyword argument", "check passthrough_kwargs: the model does not take it"),
    ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
    ("does not support an attention", "choose another pytorch.attn_implementation"),
    ("target modules", "check that lora names an adapter of this model"),
    ("size mismatch", "check that lora or decoder.draft_model belongs to this model"),
    ("assistant", "decoder.draft_model must share the model's vocabulary"),
    ("c++ compiler", "install gcc, or set pytorch.torch_compile: false"),
)


@contextmanager
def translated(phase: str, config: ExperimentConfig) -> Iterator[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        phase: What was going on: ``load``, or ``generate``.
        config: The experiment, for the values that the message names.
    """
    try:
        yield
    except MemoryError:
        raise _out_of_memory(phase, config) from None
    except (*_FOREIGN, _damaged_weights()) as error:
        if is_own_slip(error):
            raise
        if _is_out_of_memory(error):
            raise _out_of_memory(phase, config) from error
        raise _plain(phase, error) from error


def _damaged_weights() -> type[Exception]:
    error: type[Exception] = importlib.import_module("safetensors").SafetensorError
    return error


def _is_out_of_memory(error: BaseException) -> bool:
    torch = importlib.import_module("torch")
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(mark in text for mark in _OUT_OF_MEMORY)


def _out_of_memory(phase: str, config: ExperimentConfig) -> BackendError:
    batch_size = (config.pytorch.batch_size if config.pytorch else None) or 1
    if phase == "load":
        remedy = "choose a smaller model, a smaller precision, or pytorch.device_map: auto"
    elif batch_size == 1:
        remedy = "lower max_input_tokens or max_new_tokens"
    else:
        remedy = "lower pytorch.batch_size (or max_input_tokens, max_new_tokens)"
    return BackendError(
        f"out of memory during {phase} with pytorch.batch_size {batch_size}, "
        f"max_input_tokens {config.max_input_tokens}, max_new_tokens {config.max_new_tokens}; "
        f"{remedy}",
        where=phase,
    )


def _plain(phase: str, error: Exception) -> BackendError:
    text = str(error).lower()
    hint = next((remedy for mark, remedy in _REMEDIES if mark in text), None)
    message = f"PyTorch failed to {phase}: {type(error).__name__}: {first_lines(error)}"
    return BackendError(f"{message}\n    {hint}" if hint else message, where=phase)
