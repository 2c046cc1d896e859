"""Late aggregation: the raw samples of all processes are pooled before any statistic is taken.

An average of the averages of processes with unequal shares is not the average of the requests, and
a percentile of percentiles is nothing at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.samples import MemoryReading, RawProcessResult, RequestSample, Window
from llenergymeasure.exceptions import ExperimentError


@dataclass(frozen=True, slots=True)
class PooledSamples:
    """What all processes of an experiment recorded, as if it were one.

    Attributes:
        window: From the first request of any process to the last token of any.
        passes: The same for each pass over the prompts.
        requests: Every request, sorted by pass and by position in the dataset.
        memory: Of devices, that of the fullest: each process has its own. Resident sets share one
            machine and are summed. Capacity of one device, or of the machine.
        energy: The recording of the coordinator, which covers all devices.
    """

    window: Window
    passes: tuple[Window, ...]
    requests: tuple[RequestSample, ...]
    memory: MemoryReading
    energy: EnergyRecording


def pool(processes: Sequence[RawProcessResult]) -> PooledSamples:
    """Pool the raw samples of all processes.

    Args:
        processes: Each process's share, in any order; process 0 recorded the energy.

    Raises:
        ExperimentError: The shares do not belong together; the message names what differs, with
            both values.
    """
    shares = sorted(processes, key=lambda share: share.process_index)
    _check(shares)
    return PooledSamples(
        window=_span(share.window for share in shares),
        passes=tuple(map(_span, zip(*(share.passes for share in shares), strict=True))),
        requests=_requests(shares),
        memory=_memory([share.memory for share in shares]),
        energy=shares[0].energy,
    )


def _check(shares: Sequence[RawProcessResult]) -> None:
    indices = Counter(share.process_index for share in shares)
    if 0 not in indices:
        raise _refusal(f"process_index: there is no 0, which records energy; got {sorted(indices)}")
    repeated, times = indices.most_common(1)[0]
    if times > 1:
        raise _refusal(f"process_index: {repeated} is given {times} times, each may be once")
    first = shares[0]
    for share in shares[1:]:
        for key, one, other in (
            ("passes", len(first.passes), len(share.passes)),
            ("memory.kind", first.memory.kind, share.memory.kind),
        ):
            if one != other:
                raise _refusal(
                    f"{key}: {one} in process {first.process_index}, {other} in process "
                    f"{share.process_index}"
                )


def _requests(shares: Sequence[RawProcessResult]) -> tuple[RequestSample, ...]:
    owner: dict[tuple[int, int], int] = {}
    for share in shares:
        for sample in share.requests:
            key = (sample.pass_index, sample.request)
            if key in owner:
                raise _refusal(
                    f"request: {sample.request} of pass {sample.pass_index} is in process "
                    f"{owner[key]} and again in process {share.process_index}"
                )
            owner[key] = share.process_index
    every = (sample for share in shares for sample in share.requests)
    return tuple(sorted(every, key=lambda sample: (sample.pass_index, sample.request)))


def _memory(readings: Sequence[MemoryReading]) -> MemoryReading:
    capacities = [item.capacity_mb for item in readings if item.capacity_mb is not None]
    combine = max if readings[0].kind == "device" else sum
    return MemoryReading(
        kind=readings[0].kind,
        peak_mb=_combined(combine, [item.peak_mb for item in readings]),
        model_mb=_combined(combine, [item.model_mb for item in readings]),
        capacity_mb=min(capacities, default=None),
    )


def _combined(
    combine: Callable[[list[float]], float], values: Sequence[float | None]
) -> float | None:
    known = [value for value in values if value is not None]
    # Without one of its parts a figure would pass for a smaller one.
    return combine(known) if len(known) == len(values) else None


def _span(windows: Iterable[Window]) -> Window:
    parts = list(windows)
    return Window(min(part.t0_ns for part in parts), max(part.t1_ns for part in parts))


def _refusal(reason: str) -> ExperimentError:
    return ExperimentError(f"the processes of this experiment cannot be pooled; {reason}")
