"""Errors of vLLM, put into this package's words; no engine needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.backends.shared.engines import static_batches
from llenergymeasure.core.backends.vllm.errors import translated
from llenergymeasure.exceptions import BackendError, ConfigError

CONFIG = ExperimentConfig(model="m", backend="vllm", vllm={"max_num_seqs": 64})


class Processes(NamedTuple):
    """Stands for those of an engine: what they printed, and the exit codes of those that ended."""

    printed: Callable[[], Sequence[str]] = list
    exit_codes: Callable[[], Sequence[int]] = list


SILENT: Any = Processes()


class EngineDeadError(Exception):
    """Stands for vLLM's, which is told by its name."""


def said(error: Exception, phase: str = "load", processes: Any = SILENT) -> str:
    with pytest.raises(BackendError) as caught, translated(phase, CONFIG, processes):
        raise error
    assert caught.value.where == phase
    assert caught.value.__cause__ is error
    return caught.value.message


def printed(*lines: str) -> Processes:
    return Processes(lambda: lines)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, OSError, KeyError, Exception])
def test_a_foreign_error_says_what_and_when(kind):
    assert said(kind("boom")).startswith(f"vLLM failed to load: {kind.__name__}:")


def test_a_slip_in_our_own_code_is_not_blamed_on_vllm():
    with pytest.raises(TypeError), translated("generate", CONFIG, SILENT):
        static_batches(None, 1)  # type: ignore[arg-type]


def test_an_error_of_this_package_passes():
    with pytest.raises(ConfigError, match="as it was"), translated("load", CONFIG, SILENT):
        raise ConfigError("as it was")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", "lower vllm.gpu_memory_utilization"),
        ("DefaultCPUAllocator: can't allocate memory", "VLLM_CPU_KVCACHE_SPACE"),
        (
            "8 GiB KV cache is needed, which is larger than the available KV cache memory (4 GiB)",
            "lower vllm.max_model_len",
        ),
        ("No available memory for the cache blocks.", "raise vllm.gpu_memory_utilization"),
        (
            "Free memory on device cuda:0 (3/80 GiB) is less than desired GPU memory utilization",
            "lower vllm.gpu_memory_utilization",
        ),
    ],
)
def test_too_little_memory_at_load_names_the_field(text, remedy):
    message = said(ValueError(text))

    assert remedy in message
    assert "vllm.max_num_seqs 64" in message


def test_too_little_memory_at_run_names_the_fields():
    message = said(RuntimeError("CUDA out of memory"), "generate")

    assert message.startswith("vLLM failed to generate")
    assert "lower vllm.max_num_seqs" in message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("User-specified max_model_len (9) is greater than", "check vllm.max_model_len"),
        ("1 validation error for CacheConfig\ncache_dtype\n", "check vllm.kv_cache_dtype"),
        ("__init__() got an unexpected keyword argument 'x'", "check passthrough_kwargs"),
        (
            "Total number of attention heads (32) must be divisible by tensor parallel size (3).",
            "set vllm.tensor_parallel_size to a divisor",
        ),
        (
            "World size (4) is larger than the number of available GPUs (2) in this node. If this "
            "is intentional and you are using:\n- ray, set '--distributed-executor-backend ray'.",
            "lower vllm.tensor_parallel_size",
        ),
        (
            "1 validation error for ModelConfig\n  Value error, Bfloat16 is only supported on "
            "GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute "
            "capability 7.5.",
            "set precision: fp16 or fp32",
        ),
        (
            "The decoder prompt (length 600) is longer than the maximum model length of 512. Make "
            "sure that `max_model_len` is no smaller than the number of text tokens.",
            "raise vllm.max_model_len, or lower max_input_tokens",
        ),
        (
            "No valid attention backend found for cuda with AttentionSelectorConfig(head_size=8). "
            "Reasons: {}.",
            "change vllm.kv_cache_dtype",
        ),
        ("NCCL error: unhandled system error (run with NCCL_DEBUG=INFO)", "NCCL_P2P_DISABLE=1"),
        (
            "Requested sample logprobs of 24, which is greater than max allowed: 20",
            "raise passthrough_kwargs.max_logprobs",
        ),
        ("temperature must be in [0, 2], got 2.5.", "check decoder.temperature"),
        ("min_tokens must be less than or equal to max_tokens=4, got 9.", "decoder.min_new_tokens"),
        ("LoRA rank 64 is greater than max_lora_rank 16", "passthrough_kwargs: {max_lora_rank"),
    ],
)
def test_an_argument_that_vllm_rejects_names_our_field(text, field):
    assert field in said(ValueError(text))


def test_the_cause_is_what_the_engines_processes_printed():
    witness = printed(
        "(EngineCore pid=7) INFO 11-24 00:55:20 [core.py:133] Initializing",
        "(Worker pid=8) ERROR 11-24 [x.py:1] ValueError: No available memory for the cache blocks.",
        "(EngineCore pid=7) ERROR Exception: WorkerProc initialization failed. See stack trace.",
    )
    message = said(RuntimeError("Engine core initialization failed. See root cause above."), "load",
                   witness)  # fmt: skip

    assert "ValueError: No available memory for the cache blocks." in message
    assert "raise vllm.gpu_memory_utilization" in message


def test_an_engine_core_that_was_killed_says_by_what():
    message = said(EngineDeadError("see above"), "generate", Processes(list, lambda: [-9]))

    assert message.startswith("the engine core died: killed by SIGKILL")
    assert "memory runs out" in message
    assert "lower vllm.max_num_seqs" in message


def test_an_engine_core_that_died_without_a_word_is_still_told():
    assert "the engine core died: EngineDeadError" in said(EngineDeadError("see above"), "generate")


def test_an_engine_core_that_was_killed_while_loading_names_the_fields():
    text = "Engine core initialization failed. Failed core proc(s): {'EngineCore': -9}"

    assert "lower vllm.gpu_memory_utilization" in said(RuntimeError(text))


HARMLESS = (
    "(EngineCore pid=7) WARNING 11-24 00:55:20 [x.py:1] not used: ImportError: no module deep_ep",
    "/venv/x.py:9: UserWarning: ImportError: no module deep_ep",
)


def test_what_was_printed_before_hides_no_sigkill():
    lines = (*HARMLESS, "(EngineCore pid=7) ERROR 11-24 00:55:20 [x.py:1] OSError: not now")
    message = said(EngineDeadError("see above"), "generate", Processes(lambda: lines, lambda: [-9]))
    at_load = "Engine core initialization failed. See root cause. Failed core proc(s): {'E': -9}"

    assert message.startswith("the engine core died: killed by SIGKILL")
    assert "memory runs out" in said(RuntimeError(at_load), "load", Processes(lambda: lines, list))


def test_a_warning_is_no_cause():
    lines = (
        "(Worker pid=8) ERROR 11-24 00:55:21 [x.py:1] ValueError: the cause",
        *HARMLESS,
    )

    assert "ValueError: the cause" in said(EngineDeadError("see above"), "load", printed(*lines))
    assert "killed by SIGABRT" in said(
        EngineDeadError("see above"), "generate", Processes(lambda: HARMLESS, lambda: [-6])
    )


def test_an_engine_core_that_died_of_too_little_memory_names_the_fields():
    line = "(Worker pid=8) ERROR 11-24 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried"
    message = said(EngineDeadError("see above"), "generate", printed(line))

    assert message.startswith("the engine core died: torch.OutOfMemoryError: CUDA out of memory")
    assert "lower vllm.max_num_seqs" in message


def test_an_exit_code_that_comes_a_moment_after_the_silence_is_told():
    codes = iter([[], [], [-9]])
    message = said(
        EngineDeadError("see above"), "generate", Processes(list, lambda: next(codes, [-9]))
    )
    assert "killed by SIGKILL" in message
