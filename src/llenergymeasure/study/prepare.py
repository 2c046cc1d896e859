"""From what is asked for to the plan of a study: a new one, or one that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from llenergymeasure._version import __version__
from llenergymeasure.config.base import flatten
from llenergymeasure.config.canonical import design_hash
from llenergymeasure.config.experiment_fields import MOST_PROMPTS
from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import EffectiveSettings, UserConfig
from llenergymeasure.datasets.loader import Spec, prompt_file
from llenergymeasure.domain.prompts import Prompt
from llenergymeasure.exceptions import FlagError, StudyError, link_that_leads_nowhere
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.results.recognise import what_it_is
from llenergymeasure.study import cycles, grid
from llenergymeasure.study.forecast import Machine, TimeLimits, this_machine
from llenergymeasure.study.grid import Expansion
from llenergymeasure.study.manifest import ExecutionPlan, NotedPlan, Slot, StudyPlan, read_plan

PAUSES_S = {"config_gap_seconds": 60.0, "cycle_gap_seconds": 300.0}
"""Between experiments and between cycles, where nobody says otherwise and something can heat."""
_MOST_LISTED = 5
_FREE = ("config_gap_seconds", "cycle_gap_seconds", "start_method", "timeout_s")
_ABSENT = "not set"


def expanded(study: StudyConfig) -> Expansion:
    """Write a design out; the prompts of local datasets are looked at for lengths of their own."""
    all_have = cache(_all_have_lengths)  # each file is read once for each number of prompts

    def own_lengths(config: ExperimentConfig) -> bool:
        return config.has_prompt_file and all_have(config.dataset, config.n or MOST_PROMPTS)

    return grid.expand(study, own_lengths=own_lengths)


def new_plan(
    study: StudyConfig,
    user: UserConfig,
    now: datetime | None = None,
    machine: Callable[[], Machine] = this_machine,
) -> StudyPlan:
    """Decide everything that is decided before the first experiment.

    Args:
        study: What is asked for.
        user: The user's settings, for what it leaves open.
        now: When the plan is made; by default at this moment.
        machine: Looks at what it will run on.

    Raises:
        StudyError: None of the grid can run.
    """
    expansion = expanded(study)
    execution = resolved(study.execution, user, heats=heats(expansion.experiments, user, machine))
    return StudyPlan(
        name=study.name,
        study_design_hash=design_hash(expansion.fingerprints, cold_start=study.cold_start),
        created_at=now or datetime.now().astimezone(),
        execution=execution,
        cold_start=study.cold_start,
        generated=expansion.generated,
        merged=expansion.merged,
        skipped=expansion.skipped,
        experiments=expansion.experiments,
        slots=cycles.slots(len(expansion.experiments), execution),
    )


def continuation(
    directory: StudyDirectory,
    study: StudyConfig | None,
    user: UserConfig,
    flags: Mapping[str, Any],
) -> NotedPlan:
    """Go on with the plan of a directory.

    Args:
        directory: Where the study lies.
        study: The design as it is asked for now; ``None`` keeps the stored one.
        user: The user's settings.
        flags: Fields of ``execution`` that flags set; a design that is given holds them already.

    Raises:
        StudyError: The plan is lost, or design or order have changed.
    """
    stored, notes, rejected = read_plan(directory)
    if study is None:
        execution = ExecutionPlan.model_validate({**stored.execution.model_dump(), **flags})
    else:
        expansion = expanded(study)
        check_design(stored, expansion.experiments, cold_start=study.cold_start)
        # What is silent now was set by flags in the beginning.
        silent = {"n_cycles", "cycle_order", "seed"} - study.execution.model_fields_set
        kept_order = {name: getattr(stored.execution, name) for name in silent}
        hot = heats(expansion.experiments, user)
        execution = resolved(study.execution, user, heats=hot).model_copy(update=kept_order)
        kept = stored.execution.n_cycles
        if "n_cycles" not in flags and execution.n_cycles < kept:
            # a flag may have added some since the file was written
            said = f"n_cycles: {execution.n_cycles} in the file, the {kept} planned are kept"
            notes = (*notes, said)
            execution = execution.model_copy(update={"n_cycles": kept})
    found = continued(stored, execution)
    return NotedPlan(found.plan, (*notes, *found.notes), rejected)


def resolved(execution: ExecutionConfig, user: UserConfig, *, heats: bool) -> ExecutionPlan:
    """Fill in what the study leaves to the user's settings, and those to what it runs on."""
    pauses_s = PAUSES_S if heats else dict.fromkeys(PAUSES_S, 0.0)
    asked = (user.execution.model_dump(exclude_none=True), execution.model_dump(exclude_none=True))
    return ExecutionPlan.model_validate({**pauses_s, **asked[0], **asked[1]})


def heats(
    experiments: Iterable[ExperimentConfig],
    user: UserConfig,
    machine: Callable[[], Machine] = this_machine,
) -> bool:
    """Tell whether one experiment leaves heat that the next would begin with: on a GPU."""
    found = machine()
    limits = TimeLimits(EffectiveSettings(user, {}), None, lambda: found)
    return found.gpu_name is not None and any(limits.gpu_name(one) for one in experiments)


def _all_have_lengths(dataset: Spec, n: int) -> bool:
    """Tell whether every prompt that is used has a ``max_new_tokens`` of its own.

    A file that cannot be read counts as having none; pre-flight says what is wrong with it.
    """
    try:
        prompts = (row for row in prompt_file(dataset) or () if isinstance(row, Prompt))
        lengths = [prompt.max_new_tokens for prompt in islice(prompts, n)]
    except OSError:
        return False
    return bool(lengths) and None not in lengths


def find_study(path: Path) -> StudyDirectory:
    """Locate a study by its directory, its manifest, or the parent of just this one study.

    Raises:
        FlagError: There is none, or there are several (the message lists them).
    """
    names = [file.name for file in _plan_files(StudyDirectory(Path()))]
    root = path.parent if path.name in names else path
    if any(file.is_file() for file in _plan_files(StudyDirectory(root))):
        return StudyDirectory(root)
    found = sorted({file.parent for name in names for file in root.glob(f"*/{name}")})
    if len(found) == 1:
        return StudyDirectory(found[0])
    if not found:
        told = what_it_is(path)
        hint = "" if told is None else f"; {path} is {told}"
        why = link_that_leads_nowhere(path) or f"there is no {names[0]}{hint}"
        raise FlagError(f"no study in {path}: {why}", where=str(path))
    listed = "\n".join(f"  --resume {one}" for one in found)
    raise FlagError(
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


def continued(stored: StudyPlan, execution: ExecutionPlan) -> NotedPlan:
    """Go on with a stored plan, run as asked for now.

    More cycles are a top-up: their slots follow those of the plan. Rests, time limit and start
    method may change and are noted.

    Args:
        stored: The plan of the study.
        execution: How it is to be run now.

    Raises:
        StudyError: The order, its seed, or fewer cycles are asked for.
    """
    _check_order(stored.execution, execution)
    planned, further = stored.execution.n_cycles, tuple[Slot, ...]()
    if execution.n_cycles > planned:
        first = max((slot.number for slot in stored.slots), default=0) + 1
        wanted = cycles.slots(len(stored.experiments), execution, stored.slots)
        later = (slot for slot in wanted if slot.cycle > planned)
        further = tuple(slot._replace(number=number) for number, slot in enumerate(later, first))
    plan = stored.model_copy(update={"execution": execution, "slots": stored.slots + further})
    return NotedPlan(plan, tuple(_notes(stored, execution, len(further))))


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
    if {one.fingerprint() for one in planned} == {one.fingerprint() for one in asked}:
        return
    old, new = (
        [dict(flatten(one.model_dump(mode="json", exclude_none=True))) for one in configs]
        for configs in (planned, asked)
    )
    varying, everywhere = [], 0
    for name in dict.fromkeys(name for leaves in (*old, *new) for name in leaves):
        before, after = ({str(leaves.get(name, _ABSENT)) for leaves in side} for side in (old, new))
        if len(before) > 1 or len(after) > 1:
            varying.append(name)
        elif before != after:  # all configurations had one value, and now all have another
            everywhere += 1
            yield _changed(name, *before, *after)
    gone, come = (
        [", ".join(f"{name} {leaves.get(name, _ABSENT)}" for name in varying) for leaves in side]
        for side in (old, new)
    )
    left = [point for point in gone if point not in come]
    added = [point for point in come if point not in gone]
    yield from _listed("no longer there", left)
    yield from _listed("not in the plan", added)
    if not (everywhere or left or added):  # as null and {} inside passthrough_kwargs
        yield "settings that read alike but are not the same"


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
