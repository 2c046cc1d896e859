"""What vLLM raises, and what its processes printed before they died, in this package's words."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from llenergymeasure.config.backend_configs import VLLMConfig
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared import errors
from llenergymeasure.core.backends.shared.errors import Words, first_lines
from llenergymeasure.core.backends.shared.processes import EngineProcesses
from llenergymeasure.exceptions import BackendError

_LONGER_CONTEXT = "raise vllm.max_model_len, or lower max_input_tokens"
_OF_ONE_KIND = (
    "the weights do not fit the config.json beside them: name a checkpoint that was saved with it"
)
_WORDS = Words(
    "vLLM",
    remedies=(
        ("unexpected keyword argument", "check passthrough_kwargs: vLLM does not take it"),
        ("divisible by tensor parallel size", "set vllm.tensor_parallel_size to a divisor of them"),
        (
            "is larger than the number of available gpus",
            "lower vllm.tensor_parallel_size or vllm.pipeline_parallel_size, or show more GPUs in "
            "CUDA_VISIBLE_DEVICES",
        ),
        (
            "bfloat16 is only supported on gpus with compute capability",
            "set precision: fp16 or fp32; everything else computes in bfloat16",
        ),
        ("longer than the maximum model length", _LONGER_CONTEXT),
        ("maximum context length", _LONGER_CONTEXT),
        (
            "no valid attention backend",
            "change vllm.kv_cache_dtype, vllm.block_size or precision, as the reasons say, or use "
            "a newer vLLM or GPU",
        ),
        (
            "nccl error",
            "the GPUs cannot reach each other: set the variable NCCL_DEBUG=INFO and read log.txt; "
            "NCCL_P2P_DISABLE=1 helps where one GPU cannot read another's memory, and a container "
            "needs room in /dev/shm; vllm.tensor_parallel_size: 1 does without",
        ),
        (
            "greater than max allowed",
            "raise passthrough_kwargs.max_logprobs to twice decoder.num_beams, or remove it",
        ),
        ("no module or parameter named", _OF_ONE_KIND),
        ("not initialized from checkpoint", _OF_ONE_KIND),
        ("was not found in the checkpoint", _OF_ONE_KIND),
        ("trust_remote_code", "set trust_remote_code: true if you trust the model's own code"),
        ("lora rank", "set passthrough_kwargs: {max_lora_rank: ...} to the rank of the adapter"),
        ("lora", "check that lora names an adapter of this model"),
        ("speculative", "check that decoder.draft_model shares the model's vocabulary"),
        ("c++ compiler", "install g++, or set vllm.enforce_eager: true"),
    ),
    less={
        "load": "lower vllm.gpu_memory_utilization, vllm.max_model_len or vllm.max_num_seqs, or "
        "choose a smaller model or precision (on a CPU the environment variable "
        "VLLM_CPU_KVCACHE_SPACE sets the GiB of the KV cache)",
        "generate": "lower vllm.max_num_seqs, vllm.max_model_len or vllm.gpu_memory_utilization",
    },
    memory=(
        (
            "larger than the available kv cache memory",
            "lower vllm.max_model_len, or raise vllm.gpu_memory_utilization",
        ),
        (
            "no available memory for the cache blocks",
            "raise vllm.gpu_memory_utilization, or choose a smaller model or precision",
        ),
        (
            "memory utilization",
            "lower vllm.gpu_memory_utilization, or end what else holds the memory",
        ),
    ),
    fields={
        **{name: f"vllm.{name}" for name in VLLMConfig.model_fields},
        "cache_dtype": "vllm.kv_cache_dtype",
        "temperature": "decoder.temperature",
        "top_p": "decoder.top_p",
        "top_k": "decoder.top_k",
        "repetition_penalty": "decoder.repetition_penalty",
        "min_tokens": "decoder.min_new_tokens",
        "beam_width": "decoder.num_beams",
    },
)
_REASON = re.compile(r"(?:^|\s)((?:\w+\.)*[A-Z]\w*(?:Error|Exception)\b:? .+)$")
_HARMLESS = re.compile(r"^(?:\(.*?\) )?(?:DEBUG|INFO|WARNING)\b|\b\w*Warning: ")
_POINTER = ("root cause", "initialization failed", "see stack trace")

PATIENCE_S = 2.0  # for the exit code of an engine that is dead


def translated(
    phase: str, config: ExperimentConfig, processes: EngineProcesses
) -> AbstractContextManager[None]:
    """Turn foreign errors inside the block into :class:`BackendError`.

    Args:
        phase: What was going on: ``load``, or ``generate``.
        config: The experiment, for the values that the message names.
        processes: Those of the engine.
    """
    return errors.translated(lambda error: backend_error(phase, config, error, processes))


def backend_error(
    phase: str, config: ExperimentConfig, error: Exception, processes: EngineProcesses
) -> BackendError:
    """Say what went wrong, where, and which field mends it."""
    own = first_lines(error)
    dead = type(error).__name__ == "EngineDeadError"
    points = any(mark in own.lower() for mark in _POINTER)
    deadline_s = time.monotonic() + PATIENCE_S if dead else 0.0
    while not processes.exit_codes() and time.monotonic() < deadline_s:
        time.sleep(0.02)  # its silence is noticed before its exit code is told
    secondhand = dead or (points and not errors.KILLED.search(own.lower()))
    said = (_reason(processes) if secondhand else None) or own
    return _WORDS.error(phase, config, said, "the engine core died" if dead else None)


def _reason(processes: EngineProcesses) -> str | None:
    """Give the error that the processes themselves named, or the signal that killed one.

    SIGKILL comes from outside, whatever was printed before.
    """
    signals = [-code for code in processes.exit_codes() if code < 0]
    if signal.SIGKILL in signals:
        return f"killed by {signal.SIGKILL.name}"
    killed = f"killed by {signal.Signals(signals[0]).name}" if signals else None
    return _named(processes.printed()) or killed


def _named(lines: Sequence[str]) -> str | None:
    """Find the error behind others that only point at it: the last that is no pointer."""
    telling = [line for line in lines if not _HARMLESS.search(line)]
    found = [match[1].strip()[:500] for line in telling if (match := _REASON.search(line))]
    causes = [text for text in found if not any(mark in text.lower() for mark in _POINTER)]
    return (causes or found or [None])[-1]
