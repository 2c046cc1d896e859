"""May a stored plan go on as it is asked for now, and with which further cycles?

Pure: plans in, a plan or the differences out. The slots of a plan never change; cycles that are
added come after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure._version import __version__
from llenergymeasure.config.base import flatten
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.exceptions import StudyError
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study.manifest import ExecutionPlan, Slot, StudyPlan

SlotsOf = Callable[[int, ExecutionPlan], Iterable[Slot]]

_MOST_LISTED = 5
_FREE = ("config_gap_seconds", "cycle_gap_seconds", "start_method", "timeout_s")
_ABSENT = "not set"


class Continuation(NamedTuple):
    """How a study goes on.

    Attributes:
        plan: The stored plan, with further cycles where they were asked for.
        notes: What differs from before without standing in the way, in plain words.
    """

    plan: StudyPlan
    notes: tuple[str, ...]


def find_study(path: Path) -> StudyDirectory:
    """Locate a study by its directory, its manifest, or the parent of just this one study.

    Raises:
        StudyError: There is none, or there are several (the message lists them).
    """
    names = [file.name for file in _plan_files(StudyDirectory(Path()))]
    root = path.parent if path.name in names else path
    if any(file.is_file() for file in _plan_files(StudyDirectory(root))):
        return StudyDirectory(root)
    found = sorted({file.parent for name in names for file in root.glob(f"*/{name}")})
    if len(found) == 1:
        return StudyDirectory(found[0])
    if not found:
        raise StudyError(f"no study in {path}: there is no {names[0]}", where=str(path))
    listed = "\n".join(f"  --resume {one}" for one in found)
    raise StudyError(
        f"{path} holds {len(found)} studies; name one of them:\n{listed}", where=str(path)
    )


def _plan_files(study: StudyDirectory) -> tuple[Path, ...]:
    return study.manifest, study.plan


def check_design(
    stored: StudyPlan, experiments: Sequence[ExperimentConfig], *, cold_start: bool
) -> None:
    """Refuse to go on with another design.

    Args:
        stored: The plan of the study.
        experiments: The distinct configurations that are asked for now, in any order.
        cold_start: Whether experiments are to start cold.

    Raises:
        StudyError: They differ; the message names how.
    """
    differences = list(_differences(stored.experiments, experiments))
    if stored.cold_start != cold_start:
        differences.append(_changed("cold_start", stored.cold_start, cold_start))
    if differences:
        raise _refusal("design", differences, "resume with the design it began with")


def continued(stored: StudyPlan, execution: ExecutionPlan, slots: SlotsOf) -> Continuation:
    """Go on with a stored plan, run as asked for now.

    More cycles are a top-up: their slots follow those of the plan. Rests, time limit and start
    method may change and are noted.

    Args:
        stored: The plan of the study.
        execution: How it is to be run now.
        slots: Gives the order of so many configurations; deterministic.

    Raises:
        StudyError: The order, its seed, or fewer cycles are asked for.
    """
    _check_order(stored.execution, execution)
    further = _further_slots(stored, execution, slots)
    plan = stored.model_copy(update={"execution": execution, "slots": stored.slots + further})
    return Continuation(plan, tuple(_notes(stored, execution, len(further))))


def _check_order(planned: ExecutionPlan, asked: ExecutionPlan) -> None:
    differences = [
        _changed(name, getattr(planned, name), getattr(asked, name))
        for name in ("cycle_order", "seed")
        if getattr(planned, name) != getattr(asked, name)
    ]
    if asked.n_cycles < planned.n_cycles:
        differences.append(
            f"{_changed('n_cycles', planned.n_cycles, asked.n_cycles)}; cycles can be added, not "
            f"taken back (--cycles {planned.n_cycles})"
        )
    if differences:
        raise _refusal("order of its experiments", differences, "resume with the order it has")


def _further_slots(stored: StudyPlan, asked: ExecutionPlan, slots: SlotsOf) -> tuple[Slot, ...]:
    cycles = stored.execution.n_cycles
    if asked.n_cycles == cycles:
        return ()
    wanted = sorted(slots(len(stored.experiments), asked))
    later = [slot for slot in wanted if slot.cycle > cycles]
    first = max((slot.number for slot in stored.slots), default=0) + 1
    return tuple(slot._replace(number=first + place) for place, slot in enumerate(later))


def _notes(stored: StudyPlan, asked: ExecutionPlan, added: int) -> Iterator[str]:
    planned = stored.execution
    if added:
        yield f"{asked.n_cycles} cycles instead of {planned.n_cycles}: {added} more experiments"
    for name in _FREE:
        if getattr(planned, name) != getattr(asked, name):
            yield _changed(name, getattr(planned, name), getattr(asked, name))
    if stored.llenergymeasure_version != __version__:
        yield _changed("version of llenergymeasure", stored.llenergymeasure_version, __version__)


def _differences(
    planned: Sequence[ExperimentConfig], asked: Sequence[ExperimentConfig]
) -> Iterator[str]:
    """Yield settings that changed for all configurations, then configurations that came or went."""
    old, new = _by_fingerprint(planned), _by_fingerprint(asked)
    if old.keys() == new.keys():
        return
    before, after = _settings(old.values()), _settings(new.values())
    everywhere = []  # all configurations had one value, and now all have another
    for name in {**before, **after}:
        one, other = before.get(name, {_ABSENT}), after.get(name, {_ABSENT})
        if len(one) == len(other) == 1 and one != other:
            everywhere.append(name)
            yield _changed(name, *one, *other)
    varying = [
        name
        for name in {**before, **after}
        if (name not in everywhere and before.get(name) != after.get(name))
        or len(before.get(name, ())) > 1
    ]
    gone, come = _points(old.values(), varying), _points(new.values(), varying)
    left = [point for point in gone if point not in come]
    added = [point for point in come if point not in gone]
    yield from _listed("no longer there", left)
    yield from _listed("not in the plan", added)
    if not (everywhere or left or added):  # as null and {} inside passthrough_kwargs
        yield "settings that read alike but are not the same"


def _by_fingerprint(configs: Iterable[ExperimentConfig]) -> dict[str, ExperimentConfig]:
    return {config.fingerprint(): config for config in configs}


def _leaves(config: ExperimentConfig) -> dict[str, Any]:
    return dict(flatten(config.model_dump(mode="json", exclude_none=True)))


def _settings(configs: Iterable[ExperimentConfig]) -> dict[str, set[str]]:
    """Collect the values of every setting over all configurations, as text."""
    found = [_leaves(config) for config in configs]
    names = dict.fromkeys(name for leaves in found for name in leaves)
    return {name: {str(leaves.get(name, _ABSENT)) for leaves in found} for name in names}


def _points(configs: Iterable[ExperimentConfig], names: Sequence[str]) -> list[str]:
    """Describe configurations by the settings in which they differ."""
    points = []
    for config in configs:
        leaves = _leaves(config)
        points.append(", ".join(f"{name} {leaves.get(name, _ABSENT)}" for name in names))
    return points


def _listed(what: str, points: Sequence[str]) -> Iterator[str]:
    for point in points[:_MOST_LISTED]:
        yield f"{what}: {point}"
    if len(points) > _MOST_LISTED:
        yield f"{what}: {len(points) - _MOST_LISTED} more"


def _changed(name: str, planned: object, asked: object) -> str:
    return f"{name}: {planned} in the plan, {asked} now"


def _refusal(what: str, differences: Sequence[str], remedy: str) -> StudyError:
    listed = "\n".join(f"  - {difference}" for difference in differences)
    return StudyError(
        f"this study cannot be resumed: the {what} has changed:\n{listed}\n"
        f"{remedy}, or run this as a study of its own (without --resume)",
        where="--resume",
    )
