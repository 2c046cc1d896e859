"""Everything that can be known to be missing before a model is loaded, reported at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import BackendEntry, backend_entry, load_object, missing
from llenergymeasure.core.backends.protocol import ModelLoader
from llenergymeasure.core.energy import energy_problems
from llenergymeasure.core.models.sources import model_problems, resolve
from llenergymeasure.datasets.loader import dataset_problems
from llenergymeasure.exceptions import PreFlightError, Problem
from llenergymeasure.orchestration.order import WorkOrder


def check(order: WorkOrder, *, offline: bool = False) -> None:
    """Check hardware and backend, energy source, model and dataset, in this order.

    Args:
        order: What is to be done.
        offline: Skip what needs the Hub.

    Raises:
        PreFlightError: It cannot be done here; holds every problem found.
    """
    problems = list(_problems(order, offline=offline))
    if problems:
        raise PreFlightError(problems)


def _problems(order: WorkOrder, *, offline: bool) -> Iterator[Problem]:
    config = order.config
    yield from _runner_problems(order)
    entry = backend_entry(config.backend)
    if absent := missing(entry, "backend"):
        yield absent
    else:
        yield from _backend_problems(order, entry)
    if config.backend != "scripted":
        yield from _model_problems(config, offline=offline)
    yield from dataset_problems(config.dataset, config.n, order.cache_dir, fetch=not offline)


def _backend_problems(order: WorkOrder, entry: BackendEntry) -> Iterator[Problem]:
    assert entry.implementation is not None
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


def _runner_problems(order: WorkOrder) -> Iterator[Problem]:
    if order.runner != "local":
        yield Problem(
            f"the runner '{order.runner}' is not part of this version of llenergymeasure",
            f"runners.{order.config.backend}",
            "use the runner local, and install the backend beside llenergymeasure",
        )
