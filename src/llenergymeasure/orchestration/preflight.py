"""Everything that can be known to be missing before a model is loaded, reported at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import BackendEntry, backend_entry, load_object, missing
from llenergymeasure.core.backends.protocol import ModelLoader
from llenergymeasure.core.energy import energy_problems
from llenergymeasure.core.models.sources import model_problems, resolve
from llenergymeasure.datasets.loader import dataset_problems
from llenergymeasure.exceptions import PreFlightError, Problem
from llenergymeasure.orchestration.order import WorkOrder


class _Part(NamedTuple):
    """One thing to look at; experiments of the same key share it."""

    key: tuple[object, ...]
    look: Callable[[], Iterable[Problem]]


def check(order: WorkOrder, *, offline: bool = False) -> None:
    """Check hardware and backend, energy source, model and dataset, in this order.

    Args:
        order: What is to be done, in this process.
        offline: Skip what needs the Hub.

    Raises:
        PreFlightError: It cannot be done here; holds every problem found.
    """
    if found := problems([order], offline=offline):
        raise PreFlightError(found)


def problems(orders: Iterable[WorkOrder], *, offline: bool = False) -> list[Problem]:
    """List the distinct problems of experiments that are to run in this interpreter.

    What several experiments have in common is looked at once.

    Args:
        orders: What is to be done; the runner each names is taken to have been found.
        offline: Skip what needs the Hub.
    """
    absent = functools.cache(lambda name: missing(backend_entry(name), "backend"))
    looked: set[tuple[object, ...]] = set()
    found: dict[Problem, None] = {}
    for order in orders:
        for part in _parts(order, absent(order.config.backend), offline=offline):
            if part.key not in looked:
                looked.add(part.key)
                found |= dict.fromkeys(part.look())
    return list(found)


def _parts(order: WorkOrder, absent: Problem | None, *, offline: bool) -> Iterator[_Part]:
    config = order.config
    yield from _engine_parts(order, absent)
    if config.backend != "scripted":
        weights = (config.model, config.revision, config.decoder.draft_model)
        yield _Part(("model", *weights), lambda: _model_problems(config, offline=offline))
    prompts = ("dataset", str(config.dataset), config.n, order.model_cache_dir)
    yield _Part(
        prompts,
        lambda: dataset_problems(config.dataset, config.n, order.cache_dir, fetch=not offline),
    )


def _engine_parts(order: WorkOrder, absent: Problem | None) -> Iterator[_Part]:
    entry = backend_entry(order.config.backend)
    if absent is not None:
        yield _Part(("package", entry.name), lambda: [absent])
        return
    asked = order.config.model_dump_json(exclude={"random_seed"})
    yield _Part(("engine", asked, order.energy_backend), lambda: _backend_problems(order, entry))


def _backend_problems(order: WorkOrder, entry: BackendEntry) -> Iterator[Problem]:
    try:
        loader: ModelLoader = load_object(entry.implementation)()
        problems = loader.problems(order.config)
    except ModuleNotFoundError as error:  # an engine that is installed in part
        what = f"'{entry.name}' needs the package {error.name}, which is not installed"
        yield Problem(what, "backend", entry.install or f"pip install {error.name}")
        return
    yield from problems
    if not problems:
        yield from energy_problems(order.energy_backend, loader.target(order.config))


def _model_problems(config: ExperimentConfig, *, offline: bool) -> Iterator[Problem]:
    if not (offline and resolve(config.model).kind == "hub"):
        yield from model_problems(config.model, config.revision)
    draft = config.decoder.draft_model
    if draft is not None and not (offline and resolve(draft).kind == "hub"):
        for problem in model_problems(draft):
            yield replace(problem, where="decoder.draft_model")
