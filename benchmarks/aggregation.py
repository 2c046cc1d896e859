"""How long the figures of one experiment with a million requests take, from its raw samples.

Run from the repository root: ``python benchmarks/aggregation.py``. Times pooling, latency,
throughput and operations of requests in memory, dealt to one process and to several, with static
batches of 8 and of 1, and reading them from ``requests.parquet``. The median of a few rounds counts
against the limit, all are kept. Each answer has four tokens: times between tokens are kept one by
one, so longer answers take longer, and a million long ones do not fit into memory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
from llenergymeasure.core import flops, metrics
from llenergymeasure.core.models import catalogue
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.domain.samples import MemoryReading, RawProcessResult, RequestSample, Window
from llenergymeasure.results import tables
from llenergymeasure.results.aggregation import pool

LIMIT_S = 5.0
TOKENS = 4  # of each answer: three gaps


def make_requests(
    count: int, first: int = 0, step: int = 1, batch: int = 8
) -> tuple[RequestSample, ...]:
    """Make requests whose times differ."""
    return tuple(_request(i, i // batch) for i in range(first, count, step))


def _request(i: int, batch_index: int) -> RequestSample:
    start_ns = 1_000_000_000 + i * 1_000_003
    first_ns = start_ns + 5_000_000 + i * 7919 % 1_000_003
    gaps_ns = tuple(2_000_000 + (i * 31 + k * 17) % 500_009 for k in range(TOKENS - 1))
    last_ns = first_ns + sum(gaps_ns)
    return RequestSample(
        request=i,
        pass_index=0,
        batch_index=batch_index,
        input_tokens=100 + i % 50,
        padded_input_tokens=150,
        output_tokens=TOKENS,
        executed_output_tokens=TOKENS,
        issued_ns=start_ns - 1000,
        scheduled_ns=start_ns,
        first_token_ns=first_ns,
        last_token_ns=last_ns,
        delivered_ns=last_ns,
        gaps_ns=gaps_ns,
    )


def make_processes(count: int, processes: int, batch: int = 8) -> list[RawProcessResult]:
    """Deal the requests to processes."""
    window = Window(1_000_000_000, 1_000_000_000 + count * 1_000_003)
    return [
        RawProcessResult(
            process_index=index,
            window=window,
            passes=(window,),
            requests=make_requests(count, index, processes, batch),
            memory=MemoryReading("none"),
        )
        for index in range(processes)
    ]


def aggregate(processes: Sequence[RawProcessResult]) -> float | None:
    """Do what the end of an experiment does: pool, then latency, throughput and operations."""
    pooled = pool(processes)
    latency = metrics.latency_result(pooled.requests)
    metrics.throughput_result(pooled.requests, pooled.window, passes=1, prompts_truncated=0)
    flops.count_operations(_shape(), flops.RequestTokens.from_samples(pooled.requests), 1)
    for process in processes:
        flops.static_traffic(process.requests, 1)
    return latency.ttft_ms.p99 if latency.ttft_ms else None


def _shape() -> ModelArchitecture:
    return ModelArchitecture.from_config(catalogue.config("tiny-llama"))


def _cases(count: int, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    one, four = make_processes(count, 1), make_processes(count, 4)
    path = folder / "requests.parquet"
    yield "one process, in memory", lambda: aggregate(one)
    yield "four processes, in memory", lambda: aggregate(four)
    alone = make_processes(count, 1, batch=1)
    yield "one process, batches of 1, in memory", lambda: aggregate(alone)
    yield (
        "write requests.parquet",
        lambda: tables.write_requests(one, path),
    )
    yield "read requests.parquet", lambda: tables.read_requests(path)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> int:
    """Time every part; 1 when aggregation takes longer than its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=machine.RESULTS / "aggregation.json")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        times = {
            name: [_seconds(work) for _ in range(given.rounds)]
            for name, work in _cases(given.requests, Path(folder))
        }
    slowest_s = max(
        statistics.median(seconds) for name, seconds in times.items() if "in memory" in name
    )
    data: dict[str, Any] = {
        "machine": machine.describe(),
        "requests": given.requests,
        "limit_s": LIMIT_S,
        "claim_holds": slowest_s <= LIMIT_S,
        "seconds": times,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    machine.save(given.output, data)
    return 0 if data["claim_holds"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
