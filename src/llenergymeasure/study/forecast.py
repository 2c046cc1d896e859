"""What a plan will need on this machine before anything is loaded: memory, and time."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.config.energy_sources import AUTO, energy_sources
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.config.settings_words import labels
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.allowance import Allowance, allowance
from llenergymeasure.core.energy import Selection
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.core.memory_estimate import MemoryEstimate, estimate_memory
from llenergymeasure.core.models.architecture import ModelArchitecture
from llenergymeasure.core.models.sources import architecture_of, read_config, resolve
from llenergymeasure.core.visible_gpus import visible_uuids
from llenergymeasure.domain.environment import GPUInfo
from llenergymeasure.exceptions import ConfigError, Problem
from llenergymeasure.orchestration import preflight
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.study.estimate import (
    Duration,
    Rates,
    duration,
    first_look_s,
    loading_limit_s,
    rates_of,
    timeout_s,
)
from llenergymeasure.study.manifest import StudyPlan
from llenergymeasure.study.runners.pool import with_runner_lines


class ConfigurationForecast(NamedTuple):
    """What one configuration of a plan will need.

    Attributes:
        label: What sets it apart, in a few words.
        config: The configuration.
        memory: What it needs, beside what its devices have, MiB.
        duration: How long it takes once the idle device is known; ``None`` where unknown.
        measured: Whether its energy is likely to be measured.
        timeout_s: After how long it counts as hanging, s.
    """

    label: str
    config: ExperimentConfig
    memory: dict[str, Any]
    duration: Duration | None
    measured: bool
    timeout_s: float


class Forecast(NamedTuple):
    """What a plan will need.

    Attributes:
        plan: The plan.
        orders: What workers would be asked to do, by configuration.
        rows: By configuration.
        source: The energy source of a single experiment; ``None`` where that cannot be told here.
        results_dir: Where results would go.
        problems: What stops it here.
    """

    plan: StudyPlan
    orders: tuple[WorkOrder, ...]
    rows: tuple[ConfigurationForecast, ...]
    source: Selection | None
    results_dir: str
    problems: tuple[Problem, ...]

    @property
    def gaps_s(self) -> float:
        """How long its pauses take, s."""
        return sum(self.plan.execution.gaps_s(self.plan.slots))

    @property
    def experiments_s(self) -> float | None:
        """How long its experiments take, s; ``None`` where one is not known."""
        rows = [self.rows[slot.configuration] for slot in self.plan.slots]
        known_s = [row.duration.total_s for row in rows if row.duration is not None]
        # The first experiment comes to know the idle device.
        first_s = first_look_s(rows[0].config, measured=rows[0].measured)
        return sum(known_s) + first_s if len(known_s) == len(rows) else None

    @property
    def total_s(self) -> float | None:
        """How long all of it takes, s."""
        experiments_s = self.experiments_s
        return None if experiments_s is None else experiments_s + self.gaps_s


class Devices(NamedTuple):
    """What there is to compute with.

    Attributes:
        gpus: What NVML sees.
        allowed: What work on the CPU may have.
    """

    gpus: Sequence[GPUInfo]
    allowed: Allowance


def forecast(plan: StudyPlan, settings: EffectiveSettings, *, single: bool = False) -> Forecast:
    """Tell what a plan will need; nothing is loaded and no network is asked.

    What another interpreter or a container lacks is only seen when it runs there.

    Args:
        plan: The plan.
        settings: How it would be run on this machine.
        single: Whether it is one experiment, whose energy source is looked for.
    """
    orders = tuple(plan.order(number, settings) for number in range(len(plan.experiments)))
    limits = TimeLimits(settings, plan.execution.timeout_s)
    source = preflight.expected_source(orders[0]) if single else None
    devices, names = Devices(survey_gpus().gpus, allowance()), labels(plan.experiments)
    rows = tuple(
        _row(name, order, limits, devices, source)
        for name, order in zip(names, orders, strict=True)
    )
    places = {(order.runner, order.config.backend) for order in orders}
    problems = with_runner_lines(preflight.problems_for_plan(orders), places)
    results_dir = str(settings.config.results_path())
    return Forecast(plan, orders, rows, source, results_dir, tuple(problems))


def _row(
    label: str,
    order: WorkOrder,
    limits: TimeLimits,
    devices: Devices,
    source: Selection | None,
) -> ConfigurationForecast:
    config = order.config
    shape, gpu = limits.shape(config), limits.gpu_name(config)
    if source is not None:
        measured = source.coverage.kind == "measured"
    elif order.energy_backend == AUTO:  # a guess; only the run itself can tell
        measured = gpu is not None
    else:
        measured = energy_sources()[order.energy_backend].kind == "measured"
    expected = duration(
        config, shape, limits.rates(config), measured=measured, cold_start=order.cold_start
    )
    if expected is not None:
        known_s = expected.clock_s - first_look_s(config, measured=measured)
        expected = expected._replace(clock_s=known_s)
    memory = memory_plan(config, shape, devices.gpus if gpu else (), allowed=devices.allowed)
    return ConfigurationForecast(label, config, memory, expected, measured, limits.of(config))


def memory_plan(
    config: ExperimentConfig,
    architecture: ModelArchitecture | None,
    gpus: Sequence[GPUInfo],
    environ: Mapping[str, str] = os.environ,
    allowed: Allowance | None = None,
) -> dict[str, Any]:
    """Hold the memory an experiment needs against what its devices have, MiB.

    ``doubt`` says why the shape of the model, and with it the estimate, may be wrong; or is null.

    Args:
        config: The experiment.
        architecture: Shape of its model; ``None`` where it is not known.
        gpus: What NVML sees; none for work on the CPU.
        environ: Variables that say which of them may be used.
        allowed: What work on the CPU may have; looked for by default.
    """
    if architecture is None:
        return {"unknown": _why_unknown(config)}
    estimate = estimate_memory(config, architecture, on_cpu=not gpus)
    copies = getattr(config.section, "num_processes", None) or 1
    return {
        "copies": copies,
        "weights_mb": round(estimate.weights_mb, 1),
        "kv_cache_mb": round(estimate.kv_cache_mb, 1),
        "activations_mb": round(estimate.activations_mb, 1),
        "engine_mb": round(estimate.engine_mb, 1),
        "total_mb": round(copies * estimate.total_mb, 1),
        "rows": estimate.rows,
        "context_tokens": estimate.context_tokens,
        "doubt": architecture.doubt,
        **_room(config, estimate, copies, _visible(gpus, environ), allowed or allowance()),
    }


def _why_unknown(config: ExperimentConfig) -> str:
    if not backend_entry(config.backend).runs_a_model:
        return f"the {config.backend} backend loads no model"
    try:
        if (found := read_config(resolve(config.model, config.revision))) is not None:
            ModelArchitecture.from_config(found)
    except ConfigError as error:
        return error.message
    return "the model's config.json is not on this machine yet"


def _visible(gpus: Sequence[GPUInfo], environ: Mapping[str, str]) -> list[GPUInfo]:
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    try:
        return [by_uuid[uuid] for uuid in visible_uuids(list(by_uuid), environ)]
    except LookupError:  # which ones cannot be told; all is a fair guess
        return list(gpus)


def _room(
    config: ExperimentConfig,
    estimate: MemoryEstimate,
    copies: int,
    gpus: Sequence[GPUInfo],
    allowed: Allowance,
) -> dict[str, Any]:
    """Name the devices, give what all of them have, and tell whether that is enough, if known."""

    def room(device: str, capacity_mb: float | None, fits: bool | None) -> dict[str, Any]:
        return {"device": device, "capacity_mb": capacity_mb, "fits": fits}

    if not gpus:
        needed_mb = copies * estimate.total_mb
        return room(allowed.memory_owner, allowed.memory_mb, needed_mb <= allowed.memory_mb)
    used = _used(config, copies * estimate.shards, gpus)
    sizes_mb = [gpu.memory_mb for gpu in used if gpu.memory_mb is not None]
    if not sizes_mb or len(sizes_mb) < len(used):
        return room(_named(used) or "no such GPU", None, None)
    spread = getattr(config.section, "device_map", None) is not None
    fits = estimate.total_mb <= sum(sizes_mb) if spread else estimate.per_device_mb <= min(sizes_mb)
    return room(_named(used), sum(sizes_mb), fits)


def _used(config: ExperimentConfig, count: int, gpus: Sequence[GPUInfo]) -> Sequence[GPUInfo]:
    """Pick the GPUs that will do the work: one for each copy and shard, or all for a map."""
    if getattr(config.section, "device_map", None) is not None:
        return gpus
    _, _, number = str(getattr(config.section, "device", None) or "").partition(":")
    first = int(number) if number.isdecimal() else 0
    return gpus[first : first + count]


def _named(gpus: Sequence[GPUInfo]) -> str:
    names = Counter(gpu.name for gpu in gpus)
    return ", ".join(f"{count} x {name}" if count > 1 else name for name, count in names.items())


class Machine(NamedTuple):
    """What of this machine decides how fast an experiment is.

    Attributes:
        gpu_name: The first GPU as NVML names it; ``None`` where there is none.
        torch_uses_gpus: Whether the torch of this interpreter can compute on it.
    """

    gpu_name: str | None
    torch_uses_gpus: bool = True


def this_machine() -> Machine:
    """Look; no engine is imported."""
    gpus, found = survey_gpus().gpus, find_spec("torch")
    # The library that only a build for CUDA has; a torch that is not here may be one.
    folders = (found.submodule_search_locations if found else None) or ()
    cuda = not folders or any(any(Path(one, "lib").glob("*torch_cuda*")) for one in folders)
    return Machine(gpus[0].name if gpus else None, cuda)


class TimeLimits:
    """Tells the time limit of an experiment, and what it is derived from.

    Args:
        settings: How it is run on this machine.
        given_s: ``execution.timeout_s``, which holds for all; ``None`` estimates each.
        machine: Looks at this machine, once and only where it matters.
    """

    def __init__(
        self,
        settings: EffectiveSettings,
        given_s: float | None,
        machine: Callable[[], Machine] = this_machine,
    ) -> None:
        self._settings, self._given_s = settings, given_s
        self._machine = cache(machine)
        self._shape = cache(lambda *model: architecture_of(resolve(*model)))

    def of(self, config: ExperimentConfig) -> float:
        """Give the limit in seconds."""
        if self._given_s is not None:
            return self._given_s
        shape = self.shape(config)
        known = shape if shape is not None and shape.doubt is None else None
        return timeout_s(config, known, self.rates(config))

    def of_loading(self, config: ExperimentConfig) -> float:
        """Give the limit of loading the model and preparing its prompts, s.

        Infinite where ``execution.timeout_s`` says what there is for all of the experiment.
        """
        return math.inf if self._given_s else loading_limit_s(config, self.shape(config))

    def rates(self, config: ExperimentConfig) -> Rates:
        """Give the rates of the device that an experiment runs on."""
        return rates_of(config, self.gpu_name(config))

    def shape(self, config: ExperimentConfig) -> ModelArchitecture | None:
        """Give the shape of its model; ``None`` where that is not on this machine yet."""
        return self._shape(config.model, config.revision)

    def gpu_name(self, config: ExperimentConfig) -> str | None:
        """Name the GPU that it runs on; ``None`` for a CPU.

        Another interpreter or a container is taken to use the GPU where there is one.
        """
        facts = backend_entry(config.backend)
        device = getattr(config.section, "device", None)
        if not facts.runs_a_model or device == "cpu":
            return None
        here = self._settings.config.runner(config.backend) == "local"
        if facts.needs_torch_for_gpus and device is None and here:
            return self._machine().gpu_name if self._machine().torch_uses_gpus else None
        return self._machine().gpu_name
