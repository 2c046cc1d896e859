"""Everything that can be known to be missing before a model is loaded, reported at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.plugins import load_object, missing
from llenergymeasure.config.registry import ENERGY_SOURCES, BackendEntry, backend_entry
from llenergymeasure.core.backends.protocol import ModelLoader
from llenergymeasure.core.energy import (
    Selection,
    energy_problems,
    get_active_energy_backend,
)
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.models.sources import (
    adapter_problems,
    model_problems,
    resolve,
    template_problems,
    weight_problems,
)
from llenergymeasure.datasets.loader import dataset_problems
from llenergymeasure.domain.target import DeviceTarget
from llenergymeasure.exceptions import PreFlightError, Problem, ProblemKind, in_order
from llenergymeasure.orchestration.order import WorkOrder

LOCAL = "local"


class _Part(NamedTuple):
    """One thing to look at; experiments of the same key share it."""

    key: tuple[object, ...]
    look: Callable[[], Iterable[Problem]]


def check(order: WorkOrder, *, offline: bool = False) -> None:
    """Check hardware, backend, energy source, model and dataset; problems come in this order.

    Args:
        order: What is to be done, in this process.
        offline: Skip what needs the Hub.

    Raises:
        PreFlightError: It cannot be done here; holds every problem found.
    """
    if found := problems([order], offline=offline):
        raise PreFlightError(found)


def problems(orders: Iterable[WorkOrder], *, offline: bool = False) -> list[Problem]:
    """List the distinct problems of experiments that are to run in this interpreter, by kind.

    What several experiments have in common is looked at once.

    Args:
        orders: What is to be done; the runner each names is taken to have been found.
        offline: Skip what needs the Hub.
    """
    absent = functools.cache(lambda name: missing(backend_entry(name), "backend"))
    # Models first: what they say of themselves has to be here when backends look.
    return _seen(
        part
        for order in orders
        for part in (
            *_input_parts(order, offline=offline),
            *_engine_parts(order, absent(order.config.backend)),
        )
    )


def input_problems(orders: Iterable[WorkOrder], *, offline: bool = False) -> list[Problem]:
    """List the problems of models and datasets alone, which are the same in every place.

    For experiments whose own place cannot be looked into.
    """
    return _seen(part for order in orders for part in _input_parts(order, offline=offline))


def problems_for_plan(orders: Sequence[WorkOrder]) -> list[Problem]:
    """List what can be told without the network and without another place; nothing is loaded.

    What another interpreter or a container lacks is only seen when it runs there.
    """
    here = [order for order in orders if order.runner == LOCAL]
    elsewhere = [order for order in orders if order.runner != LOCAL]
    return in_order([*problems(here, offline=True), *input_problems(elsewhere, offline=True)])


def expected_source(order: WorkOrder) -> Selection | None:
    """Choose the energy source as the experiment will; ``None`` where that cannot be told here."""
    entry = backend_entry(order.config.backend)
    if order.runner != LOCAL or missing(entry, "backend") is not None:
        return None
    rates = SamplingRates(order.counter_poll_ms, order.power_poll_ms)
    try:
        _, target = _looked_at(order, entry)
        if target is None:
            return None
        return get_active_energy_backend(order.energy_backend, target, rates)
    except (ModuleNotFoundError, PreFlightError):  # a problem, reported as one
        return None


def _seen(parts: Iterable[_Part]) -> list[Problem]:
    looked: set[tuple[object, ...]] = set()
    found: list[Problem] = []
    for part in parts:
        if part.key not in looked:
            looked.add(part.key)
            found += part.look()
    return in_order(found)


def _input_parts(order: WorkOrder, *, offline: bool) -> Iterator[_Part]:
    config = order.config
    if backend_entry(config.backend).runs_a_model:
        adapter = config.lora.adapter_id if config.lora else None
        weights = (config.model, config.revision, config.decoder.draft_model, adapter)
        yield _Part(
            ("model", *weights),
            lambda: _of_kind("model", _model_problems(config, offline=offline)),
        )
        if not _brings_weights(config):
            yield _Part(
                ("weights", config.model),
                lambda: _of_kind("model", weight_problems(config.model)),
            )
        if config.apply_chat_template:
            yield _Part(
                ("template", config.model),
                lambda: _of_kind("model", template_problems(config.model)),
            )
    prompts = ("dataset", str(config.dataset), config.n, order.model_cache_dir)
    yield _Part(
        prompts,
        lambda: _of_kind(
            "dataset",
            dataset_problems(config.dataset, config.n, order.cache_dir, fetch=not offline),
        ),
    )


def _engine_parts(order: WorkOrder, absent: Problem | None) -> Iterator[_Part]:
    entry = backend_entry(order.config.backend)
    if absent is not None:
        yield _Part(("package", entry.name), lambda: [absent])
        yield _Part(("source", order.energy_backend), lambda: _source_problems(order))
        return
    asked = order.config.model_dump_json(exclude={"random_seed"})
    yield _Part(("engine", asked, order.energy_backend), lambda: _backend_problems(order, entry))


def _backend_problems(order: WorkOrder, entry: BackendEntry) -> Iterator[Problem]:
    try:
        problems, target = _looked_at(order, entry)
    except ModuleNotFoundError as error:  # an engine that is installed in part
        what = f"'{entry.name}' needs the package {error.name}, which is not installed"
        yield Problem(what, "backend", entry.install or f"pip install {error.name}")
        yield from _source_problems(order)
        return
    yield from problems
    if target is None:
        yield from _source_problems(order)
        return
    yield from _of_kind("energy", energy_problems(order.energy_backend, target))


def _looked_at(order: WorkOrder, entry: BackendEntry) -> tuple[list[Problem], DeviceTarget | None]:
    """Ask a backend for problems and for the devices, which are unknown where it has not them."""
    loader: ModelLoader = load_object(entry.implementation)()
    problems = loader.problems(order.config)
    unfit = any(problem.kind == "hardware" for problem in problems)
    return problems, None if unfit else loader.target(order.config)


def _source_problems(order: WorkOrder) -> Iterator[Problem]:
    """Look for the package of an energy source, where it cannot be told what it is to read."""
    source = ENERGY_SOURCES.get(order.energy_backend)
    absent = missing(source, "energy_backend") if source is not None else None
    yield from _of_kind("energy", [absent] if absent is not None else [])


def _of_kind(kind: ProblemKind, problems: Iterable[Problem]) -> Iterator[Problem]:
    for problem in problems:
        yield replace(problem, kind=kind)


def _brings_weights(config: ExperimentConfig) -> bool:
    """Whether weights may come from elsewhere than the model's directory."""
    built = getattr(config.section, "engine_path", None) is not None
    return built or config.passthrough_kwargs is not None  # load_format, gguf_file, subfolder


def _model_problems(config: ExperimentConfig, *, offline: bool) -> Iterator[Problem]:
    if not (offline and resolve(config.model).kind == "hub"):
        yield from model_problems(config.model, config.revision)
    draft = config.decoder.draft_model
    if draft is not None and not (offline and resolve(draft).kind == "hub"):
        for problem in model_problems(draft):
            yield replace(problem, where="decoder.draft_model")
    if config.lora is not None and config.lora.adapter_id is not None and not offline:
        yield from adapter_problems(config.lora.adapter_id)
