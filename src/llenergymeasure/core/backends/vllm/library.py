"""Every call into vLLM; nothing else of this package touches it.

Written against the offline ``LLM`` class (docs.vllm.ai, "Offline Inference") of vLLM 0.32, with an
eye on 0.19. Two things lie outside its documented interface, and are done without where they are
not found: token times are noted where steps come in (``engine_core.get_output``), and a wait for
an engine core that died is broken off (``engine_core.outputs_queue``), which vLLM leaves waiting.

Times of requests are those of ``RequestStateStats``, in seconds of the monotonic clock of the
engine core, the same clock as ours (``arrival_time`` alone is wall-clock, and unused).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from llenergymeasure.core.backends.protocol import Progress, Request
from llenergymeasure.core.backends.shared.engines import Finished
from llenergymeasure.core.visible_gpus import BUS_ORDER

ENVIRONMENT = {
    **BUS_ORDER,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",  # the engine core in a process of its own
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere while we measure
    "SPT_NOENV": "1",  # a renamed process keeps its environment readable (setproctitle)
}
"""Variables under which vLLM is started."""

_ADAPTER_NUMBER = 1
_OF_DRAFTS = "per_request_spec_decode_metrics"


class Step(NamedTuple):
    """One step of the engine.

    Attributes:
        at_s: When its tokens were there, monotonic.
        tokens: Keys of the requests it worked on, and how many tokens each got.
    """

    at_s: float
    tokens: Sequence[tuple[str, int]]


class Crowd(NamedTuple):
    """Requests that were worked off together.

    Attributes:
        requests: The requests.
        finished: What became of each, in the same order.
        steps: The steps of the engine; empty where it tells none.
    """

    requests: Sequence[Request]
    finished: list[Finished]
    steps: Sequence[Step] = ()


class VLLMLibrary:
    """One ``vllm.LLM``.

    Args:
        arguments: Those of ``vllm.LLM``.
        adapter: Directory or Hub id of a LoRA adapter that every request uses.
    """

    def __init__(self, arguments: Mapping[str, Any], adapter: str | None) -> None:
        from vllm import LLM, EngineArgs, SamplingParams
        from vllm.lora.request import LoRARequest
        from vllm.sampling_params import BeamSearchParams

        self._sampling, self._beam = SamplingParams, BeamSearchParams
        self._adapter = adapter and LoRARequest("adapter", _ADAPTER_NUMBER, adapter)
        told = {}
        if "speculative_config" in arguments and hasattr(EngineArgs, _OF_DRAFTS):  # not in 0.19
            told[_OF_DRAFTS] = "summary"
        self.llm = LLM(**{**told, **arguments})

    @property
    def _engine(self) -> Any:
        return self.llm.llm_engine

    @property
    def _core(self) -> Any:
        return self._engine.engine_core

    def generate(
        self,
        requests: Sequence[Request],
        options: Sequence[Mapping[str, Any]],
        progress: Progress,
    ) -> Crowd:
        """Hand all requests over at once and work until every one has ended.

        The loop is that of ``LLM.generate``, without its progress bar.

        Args:
            requests: What is asked.
            options: Arguments of ``SamplingParams``, one a request.
            progress: Called after a step with the number of requests that ended in it.
        """
        issued_ns = time.monotonic_ns()
        with self._noted_steps() as steps:
            keys = self.llm.enqueue(
                _prompts(requests),
                [self._sampling(**each) for each in options],
                lora_request=self._adapter,
                use_tqdm=False,
            )
            ended: list[tuple[Any, int]] = []
            while self._engine.has_unfinished_requests():
                if outputs := [output for output in self._engine.step() if output.finished]:
                    now_ns = time.monotonic_ns()
                    ended += [(output, now_ns) for output in outputs]
                    progress(len(outputs))
            ended.sort(key=lambda pair: int(pair[0].request_id))
        finished = [
            told(key, output, issued_ns, delivered_ns)
            for key, (output, delivered_ns) in zip(keys, ended, strict=True)
        ]
        return Crowd(requests, finished, steps)

    @contextlib.contextmanager
    def _noted_steps(self) -> Iterator[list[Step]]:
        """Note inside the block which tokens each step brings, at the engine core's own time.

        As little as possible, since it is part of the window; samples are made of it later.
        """
        core, steps = self._core, list[Step]()
        if not hasattr(core, "get_output"):
            yield steps
            return
        get_output = core.get_output

        def noting() -> Any:
            step = get_output()
            tokens = [(output.request_id, len(output.new_token_ids)) for output in step.outputs]
            steps.append(Step(step.timestamp, tokens))
            return step

        core.get_output = noting
        try:
            yield steps
        finally:
            del core.get_output

    def beam_search(self, requests: Sequence[Request], options: Mapping[str, Any]) -> Crowd:
        """Search for all requests at once; gives the best beam of each, without times."""
        issued_ns = time.monotonic_ns()
        found = self.llm.beam_search(
            _prompts(requests), self._beam(**options), lora_request=self._adapter
        )
        delivered_ns = time.monotonic_ns()
        end = None if options["ignore_eos"] else self.llm.get_tokenizer().eos_token_id
        finished = []
        for request, output in zip(requests, found, strict=True):
            given = len(request.token_ids)
            tokens = output.sequences[0].tokens[given:]
            reason = "stop" if end is not None and tokens[-1:] == [end] else "length"
            finished.append(Finished(given, tuple(tokens), reason, issued_ns, delivered_ns))
        return Crowd(requests, finished)

    def empty_prefix_cache(self) -> bool:
        """Forget the KV cache of earlier prompts; false where some of it is in use."""
        caches = self._engine.vllm_config.cache_config.enable_prefix_caching
        return not caches or bool(self.llm.reset_prefix_cache())

    def worker_facts(self, *, reset_peak: bool = False) -> list[dict[str, Any]]:
        """Ask every worker what only it knows; see ``worker.py``."""
        facts: list[dict[str, Any]] = self.llm.collective_rpc(
            "llenergymeasure_facts", args=(reset_peak,)
        )
        return facts

    def parameters(self) -> list[str]:
        """Name the parameters of the model, of all workers; see ``worker.py``."""
        shares: list[list[str]] = self.llm.collective_rpc("llenergymeasure_parameters")
        return sorted({name for share in shares for name in share})

    def settings(self) -> dict[str, Any]:
        """Give the value in force of every setting of the section, and of some beside it."""
        config = self._engine.vllm_config
        model, cache = config.model_config, config.cache_config
        scheduler, parallel = config.scheduler_config, config.parallel_config
        speculation, compilation = config.speculative_config, config.compilation_config
        return {
            "max_num_seqs": scheduler.max_num_seqs,
            "max_model_len": model.max_model_len,
            "tensor_parallel_size": parallel.tensor_parallel_size,
            "pipeline_parallel_size": parallel.pipeline_parallel_size,
            "gpu_memory_utilization": cache.gpu_memory_utilization,
            "enable_prefix_caching": cache.enable_prefix_caching,
            "enable_chunked_prefill": scheduler.enable_chunked_prefill,
            "block_size": cache.block_size,
            "quantization": model.quantization,
            "kv_cache_dtype": str(cache.cache_dtype),
            "enforce_eager": model.enforce_eager,
            "compute_dtype": str(model.dtype).removeprefix("torch."),
            "load_format": _name(config.load_config.load_format),
            "seed": model.seed,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "num_kv_blocks": cache.num_gpu_blocks,
            "executor": str(parallel.distributed_executor_backend),
            "compilation_mode": _name(compilation.mode),
            "cudagraph_mode": _name(compilation.cudagraph_mode),
            "num_speculative_tokens": getattr(speculation, "num_speculative_tokens", None),
        }

    def shape(self) -> Any:
        """Give the model's configuration, as transformers reads it."""
        return self._engine.vllm_config.model_config.hf_config

    def end_waiting(self) -> None:
        """Break off every wait for the engine core, which has died; from any thread."""
        from vllm.v1.engine.exceptions import EngineDeadError

        for waiting in list(getattr(self._core, "utility_results", {}).values()):
            if not waiting.done():
                waiting.set_exception(EngineDeadError())
        if (queue := getattr(self._core, "outputs_queue", None)) is not None:
            queue.put_nowait(EngineDeadError())

    def shut_down(self) -> None:
        """Ask the engine core to end, and its workers with it."""
        self._core.shutdown()


def _prompts(requests: Sequence[Request]) -> list[dict[str, list[int]]]:
    return [{"prompt_token_ids": list(request.token_ids)} for request in requests]


def with_gaps(steps: Sequence[Step], finished: Sequence[Finished]) -> Iterator[Finished]:
    """Add the time between the tokens of each request, and the tokens of each gap unless all are 1.

    Unknown unless the steps account for every token.
    """
    outputs: dict[str, list[tuple[int, int]]] = {}
    for step in steps:
        at_ns = round(step.at_s * 1e9)
        for key, tokens in step.tokens:
            if tokens:
                outputs.setdefault(key, []).append((at_ns, tokens))
    for done in finished:
        own = outputs.get(done.key, [])
        if sum(tokens for _, tokens in own) != len(done.token_ids):
            yield done
            continue
        gaps_ns = tuple(after - before for (before, _), (after, _) in pairwise(own))
        sizes = tuple(tokens for _, tokens in own[1:])
        yield done._replace(gaps_ns=gaps_ns, gap_tokens=None if set(sizes) <= {1} else sizes)


def told(key: str, output: Any, issued_ns: int, delivered_ns: int) -> Finished:
    """Take what vLLM's ``RequestOutput`` says of a request that has ended."""
    answer, stats = output.outputs[0], output.metrics
    drafts = getattr(answer, "spec_decode_metrics", None)
    # Tokens accepted in a step, and how many steps there were of each number.
    accepted = None if drafts is None else sum(n * of for n, of in enumerate(drafts.histogram))
    return Finished(
        prompt_tokens=len(output.prompt_token_ids),
        token_ids=tuple(answer.token_ids),
        reason=answer.finish_reason,
        issued_ns=issued_ns,
        delivered_ns=delivered_ns,
        cached_tokens=output.num_cached_tokens,
        scheduled_ns=_ns(getattr(stats, "scheduled_ts", None)),
        first_token_ns=_ns(getattr(stats, "first_token_ts", None)),
        last_token_ns=_ns(getattr(stats, "last_token_ts", None)),
        key=key,
        drafted_tokens=getattr(drafts, "num_draft_tokens", None),
        accepted_tokens=accepted,
    )


def _ns(seconds: float | None) -> int | None:
    """Give a time in nanoseconds; vLLM writes 0.0 where something has not happened."""
    return round(seconds * 1e9) if seconds else None


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))
