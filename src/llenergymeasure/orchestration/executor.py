"""What executes the requests of an experiment: a model loaded in this process, or in several."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from llenergymeasure.core.backends.protocol import (
    PREFILL_PASS,
    WARMUP_PASS,
    Batch,
    EngineReport,
    InferenceEngine,
    ModelLoader,
    PassTrace,
)
from llenergymeasure.core.energy.estimation.aliasing import step_times_ns
from llenergymeasure.core.models import identity
from llenergymeasure.core.stalls import read_clocks
from llenergymeasure.core.workload import (
    AskedTokens,
    asked_of,
    batches_for,
    build_requests,
    run_batches,
    warmup_batches,
    warmup_tour,
)
from llenergymeasure.datasets.loader import load_dataset
from llenergymeasure.domain.results import DatasetInfo
from llenergymeasure.domain.samples import LatencyStart, RawProcessResult, RequestSample, Window
from llenergymeasure.orchestration.order import WorkOrder

PassKind = Literal["measure", "prefill"]


@dataclass(frozen=True, slots=True)
class PreparedWork:
    """The prompts as the engine will get them.

    Attributes:
        batches: Batches that follow one another in a pass.
        truncated: Prompts cut to ``max_input_tokens``.
        dataset: Where the prompts are from.
        asked: What each request asks for, by position in the dataset; of all processes.
        latency_start: What the times of a request count from.
        inputs: Identity of each input, by the field that names it.
    """

    batches: int
    truncated: int
    dataset: DatasetInfo
    asked: tuple[AskedTokens, ...]
    latency_start: LatencyStart
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Collected:
    """What an executor has to tell once everything has run.

    Attributes:
        report: What the engine says about itself.
        processes: Raw samples of the measured window, a share a process, without energy.
    """

    report: EngineReport
    processes: tuple[RawProcessResult, ...]


class WarmedUp(NamedTuple):
    """Warm-up batches that were run.

    Attributes:
        tokens: What they produced.
        ended_ns: When the device was done with the last one, monotonic clock.
    """

    tokens: int
    ended_ns: int


class Audience(Protocol):
    """Who is told how far the work has come."""

    def expect(self, total: int) -> None:
        """Take note of how many more requests there are to do."""
        ...

    def progress(self, finished: int) -> None:
        """Take note of finished requests."""
        ...


class Executor(Protocol):
    """Executes the requests of one experiment.

    Calls come in the order of the methods. Each returns once every process is done with it and its
    device is synchronised; each raises an ``LLEMError`` where one of them fails.
    """

    def start(self) -> None:
        """Get every process going; nothing heavy is imported yet."""
        ...

    def load(self) -> None:
        """Load the model."""
        ...

    def prepare(self) -> PreparedWork:
        """Turn prompts into batches."""
        ...

    def warm_up(self, count: int, first: int = 0) -> WarmedUp:
        """Run warm-up batches in each process.

        Args:
            count: Batches to run.
            first: Number of the first one; a call that goes on where another ended counts on.
        """
        ...

    def rehearse_prefill(self) -> None:
        """Run a batch of the prefill-only passes, outside any window."""
        ...

    def run_pass(self, kind: PassKind, begun_ns: int) -> Window:
        """Run every request once, all processes at the same time.

        Args:
            kind: ``measure``, or ``prefill`` for one token a prompt.
            begun_ns: Where the window of this pass begins, monotonic clock.

        Returns:
            The window, to the end of the last process.
        """
        ...

    def step_times_ns(self, kind: PassKind) -> Sequence[int]:
        """Tell when the steps of the load on a device began."""
        ...

    def collect(self) -> Collected:
        """Give the report of the engine and the raw samples."""
        ...

    def close(self) -> None:
        """Free everything; no process is left. Safe to call twice."""
        ...


class Share(NamedTuple):
    """Which of the prompts a process works on: every ``of``-th, from its own number on."""

    process: int
    of: int


ALL_PROMPTS = Share(0, 1)


@dataclass(slots=True)
class _Passes:
    """Passes of one kind: the batches, what came of them, and what clocks say of the passes."""

    plan: tuple[Batch, ...] = ()
    windows: list[Window] = field(default_factory=list)
    traces: list[PassTrace] = field(default_factory=list)
    samples: tuple[RequestSample, ...] | None = None
    slept_s: float = 0.0
    idle_s: float = 0.0


class LocalExecutor:
    """Executes a share of the requests in this process.

    Args:
        loader: Makes the engine.
        order: What is to be done.
        audience: Told of every finished request.
        share: Which prompts are this process's; all of them by default.
    """

    def __init__(
        self, loader: ModelLoader, order: WorkOrder, audience: Audience, share: Share = ALL_PROMPTS
    ) -> None:
        self._loader, self._order, self._config = loader, order, order.config
        self._audience, self._share = audience, share
        self._loaded: InferenceEngine | None = None
        self._warmup_s = self._warmup_idle_s = 0.0
        self._passes: dict[PassKind, _Passes] = {"measure": _Passes(), "prefill": _Passes()}

    def start(self) -> None:
        """Do nothing: this process runs."""

    def load(self) -> None:
        """Load the model."""
        self._loaded = self._loader.load(self._config, self._order.cache_dir)

    def prepare(self) -> PreparedWork:
        """Tokenise all prompts, and group those of this share into batches."""
        config, engine = self._config, self._engine
        dataset = load_dataset(
            config.dataset,
            config.n,
            cache_dir=self._order.cache_dir,
            ordinary_ids=engine.tokenizer.ordinary_ids(),
        )
        report = engine.inspect()
        work = build_requests(
            dataset.prompts,
            engine.tokenizer,
            config,
            context_limit=report.context_limit,
            token_rows=report.token_rows,
        )
        tokenizer = report.tokenizer_sha256
        inputs = {"dataset": dataset.sha256} | ({"tokenizer": tokenizer} if tokenizer else {})
        inputs |= identity.of_models(config, report.model_commit)
        info = DatasetInfo(
            name=dataset.name,
            size=dataset.size,
            used=len(work.requests),
            sha256=dataset.sha256,
            provenance=dataset.provenance,
            column=dataset.column,
            unused=dataset.unused,
        )
        plan = batches_for(engine, work.requests[self._share.process :: self._share.of])
        self._passes["measure"].plan = plan
        self._passes["prefill"].plan = tuple(
            tuple(replace(request, max_new_tokens=1) for request in batch) for batch in plan
        )
        asked = asked_of(work.requests)
        return PreparedWork(len(plan), work.truncated, info, asked, work.latency_start, inputs)

    def warm_up(self, count: int, first: int = 0) -> WarmedUp:
        """Run warm-up batches."""
        plan, n = self._passes["measure"].plan, self._config.warmup.n_warmup
        numbers, ids = range(first, first + count), self._engine.tokenizer.ordinary_ids()
        batches = warmup_batches(plan, n, ids, self._config.random_seed, numbers)
        # The batches asked for are known from the start, those of a thermal floor as they come.
        known = warmup_tour(plan, n)[:n] if batches and not first else ()
        floor = [batch for number, batch in zip(numbers, batches, strict=False) if number >= n]
        expected = sum(map(len, (*(plan[position] for position in known), *floor)))
        before, began_ns = read_clocks(), time.monotonic_ns()
        traces = self._run(batches, WARMUP_PASS, expected) if batches else ()
        ended_ns = time.monotonic_ns()
        self._warmup_s += (ended_ns - began_ns) / 1e9
        self._warmup_idle_s += read_clocks().idle_s - before.idle_s
        tokens = sum(sample.output_tokens for trace in traces for sample in trace.samples())
        return WarmedUp(tokens, ended_ns)

    def rehearse_prefill(self) -> None:
        """Run the first prefill-only batch."""
        self._run(self._passes["prefill"].plan[:1], WARMUP_PASS)

    def run_pass(self, kind: PassKind, begun_ns: int) -> Window:
        """Run every request of this share once."""
        passes, before = self._passes[kind], read_clocks()
        number = len(passes.windows) if kind == "measure" else PREFILL_PASS
        passes.traces += self._run(passes.plan, number)
        window = Window(begun_ns, time.monotonic_ns())
        passes.windows.append(window)
        after = read_clocks()
        passes.slept_s += after.slept_s - before.slept_s
        passes.idle_s += after.idle_s - before.idle_s
        return window

    def step_times_ns(self, kind: PassKind) -> Sequence[int]:
        """Tell when the steps began."""
        return step_times_ns(self.samples(kind))

    def samples(self, kind: PassKind) -> tuple[RequestSample, ...]:
        """Give every request of every pass of a kind; resolves device timestamps."""
        passes = self._passes[kind]
        if passes.samples is None:
            passes.samples = tuple(one for trace in passes.traces for one in trace.samples())
        return passes.samples

    def collect(self) -> Collected:
        """Give the report of the engine and the raw samples of this share."""
        report, measured = self._engine.inspect(), self._passes["measure"]
        share = self._warmup_idle_s / self._warmup_s if self._warmup_s else math.nan
        suspended_s, idle_s, warmup_idle_share = (
            None if math.isnan(each) else round(max(0.0, each), 3)
            for each in (measured.slept_s, measured.idle_s, share)
        )
        raw = RawProcessResult(
            process_index=self._share.process,
            window=Window(measured.windows[0].t0_ns, measured.windows[-1].t1_ns),
            passes=tuple(measured.windows),
            requests=self.samples("measure"),
            memory=report.memory,
            suspended_s=suspended_s,
            idle_s=idle_s,
            warmup_idle_share=warmup_idle_share,
        )
        return Collected(report, (raw,))

    def close(self) -> None:
        """Drop the model."""
        engine, self._loaded = self._loaded, None
        if engine is not None:
            engine.close()

    @property
    def _engine(self) -> InferenceEngine:
        assert self._loaded is not None, "load() comes first"
        return self._loaded

    def _run(
        self, batches: Sequence[Batch], pass_index: int, expected: int | None = None
    ) -> list[PassTrace]:
        """Run batches; ``expected`` are the requests that the phase then has more of."""
        self._audience.expect(sum(map(len, batches)) if expected is None else expected)
        return run_batches(self._engine, batches, pass_index, self._audience.progress)
