"""From what is asked for to the plan of a study: a new one, or one that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExecutionConfig, ExperimentConfig, StudyConfig
from llenergymeasure.config.user_config import UserConfig
from llenergymeasure.datasets.jsonl import read_lines
from llenergymeasure.domain.prompts import Prompt
from llenergymeasure.results.layout import StudyDirectory
from llenergymeasure.study import grid, order
from llenergymeasure.study.continuation import Continuation, check_design, continued
from llenergymeasure.study.grid import Expansion
from llenergymeasure.study.manifest import ExecutionPlan, StudyPlan, read_plan


def expanded(study: StudyConfig, *, allow_large: bool) -> Expansion:
    """Write a design out; the prompts of local datasets are looked at for lengths of their own."""
    return grid.expand(study, allow_large=allow_large, own_lengths=OwnPromptLengths())


def new_plan(
    study: StudyConfig, user: UserConfig, *, allow_large: bool, now: datetime | None = None
) -> StudyPlan:
    """Decide everything that is decided before the first experiment.

    Args:
        study: What is asked for.
        user: The user's settings, for what it leaves open.
        allow_large: Whether the grid may be larger than is usual.
        now: When the plan is made; by default at this moment.

    Raises:
        StudyError: The grid is too large, or none of it can run.
    """
    expansion = expanded(study, allow_large=allow_large)
    execution = resolved(study.execution, user)
    return StudyPlan(
        name=study.name,
        study_design_hash=grid.design_hash(expansion.fingerprints, cold_start=study.cold_start),
        created_at=now or datetime.now().astimezone(),
        execution=execution,
        cold_start=study.cold_start,
        generated=expansion.generated,
        merged=expansion.merged,
        skipped=expansion.skipped,
        experiments=expansion.experiments,
        slots=order.slots(len(expansion.experiments), execution),
    )


def continuation(
    directory: StudyDirectory,
    study: StudyConfig | None,
    user: UserConfig,
    flags: Mapping[str, Any],
    *,
    allow_large: bool,
) -> Continuation:
    """Go on with the plan of a directory.

    Args:
        directory: Where the study lies.
        study: The design as it is asked for now; ``None`` keeps the stored one.
        user: The user's settings.
        flags: Fields of ``execution`` that flags set; a design that is given holds them already.
        allow_large: Whether the grid may be larger than is usual.

    Raises:
        StudyError: The plan is lost, or design or order have changed.
    """
    stored, damage = read_plan(directory)
    notes = [] if damage is None else [damage]
    if study is None:
        execution = ExecutionPlan.model_validate({**stored.execution.model_dump(), **flags})
    else:
        expansion = expanded(study, allow_large=allow_large)
        check_design(stored, expansion.experiments, cold_start=study.cold_start)
        # What is silent now was set by flags in the beginning.
        silent = {"n_cycles", "cycle_order", "seed"} - study.execution.model_fields_set
        kept_order = {name: getattr(stored.execution, name) for name in silent}
        execution = resolved(study.execution, user).model_copy(update=kept_order)
        kept = stored.execution.n_cycles
        if "n_cycles" not in flags and execution.n_cycles < kept:
            # a flag may have added some since the file was written
            notes.append(f"n_cycles: {execution.n_cycles} in the file, the {kept} planned are kept")
            execution = execution.model_copy(update={"n_cycles": kept})
    found = continued(stored, execution, order.slots)
    return found._replace(notes=(*notes, *found.notes))


def resolved(execution: ExecutionConfig, user: UserConfig) -> ExecutionPlan:
    """Fill in what the study leaves to the user's settings."""
    given = execution.model_dump(exclude_none=True)
    return ExecutionPlan.model_validate({**user.execution.model_dump(), **given})


class OwnPromptLengths:
    """Tells of an experiment whether every prompt it uses has a ``max_new_tokens`` of its own.

    Reads each file once for each number of prompts. A file that cannot be read counts as having
    none; pre-flight says what is wrong with it.
    """

    def __init__(self) -> None:
        self._all_have = cache(_all_have)

    def __call__(self, config: ExperimentConfig) -> bool:
        """Look at the prompts of an experiment; False for anything but a JSONL file."""
        dataset = config.dataset
        if not isinstance(dataset, str) or not dataset.endswith(".jsonl"):
            return False
        return self._all_have(Path(dataset).expanduser(), config.n)


def _all_have(path: Path, n: int) -> bool:
    try:
        prompts = (line for line in read_lines(path) if isinstance(line, Prompt))
        lengths = [prompt.max_new_tokens for prompt in islice(prompts, n)]
    except OSError:
        return False
    return bool(lengths) and None not in lengths
