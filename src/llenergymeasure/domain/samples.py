"""Raw samples of one process. Everything else in a result is derived from these.

All times are nanoseconds on the monotonic clock, the same for all processes of a machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from llenergymeasure.domain.energy import EnergyRecording, Reading

Finish = Literal["length", "stop", "failed"]
LatencyStart = Literal["scheduled", "due"]
"""What TTFT and E2E count from: work on a request began, or it was due, whether it began or not."""

MemoryKind = Literal["device", "resident_set", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSample:
    """One request of one pass; its fields are the columns of ``requests.parquet``."""

    request: Annotated[int, "Position of the prompt in the dataset."]
    pass_index: Annotated[int, "Pass over the prompts, from 0."]
    batch_index: Annotated[int | None, "Batch of that pass, from 0; null: it has none."] = None
    input_tokens: Annotated[int, "Tokens of the prompt as the engine got it."]
    padded_input_tokens: Annotated[
        int | None, "Prompt positions computed, with padding; null: none is known of."
    ] = None
    output_tokens: Annotated[int, "Tokens produced, end of sequence included."]
    executed_output_tokens: Annotated[
        int | None, "Steps, those after its own end included; null: none of these is known of."
    ] = None
    issued_ns: Annotated[int, "Handed to the engine, ns."]
    scheduled_ns: Annotated[int, "Work on it began, ns."]
    first_token_ns: Annotated[int | None, "Its first token was there, ns."]
    last_token_ns: Annotated[
        int | None, "Its last token was there; of a beam search, its last step was done, ns."
    ]
    delivered_ns: Annotated[int | None, "Handed back; in a static batch, its end, ns."]
    gaps_ns: Annotated[
        tuple[int, ...] | None, "Between successive arrivals of tokens, ns; null: not told."
    ] = None
    gap_tokens: Annotated[
        tuple[int, ...] | None, "Tokens of each of these gaps; null: one each."
    ] = None
    finish: Annotated[Finish, "Why it ended: length, stop or failed."] = "length"
    error: Annotated[str | None, "What went wrong, for a failed one."] = None
    cached_input_tokens: Annotated[
        int | None, "Prompt tokens found in the prefix cache, and not computed; null: not told."
    ] = None
    due_ns: Annotated[int | None, "To be handed to the engine, ns; null: with its batch."] = None
    drafted_tokens: Annotated[
        int | None, "Tokens that were drafted for it; null: none were, or it is not told."
    ] = None
    accepted_tokens: Annotated[
        int | None, "Those of them that the model accepted; null as for drafted_tokens."
    ] = None

    @property
    def computed_input_tokens(self) -> int:
        """Positions computed for the prompt; those of the prompt where nothing else is known."""
        known = self.padded_input_tokens
        return self.input_tokens if known is None else known

    @property
    def computed_output_tokens(self) -> int:
        """Steps computed for the answer; its tokens where nothing else is known."""
        known = self.executed_output_tokens
        return self.output_tokens if known is None else known


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the monotonic clock."""

    t0_ns: int
    t1_ns: int

    @property
    def seconds(self) -> float:
        """Its length in seconds."""
        return (self.t1_ns - self.t0_ns) / 1e9


WindowName = Literal[
    "device_idle_check", "device_idle", "load", "loaded_idle", "warmup_end", "measure", "prefill"
]


@dataclass(frozen=True, slots=True)
class WindowReadings:
    """Everything an energy source read around one window.

    Attributes:
        name: ``measure`` for the measured window. ``device_idle`` before the model is there, or
            ``device_idle_check`` where a short look confirmed what was known; ``loaded_idle`` with
            it; ``load`` while it loads, of a cold start; ``prefill`` of the prefill-only passes.
        window: The window itself.
        readings: Every raw reading, guard time included.
    """

    name: WindowName
    window: Window
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Memory of one process.

    Attributes:
        kind: ``device`` memory, the ``resident_set`` of the process, or ``none`` known.
        peak_mb: Highest use since the model was loaded, MiB.
        model_mb: Use right after loading, MiB.
        capacity_mb: What the device has, or the machine or this process of it, MiB.
    """

    kind: MemoryKind
    peak_mb: float | None = None
    model_mb: float | None = None
    capacity_mb: float | None = None


@dataclass(frozen=True, slots=True)
class RawProcessResult:
    """One process's share of an experiment.

    Attributes:
        process_index: Which process, from 0.
        window: From its first request to its last token, device synchronised.
        passes: Each pass over the prompts, in order.
        requests: Every request of every pass.
        memory: What the process needed.
        energy: What its energy source recorded over the window.
        suspended_s: How long the machine slept inside the window; ``None`` where no clock tells.
        idle_s: How long the thread that drives the engine neither ran nor waited for a CPU inside
            the window; ``None`` as before.
        warmup_idle_share: The same as a share of the warm-up, ``None`` without one.
    """

    process_index: int
    window: Window
    passes: tuple[Window, ...]
    requests: tuple[RequestSample, ...]
    memory: MemoryReading
    energy: EnergyRecording = field(default_factory=lambda: EnergyRecording(source="none"))
    suspended_s: float | None = None
    idle_s: float | None = None
    warmup_idle_share: float | None = None
