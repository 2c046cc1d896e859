"""What a verdict on a result is reached from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llenergymeasure.domain.energy import EnergyKind
from llenergymeasure.domain.environment import DeviceState
from llenergymeasure.domain.results import BaselineResult, CPULoad, PassComparison


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is reached from.

    Attributes:
        window_s: Length of the measured window, s.
        passes: Passes over the prompts in it.
        batches: Batches of one pass.
        requests_completed: Requests that ended well, all passes.
        requests_failed: Requests that failed.
        prompts_truncated: Prompts cut to ``max_input_tokens``, of one pass.
        weights: Where the weights came from.
        energy_asked: Whether a source of energy was to be read: neither with
            ``energy_backend: none`` nor where ``auto`` found none.
        no_source: Why ``auto`` found no source; ``None`` where it found one or was not asked.
        energy_kind: The kind of figure that came out.
        energy_notes: What the source said about it.
        energy_flags: What was found about its readings, by stable codes.
        on_gpu: Whether GPUs did the work.
        gpu_uuids: Those GPUs, where they are known by name.
        devices: What each device was doing over the window.
        reference_c: Temperature at which each device should start, by UUID, where there is one.
        comparison: How the two halves of the window compare, where they did the same work.
        baseline: Idle power.
        cpu_load: Who kept the CPUs busy, where the work was theirs and it is known.
        prefix_cache_hits: Prompts of the window that the engine found in its prefix cache, or
            ``None`` where it does not say.
    """

    window_s: float
    passes: int
    batches: int
    requests_completed: int
    requests_failed: int
    prompts_truncated: int
    weights: Literal["pretrained", "random", "none"]
    energy_asked: bool
    energy_kind: EnergyKind
    no_source: str | None = None
    energy_notes: tuple[str, ...] = ()
    energy_flags: tuple[str, ...] = ()
    on_gpu: bool = False
    gpu_uuids: tuple[str, ...] = ()
    devices: tuple[DeviceState, ...] = ()
    reference_c: Mapping[str, float] = field(default_factory=dict)
    comparison: PassComparison | None = None
    baseline: BaselineResult | None = None
    cpu_load: CPULoad | None = None
    prefix_cache_hits: int | None = None


class Found(NamedTuple):
    """A code, and what was found in this result."""

    code: str
    detail: str
