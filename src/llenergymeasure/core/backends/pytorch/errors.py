"""What PyTorch, transformers and peft raise, in this package's words."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared import errors
from llenergymeasure.core.backends.shared.errors import OUT_OF_MEMORY, SLIPS, Words, first_lines
from llenergymeasure.exceptions import BackendError

_FOREIGN = (RuntimeError, ValueError, OSError, ImportError, MemoryError, *SLIPS)
_WORDS = Words(
    "PyTorch",
    remedies=(
        ("unexpected keyword argument", "check passthrough_kwargs: the model does not take it"),
        ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
        ("does not support an attention", "choose another pytorch.attn_implementation"),
        ("target modules", "check that lora names an adapter of this model"),
        ("size mismatch", "check that lora or decoder.draft_model belongs to this model"),
        ("assistant", "decoder.draft_model must share the model's vocabulary"),
        ("c++ compiler", "install gcc, or set pytorch.torch_compile: false"),
    ),
)


def translated(phase: str, config: ExperimentConfig) -> AbstractContextManager[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        phase: What was going on: ``load``, or ``generate``.
        config: The experiment, for the values that the message names.
    """
    damaged_weights: type[Exception] = importlib.import_module("safetensors").SafetensorError

    def tell(error: Exception) -> BackendError:
        torch, text = importlib.import_module("torch"), str(error).lower()
        full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if full or any(mark in text for mark in OUT_OF_MEMORY):
            return _out_of_memory(phase, config)
        return _WORDS.error(phase, config, first_lines(error))

    return errors.translated(tell, (*_FOREIGN, damaged_weights))


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
