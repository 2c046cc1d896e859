"""Every call into TensorRT-LLM; nothing else of this package touches it.

Written against the ``LLM`` class of the TensorRT engine (``tensorrt_llm._tensorrt_engine.LLM``),
which versions 1.0 to 1.2 have beside that of their PyTorch backend, and which later ones removed
(nvidia.github.io/TensorRT-LLM, "Migration Guide: TensorRT Backend Removed"). Its signatures are
those of the source at commit 4c05a748 (1.2.0), ``tensorrt_llm/llmapi/llm.py``, ``llm_args.py`` and
``sampling_params.py``.

Times of requests are those of ``RequestPerfMetrics.timing_metrics``: ``std::chrono::steady_clock``
as a ``timedelta``, which on Linux is the monotonic clock of this machine, in microseconds.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from llenergymeasure.core.backends.tensorrt.trace import Finished

_ADAPTER_NUMBER = 1
_LOOK_S = 5.0


class TimingMetrics(Protocol):
    """Times of one request."""

    first_scheduled_time: timedelta
    first_token_time: timedelta
    last_token_time: timedelta


class CacheMetrics(Protocol):
    """What one request found in the KV cache."""

    num_reused_blocks: int


class PerfMetrics(Protocol):
    """What TensorRT-LLM measures of one request."""

    timing_metrics: TimingMetrics
    kv_cache_metrics: CacheMetrics


class Answer(Protocol):
    """A ``CompletionOutput``."""

    token_ids: Sequence[int]
    finish_reason: str | None
    request_perf_metrics: PerfMetrics | None


class Future(Protocol):
    """A ``RequestOutput``."""

    prompt_token_ids: Sequence[int]
    outputs: Sequence[Answer]

    def result(self, timeout: float | None = None) -> object:
        """Wait until the request has ended; raises ``queue.Empty`` when the time is over."""
        ...


class LanguageModel(Protocol):
    """An ``LLM``."""

    def generate_async(
        self, inputs: list[int], sampling_params: object, lora_request: object
    ) -> Future:
        """Hand one prompt over."""
        ...

    def save(self, engine_dir: str) -> None:
        """Write the engine that was built."""
        ...

    def shutdown(self) -> None:
        """End the executor and its workers."""
        ...


class TensorRTLibrary:
    """One ``LLM`` that serves an engine built before.

    Args:
        arguments: Those of ``LLM``; see :mod:`~llenergymeasure.core.backends.tensorrt.arguments`.
        adapter: Directory of a LoRA adapter that every request uses.
    """

    def __init__(self, arguments: Mapping[str, Any], adapter: str | None) -> None:
        from tensorrt_llm.executor import LoRARequest
        from tensorrt_llm.llmapi import SamplingParams

        self._sampling = SamplingParams
        self._adapter = adapter and LoRARequest("adapter", _ADAPTER_NUMBER, adapter)
        self._llm: LanguageModel | None = _language_model(arguments)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: Sequence[Mapping[str, Any]],
        progress: Callable[[int], None],
        check: Callable[[], None],
    ) -> list[Finished]:
        """Hand all prompts over at once and wait until every one has ended.

        The loop is that of ``LLM.generate``, without its progress bar.

        Args:
            prompts: Token ids.
            options: Arguments of ``SamplingParams``, one a prompt.
            progress: Called with 1 each time the next prompt in order has ended.
            check: Called every five seconds of waiting; raises where the wait is in vain.
        """
        assert self._llm is not None
        futures = [
            self._llm.generate_async(
                list(prompt), sampling_params=self._sampling(**each), lora_request=self._adapter
            )
            for prompt, each in zip(prompts, options, strict=True)
        ]
        return list(_ended(futures, progress, check))

    def shut_down(self) -> None:
        """End the executor and its workers; safe to call twice."""
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None


def build(arguments: Mapping[str, Any], directory: Path) -> None:
    """Build an engine and write it; the directory must not exist."""
    model = _language_model(arguments)
    try:
        model.save(str(directory))
    finally:
        model.shutdown()


def _language_model(arguments: Mapping[str, Any]) -> LanguageModel:
    from tensorrt_llm._tensorrt_engine import LLM

    model: LanguageModel = LLM(**dict(_converted(arguments)))
    return model


def _converted(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Turn the sections among plain arguments into the library's own records."""
    from tensorrt_llm.llmapi import KvCacheConfig, QuantAlgo, QuantConfig

    for name, value in arguments.items():
        if name == "build_config":
            yield name, _build_config(value)
        elif name == "quant_config":
            yield name, QuantConfig(quant_algo=QuantAlgo[value["quant_algo"]])
        elif name == "kv_cache_config":
            yield name, KvCacheConfig(**value)
        else:
            yield name, value


def _build_config(values: Mapping[str, Any]) -> Any:
    from tensorrt_llm.builder import KVCacheType
    from tensorrt_llm.llmapi import BuildConfig

    plain = {name: value for name, value in values.items() if name not in _CONVERTED}
    if "kv_cache_type" in values:
        plain["kv_cache_type"] = getattr(KVCacheType, values["kv_cache_type"])
    config = BuildConfig(**plain)
    # The class of lora_config moved between modules; that of the default is always the right one.
    for name, value in values.get("lora_config", {}).items():
        setattr(config.lora_config, name, value)
    return config


_CONVERTED = ("kv_cache_type", "lora_config")


def _ended(
    futures: Sequence[Future], progress: Callable[[int], None], check: Callable[[], None]
) -> Iterator[Finished]:
    for future in futures:
        _wait(future, check)
        delivered_ns = time.monotonic_ns()
        progress(1)
        yield _finished(future, delivered_ns)


def _wait(future: Future, check: Callable[[], None]) -> None:
    """Wait for a request; TensorRT-LLM alone would wait for ever for a worker that died."""
    while True:
        try:
            future.result(timeout=_LOOK_S)
            return
        except (queue.Empty, TimeoutError):
            check()


def _finished(future: Future, delivered_ns: int) -> Finished:
    answer = future.outputs[0]
    metrics = getattr(answer, "request_perf_metrics", None)
    times = getattr(metrics, "timing_metrics", None)
    cache = getattr(metrics, "kv_cache_metrics", None)
    return Finished(
        prompt_tokens=len(future.prompt_token_ids),
        token_ids=tuple(answer.token_ids),
        reason=answer.finish_reason,
        delivered_ns=delivered_ns,
        scheduled_ns=_ns(getattr(times, "first_scheduled_time", None)),
        first_token_ns=_ns(getattr(times, "first_token_time", None)),
        last_token_ns=_ns(getattr(times, "last_token_time", None)),
        reused_blocks=getattr(cache, "num_reused_blocks", None),
    )


def _ns(moment: timedelta | None) -> int | None:
    """Give a time in nanoseconds; TensorRT-LLM writes 0 where something has not happened."""
    return moment // timedelta(microseconds=1) * 1000 if moment else None
