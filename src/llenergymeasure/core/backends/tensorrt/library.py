"""Every call into TensorRT-LLM; nothing else of this package touches it.

Written against 1.3.0rc29, ``tensorrt_llm/llmapi/llm.py``, ``llm_args.py``, ``sampling_params.py``
and ``executor/result.py`` (https://nvidia.github.io/TensorRT-LLM/1.3.0rc29/llm-api/reference.html).
``LLM`` loads a checkpoint itself; PyTorch is its only executor.

Times of requests are those of ``RequestPerfMetrics.timing_metrics``: ``std::chrono::steady_clock``
as a ``timedelta``, which on Linux is the monotonic clock of this machine, in microseconds.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import psutil

from llenergymeasure.core.backends.protocol import Request
from llenergymeasure.core.backends.shared.engines import Finished
from llenergymeasure.core.backends.shared.processes import EngineProcesses, stdout_spared
from llenergymeasure.core.backends.tensorrt.arguments import ARGUMENTS, CACHE_ARGUMENTS
from llenergymeasure.core.visible_gpus import BUS_ORDER

WORKER = "mpi4py.futures"  # how MPIPoolExecutor starts one: python -m mpi4py.futures.server
ENVIRONMENT = {
    **BUS_ORDER,
    "TRTLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere (tensorrt_llm/usage/config.py)
}
"""Variables under which TensorRT-LLM is started."""

_ADAPTER_NUMBER = 1
_LOOK_S = 5.0
_CLOCK_TOLERANCE_NS = 1_000_000  # the engine's times are in microseconds, taken in another process


class Asked(NamedTuple):
    """A request as TensorRT-LLM gets it.

    Attributes:
        request: The request.
        options: Arguments of ``SamplingParams``.
        due_ns: When it is to be handed over, monotonic.
    """

    request: Request
    options: Mapping[str, Any]
    due_ns: int


class TensorRTLibrary:
    """One loaded ``LLM``.

    Args:
        arguments: Those of ``LLM``; see :func:`~.arguments.engine_arguments`.
        adapter: Directory of a LoRA adapter that every request uses.
    """

    @stdout_spared()
    def __init__(self, arguments: Mapping[str, Any], adapter: str | None) -> None:
        from tensorrt_llm import LLM
        from tensorrt_llm.executor import LoRARequest
        from tensorrt_llm.llmapi import CudaGraphConfig, KvCacheConfig, SamplingParams

        records = {"kv_cache_config": KvCacheConfig, "cuda_graph_config": CudaGraphConfig}
        converted = {
            name: records[name](**value) if name in records and value is not None else value
            for name, value in arguments.items()
        }
        self._sampling = SamplingParams
        self._adapter = adapter and LoRARequest("adapter", _ADAPTER_NUMBER, adapter)
        self._llm: Any = LLM(**converted)

    def settings(self) -> dict[str, Any]:
        """Give the values in force by the names of the section, from ``LLM.args``.

        ``args`` is no part of the documented interface, so what it lacks is ``None``.
        """
        args = getattr(self._llm, "args", None)
        cache = getattr(args, "kv_cache_config", None)
        algorithm = getattr(getattr(args, "quant_config", None), "quant_algo", None)
        unset = -1  # how TorchLlmArgs writes parallel sizes of experts that nobody set
        graphs = getattr(args, "cuda_graph_config", unset)
        found = {
            **{ours: getattr(args, theirs, None) for ours, theirs in ARGUMENTS.items()},
            **{ours: getattr(cache, theirs, None) for ours, theirs in CACHE_ARGUMENTS.items()},
            "quantization": algorithm and str(getattr(algorithm, "value", algorithm)),
            "cuda_graphs": graphs if graphs == unset else graphs is not None,
            "compute_dtype": getattr(args, "dtype", None),
        }
        return {name: None if value == unset else value for name, value in found.items()}

    @stdout_spared()
    def serve(
        self,
        asked: Sequence[Asked],
        salt: str,
        progress: Callable[[int], None],
        check: Callable[[], None],
    ) -> list[Finished]:
        """Hand each prompt over when it is due and wait until every one has ended.

        The loop is that of ``LLM.generate``, without its progress bar.

        Args:
            asked: The requests, by the time they are due.
            salt: Only prompts of the same salt reuse each other's KV cache.
            progress: Called with 1 each time the next prompt in order has ended.
            check: Called every five seconds of waiting for an answer; raises where it is in vain.
        """
        submitted = []
        for each in asked:
            time.sleep(max(0, each.due_ns - time.monotonic_ns()) / 1e9)
            issued_ns = time.monotonic_ns()
            future = self._llm.generate_async(
                list(each.request.token_ids),
                sampling_params=self._sampling(**each.options),
                lora_request=self._adapter,
                cache_salt=salt,
            )
            submitted.append((future, issued_ns))
        return list(_ended(submitted, progress, check))

    @stdout_spared()
    def shut_down(self) -> None:
        """End the executor and its workers; safe to call twice."""
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None


def _ended(
    submitted: Sequence[tuple[Any, int]], progress: Callable[[int], None], check: Callable[[], None]
) -> Iterator[Finished]:
    for future, issued_ns in submitted:
        while True:  # TensorRT-LLM alone would wait for ever for a worker that died
            try:
                future.result(timeout=_LOOK_S)
                break
            except (queue.Empty, TimeoutError):
                check()
        delivered_ns = time.monotonic_ns()
        progress(1)
        answer = future.outputs[0]
        metrics = getattr(answer, "request_perf_metrics", None)
        times = getattr(metrics, "timing_metrics", None)
        yield Finished(
            prompt_tokens=len(future.prompt_token_ids),
            token_ids=tuple(answer.token_ids),
            reason=answer.finish_reason,
            issued_ns=issued_ns,
            delivered_ns=delivered_ns,
            cached_tokens=getattr(future, "cached_tokens", None),
            scheduled_ns=_ns(getattr(times, "first_scheduled_time", None)),
            first_token_ns=_ns(getattr(times, "first_token_time", None)),
            last_token_ns=_ns(getattr(times, "last_token_time", None)),
        )


def _ns(moment: timedelta | None) -> int | None:
    """Give a time in nanoseconds; TensorRT-LLM writes 0 where something has not happened."""
    return moment // timedelta(microseconds=1) * 1000 if moment else None


def checked(end_ids: frozenset[int], finished: Sequence[Finished]) -> Iterator[Finished]:
    """Keep times that can be those of our clock, and count the end of sequence even if held back.

    Times are ours if they lie in order between issue and delivery; a difference within 1 ms is
    rounding and is cut off. Anything else is the clock of another machine, or no time at all.
    """
    for done in finished:
        is_given = bool(done.token_ids) and done.token_ids[-1] in end_ids
        produced = len(done.token_ids) + (done.reason == "stop" and not is_given)
        known = done.scheduled_ns, done.first_token_ns, done.last_token_ns
        times = [time_ns for time_ns in known if time_ns is not None]
        early_ns = done.issued_ns - min(times, default=done.issued_ns)
        late_ns = max(times, default=done.issued_ns) - done.delivered_ns
        in_order = len(times) == len(known) and times == sorted(times)
        ours: list[int | None] = [None] * len(known)
        if in_order and max(early_ns, late_ns) <= _CLOCK_TOLERANCE_NS:
            ours = [min(max(each, done.issued_ns), done.delivered_ns) for each in times]
        begun_ns, first_ns, last_ns = ours
        yield done._replace(
            output_tokens=produced,
            scheduled_ns=begun_ns,
            first_token_ns=first_ns,
            last_token_ns=last_ns,
        )


def workers(processes: EngineProcesses) -> list[psutil.Process]:
    """List those of an engine that work until they are told to end: the pool of mpi4py."""
    found = []
    for process in processes.running():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if any(WORKER in argument for argument in process.cmdline()):
                found.append(process)
    return found
