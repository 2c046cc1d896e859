"""Everything that can be known to be missing before a model is loaded, reported at once.

``python -m llenergymeasure.orchestration.preflight ORDERS PROBLEMS`` looks in the place where
experiments will run: it reads work orders as JSON lines from a file, and writes their problems to
another, as a JSON list.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from llenergymeasure.config.energy_sources import FIELD, energy_sources
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.names import without_tilde
from llenergymeasure.config.plugins import load_object, missing
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.backends.protocol import ModelLoader
from llenergymeasure.core.energy.protocol import SamplingRates
from llenergymeasure.core.energy.selection import (
    Selection,
    energy_problems,
    get_active_energy_backend,
)
from llenergymeasure.core.models import tokenizers
from llenergymeasure.core.models.sources import (
    adapter_problems,
    model_problems,
    resolve,
    template_problems,
    unreadable,
    vocabulary_problems,
    weight_problems,
)
from llenergymeasure.datasets.loader import dataset_problems, look
from llenergymeasure.domain.environment import DeviceTarget
from llenergymeasure.exceptions import PreFlightError, Problem, ProblemKind, in_order
from llenergymeasure.orchestration import device_lock
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.files import write_json_atomically

LOCAL = "local"
MODULE = "llenergymeasure.orchestration.preflight"


class _Part(NamedTuple):
    """One thing to look at; experiments of the same key share it.

    Attributes:
        key: What is looked at.
        look: Gives its problems.
        kind: Of these; ``None`` where each has its own.
    """

    key: tuple[object, ...]
    look: Callable[[], Iterable[Problem]]
    kind: ProblemKind | None = None


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

    def parts(order: WorkOrder) -> Iterator[_Part]:
        # Models first: what they say of themselves has to be here when backends look.
        yield from _input_parts(order, offline=offline)
        gone = absent(order.config.backend)
        asked = order.config.model_dump_json(exclude={"random_seed"})
        key = ("engine", asked) if gone is None else ("package", order.config.backend)
        yield _Part((*key, order.energy_backend), lambda: _engine_problems(order, gone))

    return _seen(part for order in orders for part in parts(order))


def input_problems(orders: Iterable[WorkOrder], *, offline: bool = False) -> list[Problem]:
    """List the problems of locks, models and datasets alone, which are the same in every place.

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
    if order.runner != LOCAL or missing(backend_entry(order.config.backend), "backend") is not None:
        return None
    rates = SamplingRates(order.counter_poll_ms, order.power_poll_ms)
    try:
        _, target = _looked_at(order)
        if target is None:
            return None
        return get_active_energy_backend(order.energy_backend, target, rates)
    except (ModuleNotFoundError, PreFlightError):  # a problem, reported as one
        return None


def _seen(parts: Iterable[_Part]) -> list[Problem]:
    """Look at every part once, by its key, and give what was found, of its kind."""
    looked: set[tuple[object, ...]] = set()
    found: list[Problem] = []
    for part in parts:
        if part.key not in looked:
            looked.add(part.key)
            found += (replace(one, kind=part.kind or one.kind) for one in part.look())
    return in_order(found)


def _input_parts(order: WorkOrder, *, offline: bool) -> Iterator[_Part]:
    config = order.config
    yield _Part(("locks",), _lock_problems, "hardware")
    if backend_entry(config.backend).runs_a_model:
        adapter = config.lora.adapter_id if config.lora else None
        weights = (config.model, config.revision, config.decoder.draft_model, adapter)
        yield _Part(("model", *weights), lambda: _model_problems(config, offline=offline), "model")
        if config.passthrough_kwargs is None:  # load_format, gguf_file, subfolder
            yield _Part(("weights", config.model), lambda: weight_problems(config.model), "model")
        yield _Part(
            ("vocabulary", config.model, config.revision),
            lambda: vocabulary_problems(config.model, config.revision),
            "model",
        )
        if config.apply_chat_template or config.system_prompt or config.has_prompt_file:
            names = {"model", "revision", "max_input_tokens", "dataset", "n"}
            names |= {"apply_chat_template", "system_prompt"}
            key = ("template", config.model_dump_json(include=names))
            yield _Part(key, lambda: _template_problems(config), "model")
    yield _Part(
        ("dataset", str(config.dataset), config.n, order.model_cache_dir),
        lambda: dataset_problems(config.dataset, config.n, order.cache_dir, fetch=not offline),
        "dataset",
    )


def _template_problems(config: ExperimentConfig) -> list[Problem]:
    seen = look(config.dataset, config.n)
    if seen is None:  # which is a problem of the dataset
        return []
    if config.apply_chat_template or seen.shapes:
        absent = template_problems(config.model, for_chats=not config.apply_chat_template)
        return absent or tokenizers.trial_problems(config, shapes=seen.shapes)
    if config.system_prompt is None:
        return []
    what = "prompts of plain text have no room for a system prompt"
    return [Problem(what, "system_prompt", "set apply_chat_template: true, or remove it")]


def _lock_problems() -> list[Problem]:
    """Look for the folder of the device locks."""
    try:
        device_lock.lock_directory()
    except OSError as error:
        make = "" if Path(error.filename).exists() else f"mkdir -p {error.filename}, or "
        what = f"locks on devices cannot be kept: {error.strerror}"
        return [Problem(what, device_lock.VARIABLE, make + device_lock.REMEDY)]
    return []


def _model_problems(config: ExperimentConfig, *, offline: bool) -> Iterator[Problem]:
    if not (offline and resolve(config.model).kind == "hub"):
        yield from model_problems(config.model, config.revision)
    draft = config.decoder.draft_model
    if draft is not None and not (offline and resolve(draft).kind == "hub"):
        for problem in model_problems(draft):
            yield replace(problem, where="decoder.draft_model")
    if config.lora is not None and config.lora.adapter_id is not None and not offline:
        yield from adapter_problems(config.lora.adapter_id)
    folder = config.lora.adapter_path if config.lora is not None else None
    if folder is not None and (strange := unreadable(without_tilde(folder))):
        yield replace(strange, where="lora.adapter_path")


def _engine_problems(order: WorkOrder, absent: Problem | None) -> Iterator[Problem]:
    """List what backend and energy source say, and of the latter's package where it is all."""
    target = None
    if absent is not None:
        yield absent
    else:
        try:
            problems, target = _looked_at(order)
            yield from problems
        except ModuleNotFoundError as error:  # an engine that is installed in part
            entry = backend_entry(order.config.backend)
            what = f"'{entry.name}' needs the package {error.name}, which is not installed"
            yield Problem(what, "backend", entry.install or f"pip install {error.name}")
    if target is not None:
        sources = energy_problems(order.energy_backend, target)
    else:  # it cannot be told what is to be read
        source = energy_sources().get(order.energy_backend)
        gone = missing(source, FIELD) if source is not None else None
        sources = [gone] if gone is not None else []
    for problem in sources:
        yield replace(problem, kind="energy")


def _looked_at(order: WorkOrder) -> tuple[list[Problem], DeviceTarget | None]:
    """Ask a backend for problems and for the devices, which are unknown where it has not them."""
    loader: ModelLoader = load_object(backend_entry(order.config.backend).implementation)()
    problems = loader.problems(order.config)
    unfit = any(problem.kind == "hardware" for problem in problems)
    return problems, None if unfit else loader.target(order.config)


def write_orders(orders: Iterable[WorkOrder], path: Path) -> None:
    """Write distinct orders, one a line; repeats of an experiment need no second look."""
    lines = dict.fromkeys(order.model_dump_json() for order in orders)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_problems(path: Path) -> list[Problem]:
    """Read what :func:`main` wrote."""
    return [Problem(**fields) for fields in json.loads(path.read_bytes())]


def main(arguments: Sequence[str]) -> int:
    """Run as a process of its own; 0 whether or not there are problems."""
    source, target, *_ = arguments
    lines = [line for line in Path(source).read_text(encoding="utf-8").split("\n") if line]
    found = problems(map(WorkOrder.model_validate_json, lines))
    write_json_atomically(Path(target), json.dumps([asdict(each) for each in found]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
