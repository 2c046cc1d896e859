"""A stand-in for TensorRT-LLM 1.3.0rc29 with its signatures, for machines without an NVIDIA GPU.

It computes nothing: it shows that our calls are those the library takes, and that its answers and
failures are handled. It shows nothing about TensorRT-LLM itself.

Sources, github.com/NVIDIA/TensorRT-LLM (Apache-2.0); names, defaults and behaviour, no code:

- ``TORCH_LLM_ARGS``, ``KvCacheConfig``, ``CudaGraphConfig``, and defaults of ``TorchLlmArgs``:
  ``tensorrt_llm/llmapi/llm_args.py``, commit 00043967, whose fields are those of
  https://nvidia.github.io/TensorRT-LLM/1.3.0rc27/llm-api/reference/KvCacheConfig.html and of
  https://nvidia.github.io/TensorRT-LLM/1.4.0rc4/llm-api/reference/TorchLlmArgs.html.
- ``LLM``: ``tests/unittest/api_stability/references_committed/llm.yaml``, commit e00a1866, and
  ``references/llm.yaml``, commit ea35fd67 (``cache_salt``, ``shutdown``); that unknown arguments
  and prompts over ``max_num_tokens`` are refused, and with which words: ``class BaseLLM`` in
  ``tensorrt_llm/llmapi/llm.py``, commit 4c05a748.
- ``SamplingParams``: https://nvidia.github.io/TensorRT-LLM/llm-api/reference/SamplingParams.html
- ``CompletionOutput``: https://nvidia.github.io/TensorRT-LLM/llm-api/reference/CompletionOutput.html;
  the members of its ``request_perf_metrics`` as ``test_llm_perf_metrics`` of TensorRT-LLM's own
  tests uses them (times are ``datetime.timedelta``, cpp ``steady_clock``).
- ``RequestOutput.cached_tokens``: ``tensorrt_llm/serve/postprocess_handlers.py`` reads it, since
  https://github.com/NVIDIA/TensorRT-LLM/pull/7637
- ``LoRARequest``: ``tensorrt_llm/executor/request.py``, commit 08c33130.

What it does besides comes from the environment variable ``FAKE_TENSORRT_LLM``, JSON:
``fail`` (``{step: message}``, steps ``load``, ``generate``), ``hang`` (a step), ``worker_dies``
(while generating), ``chatter`` (bytes printed to standard output while starting),
``clock_offset_s`` (of its times), ``no_metrics``, ``end_after`` (tokens after which it ends every
answer), ``log`` (a file that gets a JSON line for every call).
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

VERSION = "1.3.0rc29"
MODULES = {
    "__init__": "from tensorrt_llm.fake import LLM, SamplingParams",
    "executor": "from tensorrt_llm.fake import LoRARequest",
    "llmapi": "from tensorrt_llm.fake import CudaGraphConfig, KvCacheConfig, SamplingParams",
}
DEFAULTS: dict[str, Any] = {
    "max_batch_size": 2048,
    "max_num_tokens": 8192,
    "max_seq_len": None,
    "pipeline_parallel_size": 1,
    "moe_tensor_parallel_size": -1,
    "moe_expert_parallel_size": -1,
    "enable_chunked_prefill": False,
    "attn_backend": "TRTLLM",
}
TORCH_LLM_ARGS = frozenset(
    [
        *DEFAULTS,
        "model",
        "tokenizer",
        "tokenizer_mode",
        "custom_tokenizer",
        "skip_tokenizer_init",
        "trust_remote_code",
        "tensor_parallel_size",
        "dtype",
        "revision",
        "tokenizer_revision",
        "model_kwargs",
        "context_parallel_size",
        "gpus_per_node",
        "moe_cluster_parallel_size",
        "enable_attention_dp",
        "pp_partition",
        "cp_config",
        "load_format",
        "enable_lora",
        "lora_config",
        "kv_cache_config",
        "guided_decoding_backend",
        "batched_logits_processor",
        "iter_stats_max_iterations",
        "request_stats_max_iterations",
        "peft_cache_config",
        "scheduler_config",
        "cache_transceiver_config",
        "sparse_attention_config",
        "speculative_config",
        "max_input_len",
        "max_beam_width",
        "gather_generation_logits",
        "num_postprocess_workers",
        "postprocess_tokenizer_dir",
        "reasoning_parser",
        "otlp_traces_endpoint",
        "backend",
        "return_perf_metrics",
        "orchestrator_type",
        "env_overrides",
        "telemetry_config",
        "generation_config",
        "cuda_graph_config",
        "attention_dp_config",
        "disable_overlap_scheduler",
        "moe_config",
        "batch_wait_timeout_ms",
        "torch_compile_config",
        "enable_autotuner",
        "stream_interval",
        "force_dynamic_quantization",
        "allreduce_strategy",
        "checkpoint_format",
        "kv_connector_config",
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


@dataclass
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    free_gpu_memory_fraction: float | None = 0.9
    host_cache_size: int | None = None
    dtype: str = "auto"
    tokens_per_block: int = 32


@dataclass
class CudaGraphConfig:
    batch_sizes: list[int] | None = None
    max_batch_size: int = 0
    enable_padding: bool = False


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


class TimingMetrics(NamedTuple):
    arrival_time: timedelta
    first_scheduled_time: timedelta
    first_token_time: timedelta
    last_token_time: timedelta


class RequestPerfMetrics(NamedTuple):
    timing_metrics: TimingMetrics


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
        self,
        prompt_token_ids: list[int],
        params: SamplingParams,
        worker: subprocess.Popen[bytes],
        cached_tokens: int,
    ) -> None:
        self.cached_tokens = cached_tokens
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
        answer.token_ids = [7] * (wanted if stops else asked.max_tokens)
        answer.finish_reason = "stop" if stops else "length"
        if asked.return_perf_metrics and not _behaviour().get("no_metrics"):
            answer.request_perf_metrics = self._metrics()
        return self

    def _metrics(self) -> RequestPerfMetrics:
        offset_s = _behaviour().get("clock_offset_s", 0.0)
        last_s = time.monotonic()
        moments = (self._arrival_s, self._arrival_s, (self._arrival_s + last_s) / 2, last_s)
        times = (timedelta(seconds=moment + offset_s) for moment in moments)
        return RequestPerfMetrics(TimingMetrics(*times))


class LLM:
    """Loads a checkpoint; starts a worker, as MPI would."""

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
            if key not in TORCH_LLM_ARGS:
                raise ValueError(f"LLM got invalid argument: {key}")
        self.args = SimpleNamespace(
            model=str(model),
            dtype=dtype,
            tensor_parallel_size=tensor_parallel_size,
            quant_config=SimpleNamespace(quant_algo=_stated_algorithm(Path(model))),
            **{
                **DEFAULTS,
                "kv_cache_config": KvCacheConfig(),
                "cuda_graph_config": CudaGraphConfig(),
                **kwargs,
            },
        )
        self._seen: set[tuple[str | None, tuple[int, ...]]] = set()
        environment = {
            name: os.environ.get(name) for name in ("CUDA_DEVICE_ORDER", "TRTLLM_NO_USAGE_STATS")
        }
        _note("load", {**vars(self.args), "environment": environment})
        nap = "import time; time.sleep(600)"
        # In a process group of its own, as an MPI daemon starts it: Ctrl-C does not reach it.
        self._worker = subprocess.Popen(
            [sys.executable, "-c", nap, "mpi4py.futures.server"], process_group=0
        )
        print("x" * int(_behaviour().get("chatter", 0)), flush=True)
        os.write(1, b"c" * int(_behaviour().get("chatter", 0)))
        _step("load")

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
        limit = self.args.max_num_tokens
        if len(inputs) > limit and not self.args.enable_chunked_prefill:
            raise ValueError(
                f"The sum of prompt length ({len(inputs)}), query length (0) should not exceed "
                f"max_num_tokens ({limit})"
            )
        key = (cache_salt, tuple(inputs))
        reused = self.args.kv_cache_config.enable_block_reuse and key in self._seen
        self._seen.add(key)
        cached = len(inputs) - 1 if reused else 0  # the last token is computed anew
        return RequestOutput(inputs, sampling_params, self._worker, cached)

    def shutdown(self) -> None:
        self._worker.kill()
        self._worker.wait()


def _stated_algorithm(model: Path) -> str | None:
    """Read what a checkpoint of NVIDIA's Model Optimizer says of itself."""
    path = model / "hf_quant_config.json"
    return json.loads(path.read_text())["quantization"]["quant_algo"] if path.exists() else None


def _behaviour() -> dict[str, Any]:
    return dict(json.loads(os.environ.get("FAKE_TENSORRT_LLM", "{}")))


def _step(name: str) -> None:
    behaviour = _behaviour()
    if message := behaviour.get("fail", {}).get(name):
        raise RuntimeError(message)
    if behaviour.get("hang") == name:
        _note("hanging", name)
        time.sleep(600)


def _note(what: str, details: Any) -> None:
    if path := _behaviour().get("log"):
        with Path(path).open("a") as log:
            log.write(json.dumps([what, details], default=repr) + "\n")
