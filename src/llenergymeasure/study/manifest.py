"""The plan of a study on disk, written when it starts and read when it goes on.

``study_manifest.json`` is written beside its place and renamed, at the start and at the end only.
In between ``study_progress.jsonl`` grows by a line (:class:`~.events.ProgressLine`), so the
bookkeeping of an experiment costs the same in every study. Neither says what is complete: the
directories of the experiments do (``study/resume.py``). ``study_plan.json`` holds the plan alone,
and is written once, so that a damaged manifest costs nothing. Both carry a checksum.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from llenergymeasure import plain_files
from llenergymeasure._version import __version__
from llenergymeasure.config.backend_configs import MOST
from llenergymeasure.config.base import as_unicode, unlike
from llenergymeasure.config.canonical import canonical_hash
from llenergymeasure.config.models import STORED, ExperimentConfig
from llenergymeasure.config.plain_words import shown
from llenergymeasure.config.study import CycleOrder, StartMethod
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain import Record
from llenergymeasure.domain.results import StudyPlace
from llenergymeasure.domain.study_result import Skipped
from llenergymeasure.exceptions import StudyError
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.filenames import slot_name
from llenergymeasure.results.files import (
    MOST_BYTES,
    SEAL,
    check_seal,
    checksum,
    parse,
    write_json_atomically,
)
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory

# 1.0: plan with slots, skips and a view of progress.
# 1.1: a checksum over all of it.
SCHEMA_VERSION = "1.1"

LARGEST_BYTES = 1024 * plain_files.MIB
"""Largest manifest or plan."""


class Slot(NamedTuple):
    """One experiment in the order of running.

    Attributes:
        number: Its place, from 1.
        configuration: Index into the configurations of the plan.
        cycle: Its cycle, from 1.
    """

    number: int
    configuration: int
    cycle: int


class ExecutionPlan(Record):
    """How a study is run, with every default resolved."""

    n_cycles: int = Field(description="Cycles: how often each configuration runs.")
    cycle_order: CycleOrder = Field(description="sequential, interleaved, shuffled or balanced.")
    config_gap_seconds: float = Field(description="Rest between experiments, s.")
    cycle_gap_seconds: float = Field(description="Rest between cycles, s.")
    seed: int = Field(description="Seed of the order.")
    start_method: StartMethod = Field("auto", description="How workers are started.")
    timeout_s: float | None = Field(None, description="Time limit of an experiment; null: planned.")

    def between_cycles(self, previous: Slot, slot: Slot) -> bool:
        """Tell whether two experiments have the end of a cycle between them.

        Only orders that have cycles have such an end.
        """
        return previous.cycle != slot.cycle and self.cycle_order != "sequential"

    def gap_s(self, previous: Slot | None, slot: Slot) -> float:
        """Give the length of the pause before an experiment, s; there is none before the first."""
        if previous is None:
            return 0.0
        between = self.between_cycles(previous, slot)
        return self.cycle_gap_seconds if between else self.config_gap_seconds

    def gaps_s(self, slots: Sequence[Slot]) -> list[float]:
        """Give the length of the pause before each of some experiments that follow each other."""
        return [
            self.gap_s(previous, slot)
            for previous, slot in zip((None, *slots), slots, strict=False)
        ]


class ProgressView(Record):
    """How far a study has come; a view for readers, which may lag behind the directories."""

    complete: int = Field(0, description="Experiments with a result.")
    failed: int = Field(0, description="Experiments that broke.")
    missing: int = Field(0, description="Experiments that have neither yet.")
    updated_at: datetime | None = Field(None, description="When this was counted.")


class StudyPlan(Record):
    """Everything that was decided before the first experiment."""

    schema_version: str = Field(SCHEMA_VERSION, description="Version of this schema.")
    llenergymeasure_version: str = Field(__version__, description="Version that made the plan.")
    name: str | None = Field(None, description="Name of the study.")
    study_design_hash: str = Field(description="Fingerprint of the design.")
    created_at: datetime = Field(description="When the plan was made.")
    execution: ExecutionPlan = Field(description="How it is run.")
    cold_start: bool = Field(False, description="No warm-up; loading is a window of its own.")
    generated: int = Field(description="Combinations the design asks for.")
    merged: int = Field(0, description="Combinations that equal an earlier one.")
    skipped: tuple[Skipped, ...] = Field((), description="Combinations that are not run.")
    experiments: tuple[ExperimentConfig, ...] = Field(description="The distinct configurations.")
    inputs: dict[str, dict[str, str]] = Field(
        {},
        description="Identity of each input that lay on this machine when the study began, by "
        "field and by what configurations call it.",
    )
    slots: tuple[Slot, ...] = Field(
        description="Order of running: number, index into experiments, cycle."
    )

    @model_validator(mode="after")
    def _slots_exist(self) -> Self:
        count = len(self.experiments)
        if not all(0 <= slot.configuration < count for slot in self.slots):
            raise ValueError(f"a slot names a configuration that is not among the {count}")
        if not all(0 < one <= MOST for slot in self.slots for one in (slot.number, slot.cycle)):
            raise ValueError(f"the number or the cycle of a slot is not from 1 to {MOST:,}")
        return self

    def config(self, slot: Slot) -> ExperimentConfig:
        """Give the configuration of a slot."""
        return self.experiments[slot.configuration]

    def place(self, slot: Slot) -> StudyPlace:
        """Say where a result of a slot belongs."""
        begun = (self.name, self.study_design_hash, self.created_at.isoformat())
        return StudyPlace(
            study=canonical_hash(begun),
            study_design_hash=self.study_design_hash,
            slot=slot.number,
            cycle=slot.cycle,
        )

    def order(self, configuration: int, settings: EffectiveSettings) -> WorkOrder:
        """Say what a worker on this machine is asked to do for a configuration, by its index."""
        config = self.experiments[configuration]
        return WorkOrder.of(config, settings, cold_start=self.cold_start)

    def directory(self, study: StudyDirectory, slot: Slot) -> ExperimentDirectory:
        """Give the directory of a slot; the same for as long as the study lives."""
        return study.experiment(slot_name(slot.number, slot.cycle, self.config(slot)))

    def facts(self) -> dict[str, Any]:
        """Give everything that it says, whatever version wrote it."""
        data = self.model_dump(mode="json", exclude={"schema_version", "llenergymeasure_version"})
        return {**data, "experiments": dict(enumerate(data["experiments"]))}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build a plan from the data of a manifest.

        Raises:
            ValidationError: A field is missing or wrong.
        """
        common = data.get("common") or {}
        own = [{**common, **one} for one in data.get("experiments") or ()]
        return cls.model_validate({**data, "experiments": own}, context=STORED)


def write_manifest(
    directory: StudyDirectory, plan: StudyPlan, progress: ProgressView | None = None
) -> None:
    """Put the manifest in place in one step.

    Raises:
        ExperimentError: It cannot be written; the one that was there is untouched.
    """
    write_json_atomically(directory.manifest, manifest_text(plan, progress or ProgressView()))


def write_plan(directory: StudyDirectory, plan: StudyPlan) -> None:
    """Put the plan in place, unless it is there already.

    Raises:
        ExperimentError: It cannot be written; the one that was there is untouched.
    """
    text = manifest_text(plan, None)
    with contextlib.suppress(OSError):
        if plain_files.read(directory.plan, LARGEST_BYTES) == text.encode():
            return
    write_json_atomically(directory.plan, text)


def manifest_text(plan: StudyPlan, progress: ProgressView | None) -> str:
    """Write a plan out, with its progress where there is any: a line a configuration and a slot.

    What all configurations have in common stands once, as ``common``; nothing is left to defaults,
    which a later version may change.
    """
    data = {**plan.model_dump(mode="json"), "schema_version": SCHEMA_VERSION}
    configs = data["experiments"]
    common = _common(configs)
    own = [{k: v for k, v in one.items() if k not in common} for one in configs]
    last = {"common": common, "experiments": own, "slots": data["slots"]}
    first = {key: value for key, value in data.items() if key not in last}
    view = {} if progress is None else {"progress": progress.model_dump(mode="json")}
    whole = {**first, **view, **last}
    text = ",\n".join(_parts({**whole, SEAL: checksum(whole)}))
    return as_unicode(f"{{\n{text}\n}}\n")


class NotedPlan(NamedTuple):
    """The plan of a study that goes on.

    Attributes:
        plan: The plan.
        notes: What there is to say of it that does not stand in the way, in plain words.
        rejected: Files that do not hold this plan; they are to be kept when it is written anew.
    """

    plan: StudyPlan
    notes: tuple[str, ...] = ()
    rejected: tuple[Path, ...] = ()


_FREE = {"execution", "inputs", "slots"}
"""What a resume may change in a plan; slots are only ever added."""
_MOST_LISTED = 3


class _Found(NamedTuple):
    """A plan as one of its two files holds it."""

    path: Path
    plan: StudyPlan
    sealed: bool


def read_plan(directory: StudyDirectory) -> NotedPlan:
    """Read the plan of a study from its manifest, or from its own file where that is damaged.

    Where both are whole and disagree, the results decide; a note says so, and what is damaged.

    Raises:
        StudyError: Both are missing or damaged; or one cannot be read, or a later version wrote it;
            or they disagree and nothing tells which is right.
    """
    found: list[_Found] = []
    faults: list[str] = []
    rejected: list[Path] = []
    for path in (directory.manifest, directory.plan):
        try:
            found.append(_plan_in(path))
        except FileNotFoundError:
            if path == directory.manifest:  # earlier versions wrote no other file
                faults.append(f"{path} is not there")
        except OSError as error:
            raise StudyError(
                f"{path} cannot be read ({error.strerror}); mend that or take it away, then resume",
                where=str(path),
            ) from None
        except (ValueError, TypeError, RecursionError) as error:
            faults.append(f"{path} is damaged ({_first_line(error)})")
            rejected.append(path)
    if not found:
        raise _lost(directory, faults)
    if len(found) == 2:
        return _chosen(directory, *found)
    if not faults:
        return NotedPlan(found[0].plan)
    kept = "; what is damaged is kept under a number" if rejected else ""
    whole = "the plan is whole in the other file, and is written anew"
    note = f"{'; '.join(faults)}; {whole}{kept}"
    return NotedPlan(found[0].plan, (note,), tuple(rejected))


def _plan_in(path: Path) -> _Found:
    data = parse(plain_files.read(path, LARGEST_BYTES))
    if not isinstance(data, dict):
        raise TypeError("it is not a JSON object")
    if SEAL in data:
        check_seal(data)
    version = str(data.get("schema_version"))
    major, minor = _version(version)
    if major > _version(SCHEMA_VERSION)[0]:
        raise StudyError(
            f"{path} has schema {shown(version)}, which a later version of llenergymeasure "
            f"wrote; this one ({__version__}) knows {SCHEMA_VERSION}: pip install --upgrade "
            "llenergymeasure",
            where=str(path),
        )
    if SEAL not in data and (major, minor) > (1, 0):
        raise ValueError(f"it has lost its checksum, {SEAL}")
    return _Found(path, StudyPlan.from_json(data), SEAL in data)


def _chosen(directory: StudyDirectory, manifest: _Found, plan: _Found) -> NotedPlan:
    """Choose between two plans that are both whole.

    Raises:
        StudyError: They disagree, and nothing tells which is right.
    """
    differences = unlike(manifest.plan.facts(), plan.plan.facts())
    if not differences:
        return NotedPlan(manifest.plan)
    told = "; ".join(
        f"{shown(name)}: {shown(one)} and {shown(other)}"
        for name, (one, other) in islice(differences.items(), _MOST_LISTED)
    )
    disagree = f"{manifest.path} and {plan.path.name} disagree ({told})"
    surplus = _results_of(directory, manifest.plan) - _results_of(directory, plan.plan)
    if surplus:
        right, wrong = (manifest, plan) if surplus > 0 else (plan, manifest)
        note = (
            f"{disagree}; the results are those of {right.path.name}, which is taken, and the "
            "other is kept under a number"
        )
        return NotedPlan(right.plan, (note,), (wrong.path,))
    added = plan.plan.slots[: len(manifest.plan.slots)] == manifest.plan.slots
    free = {name.partition(".")[0] for name in differences} <= _FREE
    if manifest.sealed and plan.sealed and added and free:
        # It is written first, and a run was broken off before it came to the other.
        return NotedPlan(plan.plan, (f"{disagree}; the latter was written last, and is taken",))
    raise StudyError(
        f"{disagree}, and no result tells which is right; put the right value into the one that "
        "is wrong, or take it away, then resume",
        where=str(manifest.path),
    )


def _results_of(directory: StudyDirectory, plan: StudyPlan) -> int:
    """Count the results that lie where a plan has them, and are of the configuration it says."""
    count = 0
    for slot in plan.slots:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            result = plan.directory(directory, slot).result
            data = parse(plain_files.read(result, MOST_BYTES))
            config = ExperimentConfig.model_validate(data["config"], context=STORED)
            here = data.get("place") in (None, plan.place(slot).model_dump(mode="json"))
            count += here and config.fingerprint() == plan.config(slot).fingerprint()
    return count


def _common(configs: list[dict[str, Any]]) -> dict[str, Any]:
    if len(configs) < 2:
        return {}
    first, *others = configs
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def _parts(data: dict[str, Any]) -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, list) and value:
            lines = ",\n    ".join(_compact(one) for one in value)
            yield f'  "{key}": [\n    {lines}\n  ]'
        else:
            yield f'  "{key}": {_compact(value)}'


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _lost(directory: StudyDirectory, faults: Iterable[str]) -> StudyError:
    return StudyError(
        f"the plan of the study is lost: {'; '.join(faults)}. Both files are written beside their "
        "place and renamed, so the damage came from outside: a copy cut short, an editor, the "
        "disk. Put back a whole copy of one to resume; the finished results in "
        f"{directory.experiments} can be read without it",
        where=str(directory.manifest),
    )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{shown('.'.join(map(str, first['loc'])), 80)}: {first['msg']}"
    return str(error)


def _version(text: str) -> tuple[int, int]:
    """Give major and minor version; what is no number counts as 0."""
    major, _, minor = text.partition(".")
    return (int(major) if major.isdecimal() else 0, int(minor) if minor.isdecimal() else 0)
