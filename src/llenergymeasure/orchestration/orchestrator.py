"""One experiment from baseline to the last reading.

wait        only while another measurement has the device
baseline    power of the idle device, before the model is there
load        the model
prepare     prompts become token ids
idle        power with the model resident
warmup      the measured shapes with other prompts, until the thermal floor has passed
settle      a quiet edge: the source reads on while the device rests
measure     t0, every request, t1
prefill     only for window.phases: differential
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llenergymeasure.config.models import EnergyBackendName, ExperimentConfig
from llenergymeasure.config.registry import backend_entry, load_object
from llenergymeasure.core.backends.protocol import (
    Batch,
    EngineReport,
    InferenceEngine,
    ModelLoader,
    PassTrace,
)
from llenergymeasure.core.energy import Selection, get_active_energy_backend
from llenergymeasure.core.energy.baseline_cache import BaselineCache, DeviceIdentity
from llenergymeasure.core.energy.parts import compare_halves
from llenergymeasure.core.energy.protocol import EnergyBackend, SamplingRates
from llenergymeasure.core.energy.steps import step_times_ns
from llenergymeasure.core.workload import build_requests, warmup_batches
from llenergymeasure.datasets.loader import load_dataset
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.results import BaselineResult, DatasetInfo, PassComparison, WarmupResult
from llenergymeasure.domain.samples import RawProcessResult, RequestSample, Window
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.orchestration import device_lock
from llenergymeasure.orchestration.baseline import Baseline
from llenergymeasure.orchestration.events import EventLog
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.state.machine import ExperimentState, StateMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llenergymeasure.domain.prompts import Dataset

WARMUP_PASS = -1

SourceChoice = Callable[[EnergyBackendName, DeviceTarget, SamplingRates], Selection]


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """A window with everything recorded in it."""

    window: Window
    started_at: datetime
    passes: tuple[Window, ...]
    samples: tuple[RequestSample, ...]
    energy: EnergyRecording
    comparison: PassComparison | None


@dataclass(frozen=True, slots=True)
class PreparedWork:
    """The prompts as the engine will get them."""

    plan: tuple[Batch, ...]
    truncated: int
    dataset: DatasetInfo


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything one process measured; the figures of a result are derived from it."""

    order: WorkOrder
    raw: RawProcessResult
    started_at: datetime
    report: EngineReport
    target: DeviceTarget
    selection: Selection
    work: PreparedWork
    warmup: WarmupResult
    baseline: BaselineResult
    prefill: MeasuredWindow | None
    comparison: PassComparison | None = None


def load_backend(name: str) -> ModelLoader:
    """Make the loader of a backend by name."""
    implementation = backend_entry(name).implementation
    assert implementation is not None, "pre-flight refuses backends without an implementation"
    loader: ModelLoader = load_object(implementation)()
    return loader


class ExperimentOrchestrator:
    """Takes one experiment through its phases.

    Not exported, but open to custom integrations; it carries no promise of stability.

    Args:
        order: What is to be done.
        machine: Told of every phase.
        events: Told of every finished request.
        select: Chooses the energy source.
        driver_version: Version of the GPUs' driver, which idle power is kept by.
    """

    def __init__(
        self,
        order: WorkOrder,
        machine: StateMachine,
        events: EventLog,
        select: SourceChoice = get_active_energy_backend,
        driver_version: str | None = None,
    ) -> None:
        self._order, self._config = order, order.config
        self._machine, self._events, self._select = machine, events, select
        self._driver_version = driver_version

    def run(self) -> Measurement:
        """Measure.

        Raises:
            LLEMError: Something broke; the state machine says in which phase.
        """
        loader = load_backend(self._config.backend)
        target = loader.target(self._config)
        with device_lock.held(target, self._wait):
            return self._with_devices(loader, target)

    def _wait(self, reason: str) -> None:
        self._events.explain(reason)
        self._machine.enter("wait")

    def _with_devices(self, loader: ModelLoader, target: DeviceTarget) -> Measurement:
        if self._machine.phase == "wait":
            self._machine.enter("start")
        selection = self._select(self._order.energy_backend, target, self._rates())
        with running(selection.source):
            baseline = self._baseline(target, selection)
            if not baseline.skipped:
                self._machine.enter("baseline")
                baseline.measure_device()
            self._machine.enter("load")
            with closing(loader.load(self._config, self._order.cache_dir)) as engine:
                return self._with_engine(engine, target, selection, baseline)

    def _with_engine(
        self,
        engine: InferenceEngine,
        target: DeviceTarget,
        selection: Selection,
        baseline: Baseline,
    ) -> Measurement:
        work = self._prepare(engine)
        if not baseline.skipped:
            self._machine.enter("idle")
            baseline.measure_loaded()
        warmup = self._warm_up(engine, work.plan, selection)
        measured = self._measure(engine, work.plan, selection.source)
        prefill = self._measure_prefill(engine, work.plan, selection)
        self._machine.enter("collect", ExperimentState.DONE)
        report = engine.inspect()
        raw = RawProcessResult(
            process_index=0,
            window=measured.window,
            passes=measured.passes,
            requests=measured.samples,
            memory=report.memory,
            energy=measured.energy,
        )
        return Measurement(
            self._order,
            raw,
            measured.started_at,
            report,
            target,
            selection,
            work,
            warmup,
            baseline.result(),
            prefill,
            measured.comparison,
        )

    def _prepare(self, engine: InferenceEngine) -> PreparedWork:
        self._machine.enter("prepare")
        config = self._config
        dataset: Dataset = load_dataset(
            config.dataset,
            config.n,
            cache_dir=self._order.cache_dir,
            ordinary_ids=engine.tokenizer.ordinary_ids(),
        )
        limit = engine.inspect().context_limit
        workload = build_requests(dataset.prompts, engine.tokenizer, config, context_limit=limit)
        info = DatasetInfo(
            name=dataset.name,
            size=dataset.size,
            used=len(workload.requests),
            sha256=dataset.sha256,
            provenance=dataset.provenance,
        )
        return PreparedWork(engine.plan(workload.requests), workload.truncated, info)

    def _baseline(self, target: DeviceTarget, selection: Selection) -> Baseline:
        directory, driver = self._order.data_dir, self._driver_version
        cache = None
        if directory is not None and driver is not None and target.gpu_uuids:
            identity = DeviceIdentity(target.gpu_uuids, driver, selection.name)
            cache = BaselineCache(Path(directory), identity)
        return Baseline(self._config.baseline, selection, cache)

    def _warm_up(
        self, engine: InferenceEngine, plan: Sequence[Batch], selection: Selection
    ) -> WarmupResult:
        self._machine.enter("warmup")
        asked, measured = self._config.warmup, selection.coverage.kind == "measured"
        floor_s = asked.thermal_floor_seconds if measured else 0.0
        ids, seed = engine.tokenizer.ordinary_ids(), self._config.random_seed
        start_s, done = time.monotonic(), asked.n_warmup
        samples = self._play(engine, warmup_batches(plan, done, ids, seed))
        while time.monotonic() - start_s < floor_s:
            samples += self._play(engine, warmup_batches(plan, 1, ids, seed, first=done))
            done += 1
        return WarmupResult(
            batches=done,
            output_tokens=sum(sample.output_tokens for sample in samples),
            seconds=time.monotonic() - start_s,
            thermal_floor=_thermal_floor(self._config, selection),
        )

    def _play(self, engine: InferenceEngine, batches: Sequence[Batch]) -> list[RequestSample]:
        if not batches:
            return []
        self._events.expect(_requests(batches))
        return list(engine.run(batches, WARMUP_PASS, self._events.progress).samples())

    def _measure(
        self, engine: InferenceEngine, plan: Sequence[Batch], source: EnergyBackend
    ) -> MeasuredWindow:
        self._machine.enter("settle")
        source.open_window()
        self._machine.enter("measure", ExperimentState.MEASURING)
        return self._run_passes(engine, plan, source)

    def _measure_prefill(
        self, engine: InferenceEngine, plan: Sequence[Batch], selection: Selection
    ) -> MeasuredWindow | None:
        moot = selection.coverage.kind == "unmeasurable"
        if self._config.window.phases != "differential" or moot:
            return None
        source = selection.source
        self._machine.enter("prefill")
        shortened = _prefill_only(plan)
        self._play(engine, shortened[:1])
        source.open_window()
        return self._run_passes(engine, shortened, source)

    def _run_passes(
        self, engine: InferenceEngine, plan: Sequence[Batch], source: EnergyBackend
    ) -> MeasuredWindow:
        """Run passes over the prompts until the window is long enough."""
        floor_ns = round(self._config.window.min_duration_seconds * 1e9)
        traces: list[PassTrace] = []
        passes: list[Window] = []
        started_at = datetime.now(UTC).astimezone()
        t0_ns = begun_ns = time.monotonic_ns()
        while not passes or begun_ns - t0_ns < floor_ns:
            self._events.expect(_requests(plan))
            traces.append(engine.run(plan, len(passes), self._events.progress))
            ended_ns = time.monotonic_ns()
            passes.append(Window(begun_ns, ended_ns))
            begun_ns = ended_ns
        window = Window(t0_ns, passes[-1].t1_ns)
        samples = cache(lambda: tuple(sample for trace in traces for sample in trace.samples()))
        energy = source.close_window(window, lambda: step_times_ns(samples()))
        comparison = compare_halves(source, passes)
        return MeasuredWindow(window, started_at, tuple(passes), samples(), energy, comparison)

    def _rates(self) -> SamplingRates:
        return SamplingRates(self._order.counter_poll_ms, self._order.power_poll_ms)


@contextmanager
def running(source: EnergyBackend) -> Iterator[None]:
    """Keep an energy source reading inside the block, and stop it whatever happens."""
    try:
        source.start()
        yield
    finally:
        source.stop()


def _prefill_only(plan: Sequence[Batch]) -> tuple[Batch, ...]:
    return tuple(tuple(replace(request, max_new_tokens=1) for request in batch) for batch in plan)


def _requests(batches: Sequence[Batch]) -> int:
    return sum(len(batch) for batch in batches)


def _thermal_floor(config: ExperimentConfig, selection: Selection) -> str:
    floor_s = config.warmup.thermal_floor_seconds
    if floor_s == 0:
        return "off"
    if selection.coverage.kind != "measured":
        return f"skipped: energy is {selection.coverage.kind}, not measured"
    return f"reached: {floor_s:g} s under load"
