"""Which results may be pooled: those of the same inputs, by the same engine, driver and image.

A configuration says what was asked for. Prompts, weights and engines can change meanwhile, and a
mean over before and after is a figure of neither. What is not known is compared with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.registry import backend_entry
from llenergymeasure.core.models import identity, sources, tokenizer_files
from llenergymeasure.datasets.loader import dataset_hash
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.exceptions import StudyError
from llenergymeasure.study.blocks import devices_of

_ON_HUB = "commit "
_MOST = 4


class Inputs:
    """What is known of the inputs of a study: what each was when the study began.

    Args:
        known: By field and by what configurations call it, as a plan holds it.
        results: What was measured before; what the plan does not know is told by the first of them.
    """

    def __init__(
        self,
        known: Mapping[str, Mapping[str, str]] | None = None,
        results: Iterable[ExperimentResult] = (),
    ) -> None:
        self._known = {field: dict(by_name) for field, by_name in (known or {}).items()}
        for result in results:
            self.learn(result.config, inputs_of(result))

    def learn(self, config: ExperimentConfig, found: Mapping[str, str]) -> None:
        """Take up what an experiment was made of, by field; what is known already stays."""
        called = identity.names(config)
        for field in found.keys() & called.keys():
            self._known.setdefault(field, {}).setdefault(called[field], found[field])

    def of(self, config: ExperimentConfig) -> dict[str, str]:
        """Give the identities that an experiment is to have, by field."""
        return {
            field: self._known[field][name]
            for field, name in identity.names(config).items()
            if name in self._known.get(field, {})
        }

    def as_data(self) -> dict[str, dict[str, str]]:
        """Give them as a plan holds them."""
        return {field: dict(by_name) for field, by_name in self._known.items()}

    def look(self, configs: Iterable[ExperimentConfig], cache_dir: Path) -> None:
        """Learn what lies on this machine before a study begins.

        Not what is in the cache of the Hub: an engine may load a newer commit; its result says so.
        """
        present = Present(cache_dir)
        for called, config in _distinct(configs).items():
            if any(name not in self._known.get(field, {}) for field, name in called):
                found = present.of(config)
                own = {field: one for field, one in found.items() if not one.startswith(_ON_HUB)}
                self.learn(config, own)

    def refuse_others(self, configs: Iterable[ExperimentConfig], cache_dir: Path) -> None:
        """Refuse to go on with a study whose inputs have changed since it began.

        Args:
            configs: What is still to be run.
            cache_dir: Where fetched datasets are kept.

        Raises:
            StudyError: They have changed; the message names both identities of each.
        """
        changed: dict[str, None] = {}
        present = Present(cache_dir)
        for called, config in _distinct(configs).items():
            if then := self.of(config):
                on_hub = any(one.startswith(_ON_HUB) for one in then.values())
                now = present.of(config, ask=on_hub)
                changed |= dict.fromkeys(identity.changes(dict(called), then, now))
        if changed:
            listed = "\n".join(f"  - {one}" for one in changed)
            raise StudyError(
                f"this study cannot be resumed: what it is made of has changed:\n{listed}\n"
                f"{identity.REMEDY} (without --resume)",
                where="--resume",
            )


def _distinct(
    configs: Iterable[ExperimentConfig],
) -> dict[tuple[tuple[str, str], ...], ExperimentConfig]:
    """Give one of each that has other inputs, by what it calls them."""
    return {tuple(identity.names(config).items()): config for config in configs}


def inputs_of(result: ExperimentResult) -> dict[str, str]:
    """Give the identities of what a result was made of; an earlier version recorded a part."""
    resolved = result.resolved
    if resolved.inputs:
        return resolved.inputs
    model = resolved.model
    known = {
        "dataset": resolved.dataset.sha256,
        "tokenizer": model.tokenizer_sha256,
        "model": model.commit and f"commit {model.commit}",
    }
    return {field: value for field, value in known.items() if value}


class Present:
    """Identifies inputs as they are now, as far as that is told without loading.

    Each is looked at once, with however many prompts a model goes: a directory is read, and the Hub
    asked, which without a network takes seconds.

    Args:
        cache_dir: Where fetched datasets are kept.
        of_models: Identifies the models of an experiment.
    """

    def __init__(
        self,
        cache_dir: Path,
        of_models: Callable[..., dict[str, str]] = identity.of_models,
    ) -> None:
        self._cache_dir, self._of_models = cache_dir, of_models
        self._models: dict[tuple[object, ...], dict[str, str]] = {}
        self._datasets: dict[str, str | None] = {}

    def of(self, config: ExperimentConfig, *, ask: bool = False) -> dict[str, str]:
        """Give the identities of the inputs of an experiment, by field.

        Args:
            config: The experiment.
            ask: Whether the Hub is asked to what commit a branch has moved.
        """
        called = identity.names(config)
        dataset = called.pop("dataset")
        models = (ask, *called.items())
        if models not in self._models:
            self._models[models] = self._look_at_models(config, ask=ask)
        if dataset not in self._datasets:
            self._datasets[dataset] = dataset_hash(config.dataset, self._cache_dir)
        found, prompts = self._models[models], self._datasets[dataset]
        return found if prompts is None else {**found, "dataset": prompts}

    def _look_at_models(self, config: ExperimentConfig, *, ask: bool) -> dict[str, str]:
        found = self._of_models(config, ask=ask)
        folder = sources.resolve(config.model).path if "model" in found else None
        if folder is not None and folder.is_dir() and tokenizer_files.own_files(folder):
            by_name = {path.name: path for path in tokenizer_files.own_files(folder)}
            tokenizer = tokenizer_files.fingerprint(by_name.get)
            found |= {"tokenizer": tokenizer} if tokenizer else {}
        return found


def conditions(result: ExperimentResult) -> dict[str, str]:
    """Give what must agree between results that are pooled, by what it is called.

    Its inputs, and, where an engine computes: versions of what decides the arithmetic, driver and
    power limit of GPUs or number of CPUs, and image. Boards are told by the devices.
    """
    found = {f"input {field}": value for field, value in inputs_of(result).items()}
    environment, facts = result.environment, backend_entry(result.config.backend)
    if not facts.runs_a_model:
        return found
    on_cpu = result.memory.kind == "resident_set"
    limits = sorted(
        {f"{one.power_limit_w:g} W" for one in result.device_state if one.power_limit_w}
    )
    cpus = environment.cpu_count_usable
    versions = {
        **{name: environment.engine_versions.get(name) for name in facts.distributions},
        "driver": None if on_cpu else environment.driver_version,
        "usable CPUs": str(cpus) if on_cpu and cpus else None,
        "power limit": ", ".join(limits),
        "image": environment.container_image,
    }
    return found | {name: value for name, value in versions.items() if value}


def kinds(found: Iterable[Mapping[str, str]]) -> list[int]:
    """Number results by what must agree: each is of the first kind that it does not contradict.

    Args:
        found: Their :func:`conditions`.
    """
    known: list[dict[str, str]] = []
    numbers = []
    for one in found:
        alike = (n for n, kind in enumerate(known) if not differing((kind, one)))
        number = next(alike, len(known))
        if number == len(known):
            known.append({})
        known[number] |= one
        numbers.append(number)
    return numbers


def differing(found: Iterable[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """Give what does not agree between some results, with the values in the order of results."""
    values: dict[str, dict[str, None]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, {})[value] = None
    return {name: tuple(each) for name, each in values.items() if len(each) > 1}


def epochs(results: Sequence[ExperimentResult]) -> list[int]:
    """Number results by how often something that must agree had changed before each.

    Args:
        results: In the order in which they were measured.
    """
    last: dict[tuple[str, str | tuple[str, ...]], str] = {}
    numbers: list[int] = []
    for result in results:
        called = identity.names(result.config)
        place = (result.config.backend, result.resolved.runner, *devices_of(result))
        now = {
            (name, called.get(name.removeprefix("input "), place)): value
            for name, value in conditions(result).items()
        }
        changed = any(last.get(key, value) != value for key, value in now.items())
        numbers.append((numbers[-1] if numbers else 0) + changed)
        last |= now
    return numbers


def plain(found: Mapping[str, str]) -> dict[str, str]:
    """Name conditions as a result of a study does: inputs by the field that names them."""
    return {name.removeprefix("input "): found[name] for name in sorted(found)}


def told(name: str, value: str) -> str:
    """Say a condition in a few words."""
    field = name.removeprefix("input ")
    if field == name:
        return f"{name} {value}"
    return f"{identity.WORDS.get(field, field).removeprefix('the ')} {identity.short(value)}"


def kept_apart(results: Iterable[tuple[int, ExperimentResult]]) -> Iterator[str]:
    """Say which configurations have results that are kept apart, and of which too little is known.

    Args:
        results: Results, each with the number of its configuration.
    """
    found: dict[int, list[dict[str, str]]] = {}
    for configuration, result in results:
        found.setdefault(configuration, []).append(conditions(result))
    apart: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    unknown = 0
    for configuration, each in found.items():
        for name, values in differing(each).items():
            apart.setdefault((name, values), []).append(configuration)
        inputs = {name for one in each for name in one if name.startswith("input ")}
        unknown += sum(not inputs <= one.keys() for one in each)
    for (name, values), configurations in apart.items():
        numbers = ", ".join(f"#{one}" for one in configurations[:_MOST])
        more = f" and {len(configurations) - _MOST} more" if len(configurations) > _MOST else ""
        yield (
            f"{numbers}{more}: measured with {' and with '.join(told(name, v) for v in values)}; "
            "figures are kept apart, and only what ran alike is compared"
        )
    if unknown:
        results_were = "1 result was" if unknown == 1 else f"{unknown} results were"
        yield (
            f"{results_were} made by a version that did not record all inputs; whether they had "
            "the same as the others they are pooled with is not known"
        )
