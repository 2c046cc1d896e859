"""Raw samples of one process. Everything else in a result is derived from these.

All times are nanoseconds on the monotonic clock, the same for all processes of a machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llenergymeasure.domain.energy import EnergyRecording, Reading

Finish = Literal["length", "stop", "failed"]
LatencyStart = Literal["scheduled", "due"]
"""What TTFT and E2E count from: work on a request began, or it was due, whether it began or not."""

MemoryKind = Literal["device", "resident_set", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSample:
    """One request of one pass.

    Attributes:
        request: Position of the prompt in the dataset.
        pass_index: Which pass over the prompts, from 0.
        batch_index: Which batch of that pass, from 0; ``None`` where the engine forms none that
            last.
        input_tokens: Tokens of the prompt as the engine got it.
        padded_input_tokens: Positions the engine computed for the prompt, padding included;
            ``None`` where it pads nothing, or does not say.
        output_tokens: Tokens produced, the end of sequence included.
        executed_output_tokens: Steps the row took part in, those after its own end included;
            ``None`` where there are none of these, or the engine does not say.
        issued_ns: Handed to the engine.
        scheduled_ns: Work on it began.
        first_token_ns: Its first token was there.
        last_token_ns: Its last token was there.
        delivered_ns: It was handed back; in a static batch, the end of the batch.
        gaps_ns: Time between successive arrivals of tokens; ``None`` where the engine tells none.
        gap_tokens: Tokens each of these gaps delivered; ``None`` means one each.
        finish: Why it ended.
        error: What went wrong, for a failed one.
        cached_input_tokens: Tokens of the prompt that the engine found in its prefix cache and did
            not compute; ``None`` where it does not say.
        due_ns: It was to be handed to the engine; ``None`` of an engine that works on batches.
    """

    request: int
    pass_index: int
    batch_index: int | None = None
    input_tokens: int
    padded_input_tokens: int | None = None
    output_tokens: int
    executed_output_tokens: int | None = None
    issued_ns: int
    scheduled_ns: int
    first_token_ns: int | None
    last_token_ns: int | None
    delivered_ns: int | None
    gaps_ns: tuple[int, ...] | None = None
    gap_tokens: tuple[int, ...] | None = None
    finish: Finish = "length"
    error: str | None = None
    cached_input_tokens: int | None = None
    due_ns: int | None = None

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
    "device_idle_check", "device_idle", "load", "loaded_idle", "measure", "prefill"
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
        capacity_mb: What the device, or the machine, has, MiB.
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
    """

    process_index: int
    window: Window
    passes: tuple[Window, ...]
    requests: tuple[RequestSample, ...]
    memory: MemoryReading
    energy: EnergyRecording = field(default_factory=lambda: EnergyRecording(source="none"))
