"""The contract of an inference backend: a loader that makes an engine, and the engine.

An engine is of one of two kinds. A :class:`BatchEngine` works on batches that it plans beforehand;
a :class:`RequestEngine` schedules requests itself, each from the time it is due.

To add one, write both, a section model, and ``BackendFacts`` (see ``config/backend_facts.py``) that
a package offers through the entry-point group ``llenergymeasure.backends``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.counted import Counted, doubt
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.prompts import Message
from llenergymeasure.domain.samples import MemoryReading, RequestSample
from llenergymeasure.exceptions import Problem

WARMUP_PASS = -1
"""Number of every pass that warms up; passes that are measured count from 0."""

PREFILL_PASS = -2
"""Number of every pass that only prefills, which tells the phases of the measured ones apart."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt as an engine gets it.

    Attributes:
        index: Position of the prompt in the dataset.
        token_ids: The prompt, tokenised and truncated.
        max_new_tokens: Most tokens it may produce.
        full_length: Whether it goes on to that many whatever the model says, as in a warm-up.
    """

    index: int
    token_ids: tuple[int, ...]
    max_new_tokens: int
    full_length: bool = False

    @property
    def positions(self) -> int:
        """Places in the context that prompt and answer take together."""
        return len(self.token_ids) + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes at a certain time.

    Attributes:
        request: What is asked.
        due_ns: When, from the start of its pass; 0 for all of them where everything is there from
            the start, as offline.
    """

    request: Request
    due_ns: int = 0


Batch = tuple[Request, ...]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What an engine says about itself once it is loaded.

    Attributes:
        resolved: The value in force for every setting of its section, ``null`` ones included.
        weights: Whether all weights were read from a checkpoint, are random, or whether the engine
            does not tell (``unknown``); ``none`` where there is no model.
        own_weight_seed: Whether random weights come from a seed of the engine's own, whatever
            ``random_seed`` says.
        memory: What the process needs, now.
        architecture: Shape of the model, or ``None`` where the engine does not know.
        counted: Parameters of the loaded model, without adapters and drafting models, or ``None``
            where the engine does not tell.
        model_commit: Commit of the weights on the Hub, or ``None`` where they are not from there.
        tokenizer_sha256: Hash of the tokenizer's files, or ``None`` without one.
        context_limit: Most tokens of prompt and answer together, or ``None`` without a limit.
        compute_devices: How many devices share the work.
        token_rows: Rows of the table of embeddings, or ``None`` where unknown; larger ids are no
            tokens of the model.
        pads: Whether prompts of unequal length are padded to work on them together.
        notes: What a reader of the result should know.
    """

    resolved: dict[str, Any]
    weights: Literal["pretrained", "random", "unknown", "none"]
    memory: MemoryReading
    architecture: ModelArchitecture | None = None
    counted: Counted | None = None
    model_commit: str | None = None
    tokenizer_sha256: str | None = None
    context_limit: int | None = None
    compute_devices: int = 1
    pads: bool = False
    own_weight_seed: bool = False
    token_rows: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def doubt(self) -> str | None:
        """Why nothing follows from the shape of the model; ``None`` where it holds, or is none."""
        return None if self.weights == "none" else doubt(self.architecture, self.counted)


class Tokenizer(Protocol):
    """Text to tokens, as the measured model does it."""

    def encode(self, text: str) -> list[int]:
        """Tokenise one prompt, chat template included where the experiment asks for it."""
        ...

    def ordinary_ids(self) -> Sequence[int]:
        """List the ids that stand for text: no specials, no filler."""
        ...


@runtime_checkable
class ChatTokenizer(Tokenizer, Protocol):
    """A tokenizer that takes chats; without, a dataset of chats is refused."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Tokenise the turns of a chat and the beginning of the answer, as the model wants them.

        Raises:
            ConfigError: The model takes no chats, or not these turns.
        """
        ...


class PassTrace(Protocol):
    """What happened in one pass, readable once the window has closed."""

    def samples(self) -> tuple[RequestSample, ...]:
        """Resolve device timestamps and give one sample a request."""
        ...


class Engine(Protocol):
    """A loaded model; what both kinds have."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the loaded model."""
        ...

    def inspect(self) -> EngineReport:
        """Report settings, memory and model."""
        ...

    def close(self) -> None:
        """Free everything, child processes included; safe to call twice."""
        ...


class BatchEngine(Engine, Protocol):
    """A loaded model that generates for one batch after another."""

    def plan(self, requests: Sequence[Request]) -> tuple[Batch, ...]:
        """Group requests as the engine will work on them; pure, and the same for equal input."""
        ...

    def run(self, batches: Sequence[Batch], pass_index: int, progress: Progress) -> PassTrace:
        """Generate for every request; return when all are done and the device is synchronised.

        A cache that outlives a request, such as a prefix cache, is emptied first.

        Args:
            batches: What :meth:`plan` gave, or some of it.
            pass_index: Number of this pass, recorded in the samples.
            progress: Called with the number of finished requests after each batch.

        Raises:
            BackendError: The engine failed; the message names the phase and the field to change.
        """
        ...


@runtime_checkable
class RequestEngine(Engine, Protocol):
    """A loaded model that takes requests as they come and decides itself what runs side by side."""

    def serve(self, arrivals: Sequence[Arrival], pass_index: int, progress: Progress) -> PassTrace:
        """Generate for every request; return when all are done and the device is synchronised.

        Each request is handed over when it is due, whatever has become of earlier ones, and its
        sample says when that was (``due_ns``, on the monotonic clock). A cache that outlives a
        request, such as a prefix cache, is emptied first.

        Args:
            arrivals: The requests, by the time they are due.
            pass_index: Number of this pass, recorded in the samples.
            progress: Called with the number of requests that finished since it was last called.

        Raises:
            BackendError: The engine failed, or cannot take requests at different times; the message
                names the phase and the field to change.
        """
        ...


InferenceEngine = BatchEngine | RequestEngine


class Rank(NamedTuple):
    """One of the processes that share an experiment's prompts.

    Attributes:
        config: The experiment as this process loads it: one process, its own share of the machine.
        environment: Variables of its environment, beside those of the coordinating process.
    """

    config: ExperimentConfig
    environment: dict[str, str]


@runtime_checkable
class DataParallelLoader(Protocol):
    """A loader whose model may be loaded by several processes, each with a share of the prompts."""

    def ranks(self, config: ExperimentConfig) -> tuple[Rank, ...]:
        """Say how each process loads it; a single one where nothing is shared out."""
        ...


class ModelLoader(Protocol):
    """Makes an engine for a configuration."""

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """List what stops this configuration on this machine, without loading anything."""
        ...

    def target(self, config: ExperimentConfig) -> DeviceTarget:
        """Say which devices will do the work, before they do."""
        ...

    def load(self, config: ExperimentConfig, cache_dir: Path) -> InferenceEngine:
        """Load the model.

        Args:
            config: What to load.
            cache_dir: Where files of random models are kept.

        Raises:
            BackendError: The engine failed; the message names the field to change.
        """
        ...
