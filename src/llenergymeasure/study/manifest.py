"""The plan of a study on disk, written when it starts and read when it goes on, and its diary.

``study_manifest.json`` is written beside its place and renamed, at the start and at the end only.
In between ``study_progress.jsonl`` grows by a line (:class:`ProgressLine`), so the bookkeeping of
an experiment costs the same in every study. Neither says what is complete: the directories of the
experiments do (``study/resume.py``). ``study_plan.json`` holds the plan alone, and is written once,
so that a damaged manifest costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from llenergymeasure._version import __version__
from llenergymeasure.config.base import as_unicode
from llenergymeasure.config.models import STORED, ExperimentConfig
from llenergymeasure.config.study import CycleOrder, StartMethod
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.domain import Record
from llenergymeasure.domain.study_result import Skipped
from llenergymeasure.exceptions import StudyError
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.filenames import slot_name
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory

# 1.0: plan with slots, skips and a view of progress.
SCHEMA_VERSION = "1.0"

LOG = logging.getLogger(__name__)

Status = Literal["running", "complete", "failed", "interrupted"]


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
        return self

    def config(self, slot: Slot) -> ExperimentConfig:
        """Give the configuration of a slot."""
        return self.experiments[slot.configuration]

    def order(self, configuration: int, settings: EffectiveSettings) -> WorkOrder:
        """Say what a worker on this machine is asked to do for a configuration, by its index."""
        config = self.experiments[configuration]
        return WorkOrder.of(config, settings, cold_start=self.cold_start)

    def directory(self, study: StudyDirectory, slot: Slot) -> ExperimentDirectory:
        """Give the directory of a slot; the same for as long as the study lives."""
        return study.experiment(slot_name(slot.number, slot.cycle, self.config(slot)))

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
        if directory.plan.read_bytes() == text.encode():
            return
    write_json_atomically(directory.plan, text)


def manifest_text(plan: StudyPlan, progress: ProgressView | None) -> str:
    """Write a plan out, with its progress where there is any: a line a configuration and a slot.

    What all configurations have in common stands once, as ``common``; nothing is left to defaults,
    which a later version may change.
    """
    data = plan.model_dump(mode="json")
    configs = data["experiments"]
    common = _common(configs)
    own = [{k: v for k, v in one.items() if k not in common} for one in configs]
    last = {"common": common, "experiments": own, "slots": data["slots"]}
    first = {key: value for key, value in data.items() if key not in last}
    view = {} if progress is None else {"progress": progress.model_dump(mode="json")}
    return as_unicode("{\n" + ",\n".join(_parts({**first, **view, **last})) + "\n}\n")


class NotedPlan(NamedTuple):
    """The plan of a study that goes on.

    Attributes:
        plan: The plan.
        notes: What there is to say of it that does not stand in the way, in plain words.
    """

    plan: StudyPlan
    notes: tuple[str, ...] = ()


def read_plan(directory: StudyDirectory) -> NotedPlan:
    """Read the plan of a study from its manifest, or from its own file where that is damaged.

    A note says which of the two is damaged.

    Raises:
        StudyError: Both are missing or damaged, or a later version wrote them.
    """
    plans: list[StudyPlan] = []
    faults: list[str] = []
    for path in (directory.manifest, directory.plan):
        try:
            plans.append(_plan_in(path))
        except FileNotFoundError:
            if path == directory.manifest:  # earlier versions wrote no other file
                faults.append(f"{path} is not there")
        except OSError as error:
            faults.append(f"{path} cannot be read ({error.strerror})")
        except (ValueError, TypeError) as error:
            faults.append(f"{path} is damaged ({_first_line(error)})")
    if not plans:
        raise _lost(directory, faults)
    if not faults:
        return NotedPlan(plans[0])
    note = f"{'; '.join(faults)}; the plan is whole in the other file, and is written anew"
    return NotedPlan(plans[0], (note,))


def _plan_in(path: Path) -> StudyPlan:
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict):
        raise TypeError("it is not a JSON object")
    version = str(data.get("schema_version"))
    if _major(version) > _major(SCHEMA_VERSION):
        raise StudyError(
            f"{path} has schema {version}, which a later version of llenergymeasure "
            f"wrote; this one ({__version__}) knows {SCHEMA_VERSION}: pip install --upgrade "
            "llenergymeasure",
            where=str(path),
        )
    return StudyPlan.from_json(data)


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
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdigit() else 0


class ProgressLine(Record):
    """One change of status: a line for each experiment that starts or ends.

    A record for readers and for estimates; a line that is lost or torn loses nothing.
    """

    slot: int = Field(description="Number of the slot.")
    status: Status = Field(description="What it became.")
    at: datetime = Field(description="When, by the wall clock; a label only.")
    duration_s: float | None = Field(
        None, description="How long it took without waiting for a device, s."
    )
    code: str | None = Field(None, description="Code of the error, where it failed.")


class ProgressLog:
    """Appends to ``study_progress.jsonl``; a disk that refuses is logged once, not an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._silent = False

    def note(self, line: ProgressLine) -> None:
        """Append a line in a single write."""
        text = line.model_dump_json(exclude_none=True) + "\n"
        try:
            if self._descriptor is None:
                self._descriptor, text = _open(self._path, text)
            if os.write(self._descriptor, text.encode()) < len(text.encode()):
                self.close()  # the next line is to begin on a line of its own
        except OSError as error:
            if not self._silent:
                LOG.warning("%s is not kept: %s", self._path, error)
            self._silent = True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_progress(path: Path) -> tuple[ProgressLine, ...]:
    """Read what can be read; a torn or damaged line is passed over, a missing file is empty."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        with contextlib.suppress(ValidationError):
            found.append(ProgressLine.model_validate_json(line))
    return tuple(found)


def _open(path: Path, text: str) -> tuple[int, str]:
    """Open for appending; begin a new line where a crash has torn the last one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    return descriptor, ("\n" + text) if torn else text
