"""A stand-in for TensorRT-LLM 1.2 with its signatures, for tests on machines without an NVIDIA GPU.

It computes nothing: it shows that our calls are those the library takes, and that its answers and
failures are handled. It shows nothing about TensorRT-LLM itself.

Sources, github.com/NVIDIA/TensorRT-LLM (Apache-2.0); names, defaults and behaviour, no code:

- ``LLM``: ``class BaseLLM`` and ``_TrtLLM`` in ``tensorrt_llm/llmapi/llm.py``, commit 4c05a748;
  exported by ``tensorrt_llm/_tensorrt_engine/__init__.py``, commit 1620d4fd. Arguments outside the
  signature are checked against the fields of ``TrtLlmArgs``.
- ``TRT_LLM_ARGS``: fields of ``BaseLlmArgs`` and ``TrtLlmArgs`` that are in every version from 1.0
  to 1.2, ``tensorrt_llm/llmapi/llm_args.py``; ``KvCacheConfig`` from there, too, and that
  ``max_num_tokens`` is never more than ``build_config.max_num_tokens``
  (``validate_build_config_with_runtime_params``).
- ``BuildConfig``: ``tensorrt_llm/builder.py``, commit 008b2b8d; ``KVCacheType``:
  ``tensorrt_llm/llmapi/kv_cache_type.py``.
- ``SamplingParams``: ``tensorrt_llm/sampling_params.py``, commit 000a01de.
- ``CompletionOutput``: ``tensorrt_llm/executor/result.py``, with ``request_perf_metrics``; its
  members as ``test_llm_perf_metrics`` and ``test_request_perf_metrics_pickle`` of TensorRT-LLM's
  own tests use them (times are ``datetime.timedelta``, cpp ``steady_clock``).
- ``LoRARequest``: ``tensorrt_llm/executor/request.py``, commit 08c33130.
- ``QuantAlgo``: ``tensorrt_llm/quantization/mode.py``.
- An engine's ``config.json``: ``EngineConfig.to_dict`` in ``tensorrt_llm/builder.py``.

What it does besides comes from the environment variable ``FAKE_TENSORRT_LLM``, JSON:
``fail`` (``{step: message}``, steps ``build``, ``load``, ``generate``), ``hang`` (a step),
``die`` (a step in which it kills itself), ``worker_dies`` (while generating), ``chatter`` (bytes
printed to standard output while starting), ``clock_offset_s`` (of its times), ``no_metrics``,
``end_after`` (tokens after which it ends every answer), ``log`` (a file that gets a JSON line for
every call).
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

VERSION = "1.2.0"
MODULES = {
    "__init__": "from tensorrt_llm.fake import *",
    "_tensorrt_engine": "from tensorrt_llm.fake import LLM",
    "builder": "from tensorrt_llm.fake import BuildConfig, KVCacheType",
    "executor": "from tensorrt_llm.fake import LoRARequest",
    "llmapi": "from tensorrt_llm.fake import BuildConfig, KvCacheConfig, QuantAlgo, QuantConfig, "
    "SamplingParams",
}
TRT_LLM_ARGS = frozenset(
    [
        "model",
        "tokenizer",
        "tokenizer_mode",
        "skip_tokenizer_init",
        "trust_remote_code",
        "tensor_parallel_size",
        "dtype",
        "revision",
        "tokenizer_revision",
        "pipeline_parallel_size",
        "context_parallel_size",
        "gpus_per_node",
        "load_format",
        "enable_lora",
        "lora_config",
        "kv_cache_config",
        "enable_chunked_prefill",
        "guided_decoding_backend",
        "batched_logits_processor",
        "iter_stats_max_iterations",
        "request_stats_max_iterations",
        "peft_cache_config",
        "scheduler_config",
        "cache_transceiver_config",
        "speculative_config",
        "max_batch_size",
        "max_input_len",
        "max_seq_len",
        "max_beam_width",
        "max_num_tokens",
        "gather_generation_logits",
        "num_postprocess_workers",
        "postprocess_tokenizer_dir",
        "reasoning_parser",
        "backend",
        "enable_tqdm",
        "workspace",
        "enable_build_cache",
        "extended_runtime_perf_knob_config",
        "calib_config",
        "quant_config",
        "embedding_parallel_mode",
        "fast_build",
        "build_config",
        "enable_prompt_adapter",
        "max_prompt_adapter_token",
        "batching_type",
        "normalize_log_probs",
    ]
)


def install(folder: Path, version: str = VERSION) -> Path:
    """Lay the package out as an installer would; gives what to put on the path."""
    package = folder / "tensorrt_llm"
    package.mkdir(parents=True)
    shutil.copy(__file__, package / "fake.py")
    for name, text in MODULES.items():
        (package / f"{name}.py").write_text(f"{text}\n")
    metadata = folder / f"tensorrt_llm-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tensorrt-llm\nVersion: {version}\n"
    )
    return folder


class KVCacheType(str, Enum):  # noqa: UP042 - as it is there
    CONTINUOUS = "continuous"
    PAGED = "paged"
    DISABLED = "disabled"


QuantAlgo = Enum(  # type: ignore[misc]
    "QuantAlgo",
    {
        name: name
        for name in [
            "W8A16",
            "W4A16",
            "W4A16_AWQ",
            "W4A8_AWQ",
            "W8A16_GPTQ",
            "W4A16_GPTQ",
            "W8A8_SQ_PER_CHANNEL",
            "FP8",
            "INT8",
            "NVFP4",
            "NO_QUANT",
        ]
    },
)


@dataclass
class QuantConfig:
    quant_algo: Any = None
    kv_cache_quant_algo: Any = None
    group_size: int | None = 128


@dataclass
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    sink_token_length: int | None = None
    free_gpu_memory_fraction: float | None = 0.9


@dataclass
class LoraConfig:
    lora_dir: list[str] = field(default_factory=list)
    lora_ckpt_source: str = "hf"
    max_lora_rank: int = 64
    lora_target_modules: list[str] = field(default_factory=list)


@dataclass
class BuildConfig:
    max_input_len: int = 1024
    max_seq_len: int | None = None
    opt_batch_size: int = 8
    max_batch_size: int = 2048
    max_beam_width: int = 1
    max_num_tokens: int = 8192
    opt_num_tokens: int | None = None
    kv_cache_type: KVCacheType | None = None
    gather_context_logits: int = False
    strongly_typed: bool = True
    lora_config: LoraConfig = field(default_factory=LoraConfig)


@dataclass(slots=True)
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        if not Path(self.lora_path).exists():
            raise ValueError(f"lora_path ({self.lora_path}) does not exist.")


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    bad: Any = None
    bad_token_ids: list[int] | None = None
    stop: Any = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    return_perf_metrics: bool = False
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True


class TimingMetrics(NamedTuple):
    arrival_time: timedelta
    first_scheduled_time: timedelta
    first_token_time: timedelta
    last_token_time: timedelta


class KvCacheMetrics(NamedTuple):
    num_total_allocated_blocks: int = 1
    num_new_allocated_blocks: int = 1
    num_reused_blocks: int = 0
    num_missed_blocks: int = 1


class RequestPerfMetrics(NamedTuple):
    timing_metrics: TimingMetrics
    kv_cache_metrics: KvCacheMetrics


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] | None = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    request_perf_metrics: RequestPerfMetrics | None = None


class RequestOutput:
    """One request; takes a millisecond from the moment it is waited for."""

    def __init__(
        self, prompt_token_ids: list[int], params: SamplingParams, worker: subprocess.Popen[bytes]
    ) -> None:
        self.prompt_token_ids = prompt_token_ids
        self.outputs = [CompletionOutput(0)]
        self._params, self._arrival_s, self._worker = params, time.monotonic(), worker

    def result(self, timeout: float | None = None) -> RequestOutput:
        _step("generate")
        if _behaviour().get("worker_dies"):
            self._worker.kill()
            raise queue.Empty  # its answer never comes, and this is how the time ends
        time.sleep(0.001)
        answer, asked = self.outputs[0], self._params
        wanted = _behaviour().get("end_after")
        stops = wanted is not None and not asked.ignore_eos and wanted < asked.max_tokens
        count = wanted if stops else asked.max_tokens
        answer.token_ids = [7] * count
        answer.finish_reason = "stop" if stops else "length"
        if asked.return_perf_metrics and not _behaviour().get("no_metrics"):
            answer.request_perf_metrics = self._metrics()
        return self

    def _metrics(self) -> RequestPerfMetrics:
        offset_s = _behaviour().get("clock_offset_s", 0.0)
        last_s = time.monotonic()
        moments = (self._arrival_s, self._arrival_s, (self._arrival_s + last_s) / 2, last_s)
        times = (timedelta(seconds=moment + offset_s) for moment in moments)
        return RequestPerfMetrics(TimingMetrics(*times), KvCacheMetrics())


class LLM:
    """Builds an engine of a model, or serves an engine; starts a worker, as MPI would."""

    def __init__(  # noqa: PLR0917 - the library's own signature
        self,
        model: str | Path,
        tokenizer: Any = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        for key in kwargs:
            if key not in TRT_LLM_ARGS:
                raise ValueError(f"_TrtLLM got invalid argument: {key}")
        self._model, self._dtype, self._kwargs = Path(model), dtype, kwargs
        self._tp = tensor_parallel_size
        is_engine = (self._model / "rank0.engine").exists()
        self._build = self._build_config(is_engine=is_engine)
        self._tokens = min(kwargs.get("max_num_tokens") or 8192, self._build["max_num_tokens"])
        order = os.environ.get("CUDA_DEVICE_ORDER")
        details = {"model": str(model), "dtype": dtype, "device_order": order, **kwargs}
        _note("serve" if is_engine else "build", details)
        nap = "import time; time.sleep(600)"
        # In a process group of its own, as an MPI daemon starts it: Ctrl-C does not reach it.
        self._worker = subprocess.Popen(
            [sys.executable, "-c", nap, "mpi4py.futures.server"], process_group=0
        )
        print("x" * int(_behaviour().get("chatter", 0)), flush=True)
        os.write(1, b"c" * int(_behaviour().get("chatter", 0)))
        _step("load" if is_engine else "build")
        if is_engine:
            self._check_sizes()

    def generate_async(  # noqa: PLR0917 - the library's own signature
        self,
        inputs: Any,
        sampling_params: SamplingParams | None = None,
        lora_request: LoRARequest | None = None,
        prompt_adapter_request: Any = None,
        streaming: bool = False,
        kv_cache_retention_config: Any = None,
        disaggregated_params: Any = None,
        _postproc_params: Any = None,
        scheduling_params: Any = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        assert sampling_params is not None
        assert isinstance(inputs, list)
        if len(inputs) > self._tokens:
            raise ValueError(
                f"Prompt length ({len(inputs)}) should not exceed max_num_tokens ({self._tokens})"
            )
        return RequestOutput(inputs, sampling_params, self._worker)

    def save(self, engine_dir: str) -> None:
        """Write an engine; one GPU has one file."""
        with tempfile.TemporaryDirectory() as workspace:
            source = Path(workspace)
            (source / "config.json").write_text(json.dumps(self._engine_config()))
            (source / "rank0.engine").write_bytes(b"engine")
            shutil.copytree(source, engine_dir, dirs_exist_ok=True)

    def shutdown(self) -> None:
        self._worker.kill()
        self._worker.wait()

    def _build_config(self, *, is_engine: bool) -> dict[str, Any]:
        if is_engine:
            return dict(json.loads((self._model / "config.json").read_text())["build_config"])
        build = self._kwargs["build_config"]
        layout = build.kv_cache_type or KVCacheType.PAGED
        return {
            "max_batch_size": build.max_batch_size,
            "max_seq_len": build.max_seq_len or 2048,
            "max_input_len": build.max_input_len,
            "max_num_tokens": build.max_num_tokens,
            "kv_cache_type": layout.name,
        }

    def _engine_config(self) -> dict[str, Any]:
        quant = self._kwargs.get("quant_config")
        return {
            "version": VERSION,
            "pretrained_config": {
                "dtype": self._dtype,
                "quantization": {"quant_algo": quant.quant_algo.value if quant else None},
                "mapping": {
                    "tp_size": self._tp,
                    "pp_size": self._kwargs.get("pipeline_parallel_size", 1),
                },
            },
            "build_config": self._build,
        }

    def _check_sizes(self) -> None:
        """The executor refuses sizes over those of the engine; LLM's own default is 2048."""
        if self._kwargs.get("max_batch_size", 2048) > self._build["max_batch_size"]:
            raise RuntimeError("Runtime configured max batch size must not exceed engine's")


def _behaviour() -> dict[str, Any]:
    return dict(json.loads(os.environ.get("FAKE_TENSORRT_LLM", "{}")))


def _step(name: str) -> None:
    behaviour = _behaviour()
    if message := behaviour.get("fail", {}).get(name):
        raise RuntimeError(message)
    if behaviour.get("die") == name:
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour.get("hang") == name:
        _note("hanging", name)
        time.sleep(600)


def _note(what: str, details: Any) -> None:
    if path := _behaviour().get("log"):
        with Path(path).open("a") as log:
            log.write(json.dumps([what, details], default=repr) + "\n")
