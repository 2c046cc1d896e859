"""One experiment from baseline to the last reading.

wait        only while another measurement has the device
baseline    power of the idle device, before the model is there
load        the model
prepare     prompts become token ids
idle        power with the model resident
calibrate   only GPUs that never were, with their driver: of a single one in place of the floor
warmup      the measured shapes with other prompts, until the thermal floor has passed; the ends of
            the last batches are looked at
settle      only of a source that measures: a quiet edge, it reads on while the device rests
measure     t0, every request, t1
prefill     only for window.phases: differential
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llenergymeasure.config.plugins import load_object
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.allowance import read_throttling, throttling
from llenergymeasure.core.backends.protocol import DataParallelLoader, EngineReport, ModelLoader
from llenergymeasure.core.energy.parts import compare_halves
from llenergymeasure.core.energy.protocol import EnergyBackend, SamplingRates
from llenergymeasure.core.energy.selection import Selection, get_active_energy_backend
from llenergymeasure.core.energy.stored import BaselineCache, DeviceIdentity
from llenergymeasure.core.environment import cpu_load, read_cpu_times
from llenergymeasure.core.metrics import load_result
from llenergymeasure.core.models import identity
from llenergymeasure.domain.energy import EnergyRecording
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.domain.results import (
    BaselineResult,
    CPULoad,
    CPUThrottling,
    LoadResult,
    PassComparison,
    WarmupResult,
)
from llenergymeasure.domain.samples import RawProcessResult, Window, WindowReadings
from llenergymeasure.orchestration import device_lock
from llenergymeasure.orchestration.baseline import Baseline
from llenergymeasure.orchestration.events import EventLog
from llenergymeasure.orchestration.executor import (
    Executor,
    LocalExecutor,
    PassKind,
    PreparedWork,
)
from llenergymeasure.orchestration.fleet import FleetExecutor
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.orchestration.warmup import warm_up
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.state.machine import ExperimentState, StateMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger(__name__)
SourceChoice = Callable[[str, DeviceTarget, SamplingRates], Selection]


@dataclass(frozen=True, slots=True)
class MeasuredWindow:
    """A window with everything recorded in it.

    Attributes:
        window: From its first request to the end of its last.
        started_at: Wall-clock time of t0.
        passes: Passes over the prompts.
        energy: What the energy source recorded.
        comparison: How its halves compare.
        cpu_load: Who kept the CPUs busy, for work on the CPU.
        cpu_throttling: What a quota on CPU time held back, where there is one.
    """

    window: Window
    started_at: datetime
    passes: tuple[Window, ...]
    energy: EnergyRecording
    comparison: PassComparison | None
    cpu_load: CPULoad | None = None
    cpu_throttling: CPUThrottling | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything the coordinating process measured; a result's figures are derived from it.

    Attributes:
        order: What was asked for.
        raw: The share of process 0, with the energy of all devices.
        measured: The measured window.
        report: What the engine says about itself.
        target: The devices that did the work.
        selection: The energy source.
        work: The prompts.
        warmup: What was done before the window.
        baseline: Idle power.
        prefill: The prefill-only window, where one was asked for.
        load: Loading the model, of a cold start.
        others: The shares of the other processes, where there are several.
        windows: Everything that was read, window by window.
        locks_lost: What became of the locks on its devices that were taken away meanwhile.
    """

    order: WorkOrder
    raw: RawProcessResult
    measured: MeasuredWindow
    report: EngineReport
    target: DeviceTarget
    selection: Selection
    work: PreparedWork
    warmup: WarmupResult
    baseline: BaselineResult
    prefill: MeasuredWindow | None
    load: LoadResult | None = None
    others: tuple[RawProcessResult, ...] = ()
    windows: tuple[WindowReadings, ...] = ()
    locks_lost: tuple[str, ...] = ()

    @property
    def processes(self) -> tuple[RawProcessResult, ...]:
        """The share of every process."""
        return (self.raw, *self.others)


def load_backend(name: str) -> ModelLoader:
    """Make the loader of a backend by name."""
    loader: ModelLoader = load_object(backend_entry(name).implementation)()
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
        directory: Where several processes leave their samples; a single one needs none.
    """

    def __init__(  # noqa: PLR0913 - what an experiment needs from outside, each of its own kind
        self,
        order: WorkOrder,
        machine: StateMachine,
        events: EventLog,
        select: SourceChoice = get_active_energy_backend,
        driver_version: str | None = None,
        *,
        directory: ExperimentDirectory | None = None,
    ) -> None:
        self._order, self._config = order, order.config
        self._machine, self._events, self._select = machine, events, select
        self._driver_version, self._directory = driver_version, directory
        self._windows: list[WindowReadings] = []

    def run(self) -> Measurement:
        """Measure.

        Raises:
            LLEMError: Something broke; the state machine says in which phase.
        """
        loader = load_backend(self._config.backend)
        target = loader.target(self._config)
        with device_lock.held(target, self._wait, limit_s=self._order.wait_s) as taken:
            if self._machine.phase == "wait":
                self._machine.enter("start")
            rates = SamplingRates(self._order.counter_poll_ms, self._order.power_poll_ms)
            selection = self._select(self._order.energy_backend, target, rates)
            with running(selection.source):
                baseline = Baseline(self._config.baseline, selection)
                if not baseline.skipped:
                    self._machine.enter("baseline")
                    who = DeviceIdentity.of(target, self._driver_version, selection.name)
                    folder = self._order.data_dir
                    kept = BaselineCache(Path(folder), who) if folder and who else None
                    baseline.measure_device(kept)
                self._machine.enter("load")
                with closing(self._executor(loader)) as executor:
                    measured = self._with_executor(executor, target, selection, baseline)
                    lost = tuple(how for lock in taken if (how := lock.lost()) is not None)
                    return replace(measured, locks_lost=lost)

    def _wait(self, reason: str) -> None:
        self._events.explain(reason)
        self._machine.enter("wait")

    def _executor(self, loader: ModelLoader) -> Executor:
        ranks = loader.ranks(self._config) if isinstance(loader, DataParallelLoader) else ()
        if len(ranks) < 2:
            return LocalExecutor(loader, self._order, self._events)
        assert self._directory is not None, "several processes need a directory"
        return FleetExecutor(ranks, self._order, self._directory, self._events)

    def _with_executor(
        self, executor: Executor, target: DeviceTarget, selection: Selection, baseline: Baseline
    ) -> Measurement:
        load = self._load(executor, selection.source)
        self._machine.enter("prepare")
        work = executor.prepare()
        if self._order.inputs:
            identity.refuse_others(self._config, self._order.inputs, work.inputs)
        if not baseline.skipped:
            self._machine.enter("idle")
            baseline.measure_loaded()
        warmup = self._warm_up(executor, selection, target)
        measured = self._measure(executor, selection, target)
        prefill = self._measure_prefill(executor, selection)
        self._machine.enter("collect", ExperimentState.DONE)
        collected = executor.collect()
        first, *others = collected.processes
        windows = (*baseline.windows, *self._windows)
        return Measurement(
            order=self._order,
            raw=replace(first, energy=measured.energy),
            measured=measured,
            report=collected.report,
            target=target,
            selection=selection,
            work=work,
            warmup=warmup,
            baseline=baseline.result(),
            prefill=prefill,
            load=load,
            others=tuple(others),
            windows=tuple(sorted(windows, key=lambda one: one.window.t0_ns)),
        )

    def _load(self, executor: Executor, source: EnergyBackend) -> LoadResult | None:
        executor.start()
        if not self._order.cold_start:
            executor.load()
            return None
        source.open_window()
        t0_ns = time.monotonic_ns()
        executor.load()
        window = Window(t0_ns, time.monotonic_ns())
        recording = source.close_window(window)
        self._windows.append(WindowReadings("load", window, recording.readings))
        return load_result(recording, window)

    def _warm_up(
        self, executor: Executor, selection: Selection, target: DeviceTarget
    ) -> WarmupResult:
        if self._order.cold_start:
            return WarmupResult(
                batches=0, output_tokens=0, seconds=0.0, thermal_floor="off: cold start"
            )
        instead = self._calibrate(selection, target)
        self._machine.enter("warmup")
        return warm_up(
            executor,
            selection,
            self._config.warmup,
            self._windows.append,
            watch=self._order.watch_ends,
            instead=instead,
        )

    def _calibrate(self, selection: Selection, target: DeviceTarget) -> str | None:
        """Calibrate GPUs that never were; say so if that took the place of the thermal floor."""
        order, driver = self._order, self._driver_version
        floor_s = self._config.warmup.thermal_floor_seconds
        if not order.calibrate or not floor_s or order.data_dir is None or driver is None:
            return None
        from llenergymeasure.core.energy.first_sight import calibrate_unknown  # brings NumPy

        def tell(line: str) -> None:
            self._events.explain(line)
            self._machine.enter("calibrate")

        seen = calibrate_unknown(selection.source, driver, Path(order.data_dir), tell)
        for note in seen.notes:
            LOG.warning("%s", note)
        return seen.instead_of_floor(len(target.gpu_uuids))

    def _measure(
        self, executor: Executor, selection: Selection, target: DeviceTarget
    ) -> MeasuredWindow:
        source = selection.source
        if selection.coverage.kind == "measured":  # a model needs no quiet edge
            self._machine.enter("settle")
        # Around the guard time, so that looking for processes disturbs no edge of the window.
        before, held, start_s = read_cpu_times(), read_throttling(), time.monotonic()
        source.open_window()
        self._machine.enter("measure", ExperimentState.MEASURING)
        measured = self._run_passes(executor, "measure", source)
        load = cpu_load(before, read_cpu_times(), time.monotonic() - start_s)
        return replace(
            measured,
            cpu_load=load if target.kind == "cpu" else None,
            cpu_throttling=throttling(held, read_throttling()),
        )

    def _measure_prefill(self, executor: Executor, selection: Selection) -> MeasuredWindow | None:
        moot = selection.coverage.kind == "unmeasurable"
        if self._config.window.phases != "differential" or moot:
            return None
        self._machine.enter("prefill")
        executor.rehearse_prefill()
        selection.source.open_window()
        return self._run_passes(executor, "prefill", selection.source)

    def _run_passes(
        self, executor: Executor, kind: PassKind, source: EnergyBackend
    ) -> MeasuredWindow:
        """Run passes over the prompts until the window is long enough."""
        floor_ns = round(self._config.window.min_duration_seconds * 1e9)
        passes: list[Window] = []
        started_at = datetime.now(UTC).astimezone()
        t0_ns = begun_ns = time.monotonic_ns()
        while not passes or begun_ns - t0_ns < floor_ns:
            passes.append(executor.run_pass(kind, begun_ns))
            begun_ns = passes[-1].t1_ns
        window = Window(t0_ns, begun_ns)
        energy = source.close_window(window, lambda: executor.step_times_ns(kind))
        self._windows.append(WindowReadings(kind, window, energy.readings))
        comparison = compare_halves(source, passes) if len(passes) > 1 else None
        return MeasuredWindow(window, started_at, tuple(passes), energy, comparison)


@contextmanager
def running(source: EnergyBackend) -> Iterator[None]:
    """Keep an energy source reading inside the block, and stop it whatever happens."""
    try:
        source.start()
        yield
    finally:
        source.stop()
